"""Numbers and texts are short and printable, whatever a result file has in them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segue.bench.reports.shown_values import finite, shown_number, shown_text, shown_value
from tests.strategies import any_text, json_values


@pytest.mark.parametrize(
    ("value", "unit", "shown"),
    [
        (0, "B", "0 B"),
        (999, "B", "999 B"),
        (193.25, "B", "193 B"),
        (1_500, "B", "1.5 KB"),
        (4_935_900, "B", "4.9 MB"),
        (2.5e13, "B", "25,000.0 GB"),
        (0.0, "s", "0 s"),
        (2e-9, "s", "0.002 µs"),
        (0.000447, "s", "447 µs"),
        (0.0124, "s", "12.4 ms"),
        (5.15, "s", "5.15 s"),
        (211.4, "s", "211 s"),
        (1.34, "x", "1.34 x"),
        (10_654, "", "10,654"),
        (10**400, "B", "too large to show"),
    ],
)
def test_numbers_have_a_fitting_unit(value: float, unit: str, shown: str) -> None:
    assert shown_number(value, unit) == shown


def test_what_cannot_be_drawn_is_no_number() -> None:
    assert [finite(value) for value in (None, 10**400, -1e300, 1e-300, 2)] == [None, None, None, 0.0, 2.0]


def test_texts_are_on_one_line_and_steer_nothing() -> None:
    assert shown_text("a\nb\tc\x00\x1b[31m\u202ed") == "a b c\ufffd\ufffd[31m\ufffdd"
    assert shown_text("x" * 9, limit=5) == "xxxx…"


def test_settings_may_be_any_value() -> None:
    assert [shown_value(value) for value in (None, "a", {"b": [1, None]}, {"n": 10**5000})] == [
        "none",
        "a",
        '{"b":[1,null]}',
        "too large to show",
    ]


@given(any_text | json_values)
def test_whatever_it_is_it_is_short_and_printable(value: object) -> None:
    shown = shown_value(value, 50)
    assert len(shown) <= 50
    assert shown.isprintable()


@given(st.integers() | st.floats(allow_nan=False), st.sampled_from(["B", "s", "ms", "x" * 99]))
def test_whatever_the_number_it_is_short(value: float, unit: str) -> None:
    assert len(shown_number(value, unit)) <= 45
