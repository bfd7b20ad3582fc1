"""Ranges of numbers as expressions, against the numbers themselves."""

from __future__ import annotations

import re
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.engine.grammar.number_ranges import Bound, Empty, integers, numbers

near = st.integers(-1500, 1500) | st.integers(-(10**17), 10**17)
optional = st.none() | near


def bound(value: float | None, *, exclusive: bool = False) -> Bound | None:
    return None if value is None else Bound(Fraction(str(value)), exclusive)


def within(value: Fraction, low: Bound | None, high: Bound | None) -> bool:
    above = low is None or value > low.value or (value == low.value and not low.exclusive)
    return above and (high is None or value < high.value or (value == high.value and not high.exclusive))


@settings(max_examples=60)
@given(optional, optional, st.booleans(), st.lists(near, max_size=9))
def test_integers(one: int | None, other: int | None, exclusive: bool, tried: list[int]) -> None:
    low, high = bound(one, exclusive=exclusive), bound(other, exclusive=exclusive)
    ends = [end for end in (one, other) if end is not None]
    try:
        expression = integers(low, high)
    except Empty:
        assert low is not None
        assert high is not None
        assert not any(within(Fraction(n), low, high) for n in range(ends[0], ends[1] + 1))
        return
    assert expression is not None
    found = re.compile(expression)
    for number in [*tried, *ends, *(end + step for end in ends for step in (-1, 1)), 0]:
        if abs(number) < 10**16 or ends:
            inside = within(Fraction(number), low, high)
            assert bool(found.fullmatch(str(number))) == (inside and _written(number, ends)), number


def _written(number: int, ends: list[int]) -> bool:
    """Tell whether a number has so many digits that it is written: as many as a bound, and one more."""
    return len(ends) == 2 or abs(number) < max(10**16, *(10 * abs(end) for end in ends), 0)


decimals = st.integers(-99_999, 99_999).map(lambda number: number / 1000)


@settings(max_examples=60)
@given(decimals, decimals, st.booleans(), st.booleans(), st.lists(decimals, max_size=9))
def test_numbers(one: float, other: float, above: bool, below: bool, tried: list[float]) -> None:
    low, high = bound(min(one, other), exclusive=above), bound(max(one, other), exclusive=below)
    if one == other and (above or below):
        with pytest.raises(Empty):
            numbers(low, high)
        return
    found = re.compile(numbers(low, high) or "")
    for number in [*tried, one, other, (one + other) / 2, one + 0.0001, other - 0.0001]:
        text = f"{number:.6f}".rstrip("0").rstrip(".")
        if text != "-0":
            assert bool(found.fullmatch(text)) == within(Fraction(text), low, high), text
            if "." in text:  # zeros at the end change nothing
                assert bool(found.fullmatch(text)) == bool(found.fullmatch(text + "0")), text


@settings(max_examples=15)
@given(st.floats(0.001, 10**14), st.booleans(), st.data())
def test_a_bound_holds_for_what_is_read(end: float, above: bool, data: st.DataObject) -> None:
    """However many digits there are: a double is not rounded to the other side of the bound."""
    low, high = (bound(end, exclusive=True), None) if above else (None, bound(end, exclusive=True))
    expression = numbers(low, high)
    assert expression is not None
    text = data.draw(st.from_regex(re.compile(expression, re.ASCII), fullmatch=True))
    assert float(text) > end if above else float(text) < end


def test_places() -> None:
    found = re.compile(numbers(bound(0), None, 2) or "")
    assert [text for text in ("0", "1.5", "1.25", "1.255", "-1", "12.00") if found.fullmatch(text)] == [
        "0",
        "1.5",
        "1.25",
        "12.00",
    ]
    assert re.fullmatch(numbers(bound(0), None, 0) or "", "3")


@pytest.mark.parametrize(
    ("low", "high"),
    [
        (bound(10**40), None),
        (None, bound(-(10**40))),
        (bound(0.5), bound(0.50000000000000001e-20)),
    ],
)
def test_what_is_too_far_or_contradicts(low: Bound | None, high: Bound | None) -> None:
    try:
        assert numbers(low, high) is None
    except Empty:
        assert low is not None
        assert high is not None


def test_what_is_too_narrow_is_not_enforced() -> None:
    """Between these there are numbers, but none of so few digits."""
    assert numbers(bound(0.12345678901234567), bound(0.12345678901234569)) is None


def test_expressions_stay_short() -> None:
    """A digit of a bound costs a few characters."""
    far = 10**29 + 1234567
    for low, high in ((-far, far), (None, far), (-far, None), (-7, far), (10**4000, 10**4001), (0, 10**4001)):
        assert len(integers(bound(low), bound(high)) or "") < 2000
        assert len(numbers(bound(low), bound(high)) or "") < 4000
