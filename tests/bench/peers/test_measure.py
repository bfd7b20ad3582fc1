"""Peers that run are measured for real, and what the provider saw of the history is told; the others are left out."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from segue.bench.peers.catalogue import OURS, PEERS
from segue.bench.peers.measure import PeersPlan, measure_peers
from tests.bench.peers.fakes import fake_peer, write_program

PLAN = PeersPlan(depths=(1, 4), rounds=1, window=2, turn_bytes=200, warm_up=1)
KEEPS = replace(fake_peer("keeps"), beside="")
FORGETS = replace(fake_peer("forgets", "$port", "$provider", "forget"), beside="keeps")
BREAKS = fake_peer("breaks", "no-port", "$provider", "keep")
ABSENT = replace(fake_peer("absent"), program="no-such-program")
SOCKETLESS = replace(fake_peer("socketless"), doors=("websocket",))


async def test_what_is_kept_and_what_it_costs(tmp_path: Path) -> None:
    write_program(tmp_path)
    steps: list[str] = []
    result = await measure_peers(
        PLAN, [tmp_path], peers=[KEEPS, FORGETS, BREAKS, ABSENT, SOCKETLESS], on_step=steps.append
    )
    assert steps == ["keeps, round 1", "forgets, round 1", "breaks, round 1", "socketless, round 1"]
    keeps, forgets, socketless = result.doors
    assert (keeps.kept, keeps.seen, keeps.expected, keeps.problem) == (True, 9, 9, None)
    assert (forgets.kept, forgets.seen, forgets.expected) == (False, 1, 9)
    assert (socketless.kept, socketless.cpu_ms) == (None, {})
    assert socketless.problem == "no WebSocket: 404"
    assert {one.name: one.skipped for one in result.summaries if one.skipped} == {
        "breaks": "it ended with status 1: ValueError: invalid literal for int() with base 10: 'no-port'",
        "absent": "not installed: write absent",
    }
    assert result.summaries[0].version == "1.2.3"
    assert list(keeps.cpu_ms) == list(keeps.time_ms) == [1, 4]
    assert all((one.value or 0) > 0 for one in keeps.cpu_ms.values())
    deep, shallow = keeps.provider_kb[4].value, forgets.provider_kb[4].value
    assert deep is not None
    assert shallow is not None
    assert deep > 4 * shallow > 0.8
    assert forgets.kept_at == {1: True, 4: False}
    by_depth = [(one.depth, one.standing == "not compared") for one in result.compared]
    assert by_depth == [(1, False), (4, True), (1, False), (4, True)]
    assert list(result.memory_mb) == ["keeps", "forgets", "socketless"]
    report = result.report
    assert [one.identity[:2] for one in report.arms] == [
        ("keeps, http", "depth 1"),
        ("keeps, http", "depth 4"),
        ("forgets, http", "depth 1"),
        ("forgets, http", "depth 4"),
    ]
    assert all(one.totals.server_cpu_s and len(one.turns) == 2 for one in report.arms)
    shares = {one.name: one.value for one in report.figures if one.name.startswith("history")}
    assert shares == {
        "history at the provider: keeps, http": 1.0,
        "history at the provider: forgets, http": 1 / 9,
        "history at the provider: socketless, websocket": None,
    }


async def test_what_is_too_slow_is_not_measured_again(tmp_path: Path) -> None:
    write_program(tmp_path)
    steps: list[str] = []
    plan = replace(PLAN, rounds=3, longest_s=0.001)
    result = await measure_peers(plan, [tmp_path], peers=[KEEPS], on_step=steps.append)
    assert steps == ["keeps, round 1"]
    assert result.doors[0].problem is not None
    assert result.doors[0].problem.startswith("the time was over at depth")


@pytest.mark.deep
async def test_our_own_entries_keep_everything() -> None:
    """The quick twin is the one above; this one starts gateways."""
    ours = [peer for peer in PEERS if peer.ours]
    result = await measure_peers(replace(PLAN, rounds=2), [], peers=ours)
    assert [door.kept for door in result.doors] == [True] * 6
    assert result.disk_kb[OURS].value
    assert all(one.problem is None for one in result.doors)
