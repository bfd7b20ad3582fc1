"""Ranges of numbers as regular expressions of how JSON writes the numbers in them: pure.

A whole number has at most 16 digits, unless its bounds have more. Another number has no exponent, and no more digits
behind its point than a double tells apart near the bounds, so that these also hold for what a reader makes of it. Not
here: how a schema says its bounds (`grammar`).
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from math import ceil, floor

import msgspec

_DIGITS = 16
_MOST_DIGITS = 30  # of a bound that is heeded
_PRECISE = 15  # digits that every double keeps


class Bound(msgspec.Struct, frozen=True):
    """Where a range ends, and whether that number itself is left out."""

    value: Fraction
    exclusive: bool = False


class Empty(ValueError):
    """No number is in this range."""


def integers(low: Bound | None, high: Bound | None) -> str | None:
    """Return an expression for the whole numbers in a range, None if it is too far out; may raise `Empty`."""
    ends = _ends(low, high, 0)
    if ends is not None and ends[0] > ends[1]:
        raise Empty
    return None if ends is None else _signed(*ends, _whole)


def numbers(low: Bound | None, high: Bound | None, places: int | None = None) -> str | None:
    """Return an expression for the numbers in a range, with at most so many decimal places; may raise `Empty`.

    None if it is too far out, or too narrow for numbers of that many places.
    """
    if low and high and (low.value > high.value or (low.value == high.value and (low.exclusive or high.exclusive))):
        raise Empty
    size = max(len(str(abs(floor(bound.value)))) for bound in (low, high, Bound(Fraction())) if bound is not None)
    precise = max(0, _PRECISE - size)
    places = precise if places is None else min(places, precise)
    ends = _ends(low, high, places)
    if ends is None or ends[0] > ends[1]:
        return None
    return _signed(*ends, lambda first, last: _decimal(first, last, places))


def _ends(low: Bound | None, high: Bound | None, places: int) -> tuple[int, int] | None:
    """Return the first and the last number of the range, in units of the last decimal place."""
    unit = 10**places
    far = unit * 10**_MOST_DIGITS
    first = None if low is None else ceil(low.value * unit) + (low.exclusive and (low.value * unit).denominator == 1)
    last = (
        None if high is None else floor(high.value * unit) - (high.exclusive and (high.value * unit).denominator == 1)
    )
    if (first is not None and first >= far) or (last is not None and last <= -far):
        return None
    first, last = None if first is None or first <= -far else first, None if last is None or last >= far else last
    most = max(unit * 10**_DIGITS, 10 * abs(first or 0), 10 * abs(last or 0)) - 1
    return -most if first is None else first, most if last is None else last


def _signed(first: int, last: int, write: Callable[[int, int], str]) -> str:
    """Write a range by what writes one of numbers without a sign."""
    below = f"-(?:{write(max(1, -last), -first)})" if first < 0 else ""
    above = write(max(0, first), last) if last >= 0 else ""
    return f"{below}|{above}" if below and above else below or above


def _whole(first: int, last: int) -> str:
    """Write the whole numbers from one to another, neither below 0."""
    short, long = len(str(first)), len(str(last))
    if short == long:
        return _digits(str(first), str(last))
    parts = [_digits(str(first), "9" * short), _digits("1" + "0" * (long - 1), str(last))]
    if long - short > 1:  # all those in between
        parts.append(f"[1-9]\\d{{{short},{long - 2}}}")
    return "|".join(parts)


def _decimal(first: int, last: int, places: int) -> str:
    """Write decimal numbers, neither below 0, given in units of their last place."""
    if not places:
        return _whole(first, last)
    (low, low_part), (high, high_part) = divmod(first, 10**places), divmod(last, 10**places)
    nines = 10**places - 1
    if low == high:
        return f"{low}{_places(low_part, high_part, places)}"
    parts = []
    if low_part > 0:
        parts.append(f"{low}{_places(low_part, nines, places)}")
        low += 1
    if high_part < nines:
        parts.append(f"{high}{_places(0, high_part, places)}")
        high -= 1
    if low <= high:
        parts.append(f"(?:{_whole(low, high)}){_places(0, nines, places)}")
    return "|".join(parts)


def _places(first: int, last: int, places: int) -> str:
    """Write what is behind a point, with the point; nothing at all is 0."""
    written = f"\\.(?:{_digits(f'{first:0{places}}', f'{last:0{places}}', short=True)})"
    return written if first else f"(?:{written})?"


def _digits(low: str, high: str, *, short: bool = False) -> str:
    """Write the digits from `low` to `high`, which have the same number of them.

    Where they may be `short`, zeros at the end may be missing, but for the last digit that is left.
    """
    zeros, nines = "0" * (len(low) - 1), "9" * (len(low) - 1)

    def then(low: str, high: str) -> str:
        if not low:
            return ""
        if low == zeros and high == nines:
            return f"\\d{{{0 if short else len(low)},{len(low)}}}"
        return f"(?:{_digits(low, high, short=short)})" + ("?" if short and low == zeros else "")

    if low[0] == high[0]:
        return low[0] + then(low[1:], high[1:])
    parts, first, last = [], int(low[0]), int(high[0])
    if low[1:] > zeros:
        parts.append(low[0] + then(low[1:], nines))
        first += 1
    if high[1:] < nines:
        parts.append(high[0] + then(zeros, high[1:]))
        last -= 1
    if first <= last:
        parts.append(f"[{first}-{last}]" + then(zeros, nines))
    return "|".join(parts)
