"""When a provider wants to be asked again, as the body of its error says it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segue.dialects.retry_hints import read_retry_hint
from tests.strategies import json_values

_INFO = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34s"}


@pytest.mark.parametrize(
    ("layer", "seconds"),
    [
        ({"retry_after": 7}, 7.0),
        ({"retry_after": 0}, 0.0),
        ({"retry_after": 1.5}, 1.5),
        ({"retry_after": "30"}, 30.0),
        ({"Retry-After": "2.5"}, 2.5),
        ({"retry_after_ms": 250}, 0.25),
        ({"retryAfterSeconds": 3}, 3.0),
        ({"details": [{"reason": "x"}, _INFO]}, 34.0),
        ({"metadata": {"headers": {"Retry-After": "12"}}}, 12.0),
        ({"metadata": {"retry_after": 4}}, 4.0),
        ({"retry_after": None, "retry_after_ms": 500}, 0.5),
        ({"retry_after": True}, None),
        ({"retry_after": -1}, None),
        ({"retry_after": 700_000}, None),
        ({"retry_after": float("nan")}, None),
        ({"retry_after": "soon"}, None),
        ({"retry_after": "1" * 40}, None),
        ({"details": "30s"}, None),
        ({}, None),
    ],
)
def test_a_field_says_it(layer: dict[str, Any], seconds: float | None) -> None:
    assert read_retry_hint([layer], "") == seconds


@pytest.mark.parametrize(
    ("message", "seconds"),
    [
        ("Rate limit reached. Please try again in 6ms.", 0.006),
        ("Please try again in 11.054s. Visit …", 11.054),
        ("Please try again in 7m12.5s.", 432.5),
        ("Please try again in 1h2m3s", 3723.0),
        ("Quota exceeded. Please retry in 41.25s.", 41.25),
        ("please try again after 1 seconds", 1.0),
        ("Please try your request again in 20 seconds.", 20.0),
        ("Retry after 2 minutes", 120.0),
        ("Please try again in 500 milliseconds.", 0.5),
        ("Please try again later.", None),
        ("Try again in May 2026.", None),
        ("It took 20 seconds.", None),
        ("Please try again in 9999999h.", None),
    ],
)
def test_words_say_it(message: str, seconds: float | None) -> None:
    assert read_retry_hint([], message) == (None if seconds is None else pytest.approx(seconds))


def test_a_field_comes_before_words_and_the_inner_object_before_the_outer() -> None:
    assert read_retry_hint([{"retry_after": 1}, {"retry_after": 2}], "Try again in 3s.") == 1.0
    assert read_retry_hint([{}, {"retry_after": 2}], "Try again in 3s.") == 2.0


def test_a_hint_that_stands_deep_in_a_huge_body_is_not_looked_for() -> None:
    deep: dict[str, Any] = {"retry_after": 5}
    for _ in range(40):
        deep = {"metadata": deep}
    assert read_retry_hint([deep], "") is None
    assert read_retry_hint([{"details": [{} for _ in range(5000)] + [_INFO]}], "") is None


@given(value=json_values, text=st.text(max_size=80))
def test_anything_is_read(value: object, text: str) -> None:
    layer = value if isinstance(value, dict) else {"retry_after": value}
    seconds = read_retry_hint([layer], f"Try again in {text}")
    assert seconds is None or seconds >= 0
