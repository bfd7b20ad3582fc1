"""How the cost of a turn falls as turns come faster, and the curve that fits a few measurements of it. Pure.

A server that rests is woken by the first turn, and serves what comes shortly after it in the same go: one wake-up, one
commit, one look at its sockets, and data that is still near the processor. If turns come at random, `rate` a second,
and a wake-up serves all that come within a `window_s` of it, one of `1 + rate * window_s` turns pays for it. Not here:
measuring (`cluster`), and what is made of it (`cluster_plan`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

#: The windows that are tried: from 10 µs to 10 s, each a little longer than the one before.
_WINDOWS_S = tuple(10 ** (exponent / 50) for exponent in range(-250, 51))


class CostCurve(msgspec.Struct, frozen=True, kw_only=True):
    """What a turn costs: always `turn`, and its part of a wake-up that costs `wake`."""

    turn: float
    wake: float = 0.0
    window_s: float = 0.0

    def at(self, rate: float) -> float:
        """Return the cost of a turn when so many come each second."""
        return self.turn + self.wake / (1 + rate * self.window_s)


class CostPoint(NamedTuple):
    """What a turn was measured to cost at a rate."""

    rate: float
    cost: float


def fit(points: Sequence[CostPoint]) -> CostCurve:
    """Return the curve that is off by the least part of each measured cost; no part of it is negative.

    Raises:
        ValueError: there are no points.
    """
    if not points:
        raise ValueError("a curve needs points")
    usable = [point for point in points if point.cost > 0]
    if not usable:
        return CostCurve(turn=0.0)
    return min((_fit_with(usable, window_s) for window_s in _WINDOWS_S), key=lambda curve: _misfit(curve, usable))


def _misfit(curve: CostCurve, points: Sequence[CostPoint]) -> float:
    return sum((curve.at(point.rate) / point.cost - 1) ** 2 for point in points)


def _fit_with(points: Sequence[CostPoint], window_s: float) -> CostCurve:
    """Return the best curve with this window: linear least squares of `cost = turn + wake * share`, by parts of it."""
    rows = [(1 / point.cost, 1 / (1 + point.rate * window_s) / point.cost) for point in points]
    aa, ab, bb = (sum(row[i] * row[j] for row in rows) for i, j in ((0, 0), (0, 1), (1, 1)))
    a, b = (sum(row[i] for row in rows) for i in (0, 1))
    determinant = aa * bb - ab * ab
    if determinant > 1e-9 * aa * bb:  # else all shares are alike
        turn, wake = (a * bb - b * ab) / determinant, (b * aa - a * ab) / determinant
        if turn >= 0 and wake >= 0:
            return CostCurve(turn=turn, wake=wake, window_s=window_s)
    flat, steep = CostCurve(turn=a / aa), CostCurve(turn=0.0, wake=b / bb, window_s=window_s)
    return min(flat, steep, key=lambda curve: _misfit(curve, points))
