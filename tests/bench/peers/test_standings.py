"""Ours is ahead, even or behind by the ranges of the rounds; who forgot is not compared."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from segue.bench.peers.standings import MeasuredDoor, compare_doors
from segue.bench.reports.report import Figure, figure

OURS = MeasuredDoor(
    name="ours",
    beside="",
    door="http",
    kept=True,
    kept_at={1: True, 5: True},
    cpu_ms={1: figure("cpu", [1.0, 1.2, 1.1], "ms")},
)
PEER = replace(OURS, name="peer", beside="ours")


@pytest.mark.parametrize(
    ("values", "kept", "standing"),
    [
        ([1.3, 1.4, 1.5], True, "ahead"),
        ([1.15, 1.4, 1.5], True, "even"),
        ([0.7, 0.8, 0.9], True, "behind"),
        ([1.3, 1.4, 1.5], False, "not compared"),
    ],
)
def test_a_difference_counts_if_ranges_do_not_overlap(values: list[float], kept: bool, standing: str) -> None:
    theirs = replace(
        PEER, kept=False, kept_at={1: kept}, cpu_ms={1: figure("cpu", values, "ms"), 100: figure("cpu", values, "ms")}
    )
    (compared,) = compare_doors([OURS, theirs])
    assert (compared.peer, compared.beside, compared.depth, compared.figure) == ("peer", "ours", 1, "CPU")
    assert (compared.ours, compared.standing) == (1.1, standing)


def test_time_is_compared_too() -> None:
    time_ms = {5: figure("time", [2.0], "ms")}
    compared = compare_doors([replace(PEER, cpu_ms={}, time_ms=time_ms), replace(OURS, cpu_ms={}, time_ms=time_ms)])
    assert [(one.figure, one.depth, one.standing) for one in compared] == [("time", 5, "even")]


def test_only_the_same_transport_is_compared() -> None:
    assert compare_doors([OURS, replace(PEER, door="websocket")]) == []
    assert compare_doors([PEER]) == []


def test_what_was_not_measured_is_not_compared() -> None:
    unmeasured = replace(PEER, cpu_ms={1: figure("cpu", [], "ms")})
    assert compare_doors([OURS, unmeasured]) == []
    (compared,) = compare_doors([OURS, replace(PEER, cpu_ms={1: Figure(name="cpu", value=3.0, unit="ms")})])
    assert compared.standing == "not compared"
