"""The axes of a chart: where a value lies, and which round values are labelled.

Not here: drawing them (`svg`).
"""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol

_TICKS = 6  # at most, about
_STEPS = (1, 2, 5, 10)
_LEAST_DECADES = 0.1
_MOST_DECADES = 12  # more would make a label for each of a hundred powers of ten


class Scale(Protocol):
    """Places values between `start` and `end`."""

    start: float
    end: float

    def at(self, value: float) -> float:
        """Return the place of a value; one that is off the axis is placed at its end."""
        ...

    def ticks(self) -> list[float]:
        """Return the values to label."""
        ...


class LinearScale:
    """An axis on which equal differences are equally long. An axis of one value has it at its start."""

    def __init__(self, low: float, high: float, start: float, end: float) -> None:
        self._low, self._high = low, high
        self._span = (high - low) or 1.0
        self.start, self.end = start, end

    def at(self, value: float) -> float:
        """Return the place of a value; one that is off the axis is placed at its end."""
        part = min(max((value - self._low) / self._span, 0.0), 1.0)
        return self.start + (self.end - self.start) * part

    def ticks(self) -> list[float]:
        """Return up to seven round values."""
        if self._high <= self._low:
            return [self._low]
        rough = (self._high - self._low) / _TICKS
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(power * size for size in _STEPS if power * size >= rough * 0.999)
        first = math.ceil(self._low / step - 1e-9)
        return [number * step for number in range(first, math.floor(self._high / step + 1e-9) + 1)]


class LogScale:
    """An axis on which equal ratios are equally long, from a power of ten to another, or as `tight` as can be."""

    def __init__(self, low: float, high: float, start: float, end: float, *, tight: bool = False) -> None:
        bottom, top = math.log10(low), math.log10(high)
        if not tight or top - bottom < _LEAST_DECADES:
            bottom, top = math.floor(bottom + 1e-9), math.ceil(top - 1e-9)
        self._bottom = max(bottom, top - _MOST_DECADES)
        self._top = top if top > self._bottom else self._bottom + 1
        self.start, self.end = start, end

    def at(self, value: float) -> float:
        """Return the place of a value; one that is off the axis is placed at its end."""
        power = math.log10(value) if value > 0 else -math.inf
        part = (min(max(power, self._bottom), self._top) - self._bottom) / (self._top - self._bottom)
        return self.start + (self.end - self.start) * part

    def ticks(self) -> list[float]:
        """Return the powers of ten."""
        lowest, highest = math.ceil(self._bottom - 1e-9), math.floor(self._top + 1e-9)
        return [10.0**power for power in range(lowest, highest + 1)]


class AxisUnit(NamedTuple):
    """The unit that an axis is labelled in, and its size in that of the values."""

    name: str
    size: float


_UNITS = {
    "B": (AxisUnit("GB", 1e9), AxisUnit("MB", 1e6), AxisUnit("KB", 1e3), AxisUnit("B", 1.0)),
    "s": (AxisUnit("s", 1.0), AxisUnit("ms", 1e-3), AxisUnit("µs", 1e-6)),
}


def axis_unit(most: float, unit: str) -> AxisUnit:
    """Return the unit in which the greatest value has the fewest digits."""
    known = _UNITS.get(unit, (AxisUnit(unit, 1.0),))
    return next((one for one in known if abs(most) >= one.size), known[-1])
