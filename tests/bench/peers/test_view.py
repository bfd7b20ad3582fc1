"""Peers and ours fit 80 columns; who forgot and who was left out is said."""

from __future__ import annotations

import io

import pytest

from segue.bench.peers.measure import PeersResult, PeerSummary
from segue.bench.peers.standings import ComparedDepth, MeasuredDoor, Standing
from segue.bench.peers.view import render_peers, standing_lines
from segue.bench.reports.report import figure, make_report
from tests.terminals import terminal_of

CPU = {depth: figure("cpu", [1234.5], "ms") for depth in (1, 100, 500)}


def compared(figure_: str, depth: int, standing: Standing) -> ComparedDepth:
    return ComparedDepth(
        peer="peer",
        beside="ours",
        door="websocket",
        depth=depth,
        figure="CPU" if figure_ == "CPU" else "time",
        ours=1,
        theirs=2,
        standing=standing,
    )


def shown(result: PeersResult, width: int = 80) -> str:
    screen = io.StringIO()
    render_peers(result, terminal_of(file=screen, width=width))
    return screen.getvalue()


@pytest.mark.parametrize("depths", [(1,), (1, 100, 500)])
def test_it_fits(depths: tuple[int, ...]) -> None:
    cpu = {depth: CPU[depth] for depth in depths}
    doors = (
        MeasuredDoor(name="segue, memory", beside="", door="websocket", kept=True, cpu_ms=cpu, time_ms=cpu),
        MeasuredDoor(name="peer", beside="segue, memory", door="http", kept=False, seen=101, expected=1039, cpu_ms=cpu),
        MeasuredDoor(name="mute", beside="ours", door="http", kept=None, problem="depth 1: 500 oops"),
    )
    summaries = (
        PeerSummary(name="segue, memory", tested="1", version="1.108.7"),
        PeerSummary(name="peer", tested="1"),
        PeerSummary(name="mute", tested="1"),
        PeerSummary(name="away", tested="1", skipped="not installed: pip install away"),
    )
    memory = {"peer": figure("memory", [385.0], "MB")}
    disk = {"peer": figure("disk", [569.0], "KB")}
    result = PeersResult(
        report=make_report([], {}), summaries=summaries, doors=doors, compared=(), memory_mb=memory, disk_kb=disk
    )
    narrow = shown(result, 50)
    assert all(len(line) <= 50 for line in narrow.splitlines())
    assert narrow.count("1,234.5") == 3 * len(depths)
    text = shown(result)
    assert all(len(line) <= 80 for line in text.splitlines())
    lines = [line.split() for line in text.splitlines()]
    assert ["peer", "?", "HTTP", "101", "of", "1039", *["1,234.5"] * len(depths)] in lines
    assert ["peer", "HTTP", "385", "569"] in lines
    assert "mute, http: depth 1: 500 oops" in text
    assert "away: left out, not installed: pip install away" in text


def test_nothing_measured_is_no_table() -> None:
    result = PeersResult(report=make_report([], {}), summaries=(), doors=(), compared=(), memory_mb={}, disk_kb={})
    assert shown(result) == ""


def test_where_ours_stands_is_said() -> None:
    rows = [compared("CPU", 1, "behind"), compared("CPU", 100, "ahead"), compared("CPU", 500, "ahead")]
    rows += [compared("time", 1, "even")]
    assert standing_lines(rows) == [
        "ours beside peer over WebSocket: CPU behind at 1, ahead at 100, 500; time even at 1"
    ]
    lost = [compared("CPU", 1, "not compared"), compared("time", 1, "not compared")]
    told = "not compared (history lost) at 1"
    assert standing_lines(lost) == [f"ours beside peer over WebSocket: CPU {told}; time {told}"]
