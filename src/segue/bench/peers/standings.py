"""Who needs less: each peer beside the entry of ours that does the same, figure by figure. Pure.

A difference counts only if the ranges of the rounds do not overlap. Where a server forgot the history it did less work,
so its figure there is shown and not compared. Not here: measuring.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from segue.bench.reports.report import Figure
from segue.client.settings import TransportKind

Standing = Literal["ahead", "even", "behind", "not compared"]


class MeasuredDoor(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured of one server over one transport: figures by depth, each with its range over the rounds."""

    name: str
    beside: str
    door: TransportKind
    kept: bool | None
    """Whether every request at the provider showed the whole history; None if no turn was answered."""
    kept_at: dict[int, bool] = {}
    """The same of the turns measured at each depth."""
    seen: int = 0
    expected: int = 0
    problem: str | None = None
    cpu_ms: dict[int, Figure] = {}
    time_ms: dict[int, Figure] = {}
    provider_kb: dict[int, Figure] = {}


class ComparedDepth(msgspec.Struct, frozen=True, kw_only=True):
    """Ours beside a peer's at one depth; the standing is ours."""

    peer: str
    beside: str
    door: TransportKind
    depth: int
    figure: Literal["CPU", "time"]
    ours: float
    theirs: float
    standing: Standing


def compare_doors(doors: Sequence[MeasuredDoor]) -> list[ComparedDepth]:
    """Compare each peer with ours, wherever both were measured."""
    ours = {(one.name, one.door): one for one in doors if not one.beside}
    compared: list[ComparedDepth] = []
    for theirs in doors:
        own = ours.get((theirs.beside, theirs.door))
        if own is not None:
            compared += [*_compare(own, theirs, "CPU"), *_compare(own, theirs, "time")]
    return compared


def _compare(own: MeasuredDoor, theirs: MeasuredDoor, figure: Literal["CPU", "time"]) -> list[ComparedDepth]:
    mine, other = (own.cpu_ms, theirs.cpu_ms) if figure == "CPU" else (own.time_ms, theirs.time_ms)
    return [
        ComparedDepth(
            peer=theirs.name,
            beside=own.name,
            door=own.door,
            depth=depth,
            figure=figure,
            ours=mine[depth].value or 0.0,
            theirs=other[depth].value or 0.0,
            standing=_standing(mine[depth], other[depth]) if theirs.kept_at.get(depth) else "not compared",
        )
        for depth in sorted(mine.keys() & other.keys())
        if mine[depth].value is not None and other[depth].value is not None
    ]


def _standing(mine: Figure, other: Figure) -> Standing:
    if mine.low is None or mine.high is None or other.low is None or other.high is None:
        return "not compared"
    if mine.high < other.low:
        return "ahead"
    return "behind" if other.high < mine.low else "even"
