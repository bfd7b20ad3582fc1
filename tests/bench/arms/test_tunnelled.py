"""Through a sidecar and a gateway a session costs little more than what is new in it, whatever the socket carries."""

from __future__ import annotations

from functools import partial

import pytest

from segue.bench.arms.baselines import cost
from segue.bench.arms.tunnelled import GATEWAY, SIDECAR, first_request, sidecar_path, warmed
from segue.bench.reports.report import TurnFigures
from segue.bench.table import PlayedRound, play_once
from segue.bench.workloads.clients import AgentKind
from segue.bench.workloads.sessions import make_session
from segue.testing.recorded_session import RecordedSession
from tests.bench.arms.processes import end_here

cold = partial(sidecar_path, start=end_here)


def up(turns: list[TurnFigures]) -> int:
    return sum(turn.bytes_up_wire or 0 for turn in turns)


def saved(played: PlayedRound, session: RecordedSession) -> float:
    """Which part of the bytes that the same session takes over plain HTTP was not sent; set-up counts against it."""
    return 1 - (up(played.turns) + played.set_up.up_bytes) / sum(turn.up_bytes for turn in cost("raw", session))


@pytest.mark.parametrize("kind", ["codex", "claude-code", "qwen-code"])
async def test_cold_eleven_turns_stay_near_the_bound(kind: AgentKind) -> None:
    session = make_session(kind, turns=11)
    played = await play_once(session, cold)
    assert up(played.turns) <= 1.3 * session.bound
    assert saved(played, session) > 0.95
    assert all(turn.bytes_down_wire for turn in played.turns)


@pytest.mark.deep
async def test_cold_forty_one_turns_save_more_than_99_percent() -> None:
    session = make_session("claude-code", turns=41)
    played = await play_once(session, cold)
    assert up(played.turns) <= 1.3 * session.bound
    assert saved(played, session) > 0.99


async def test_warm_the_first_request_is_a_delta_too() -> None:
    session = make_session("claude-code", turns=11)
    played = await play_once(session, warmed(make_session("claude-code", turns=3, task=1), start=end_here))
    first = played.turns[0]
    assert first.bytes_up_wire is not None
    assert first.bytes_up_wire < 0.03 * len(session.turns[0].body)
    assert saved(played, session) >= 0.98


async def test_warmed_by_its_own_first_request_a_session_sends_hardly_more_than_its_news() -> None:
    session = make_session("pi", turns=3)
    played = await play_once(session, warmed(first_request(session), start=end_here))
    first = played.turns[0]
    assert first.bytes_up_wire is not None
    assert first.bytes_up_wire < 0.15 * len(session.turns[0].body)  # all heads are in it


async def test_a_websocket_session_goes_through_message_by_message() -> None:
    session = make_session("codex-ws", turns=3)
    played = await play_once(session, cold)
    assert up(played.turns) <= 1.3 * session.bound


@pytest.mark.untraced
async def test_processes_of_their_own_tell_their_cpu_time_apart_from_the_set_up() -> None:
    played = await play_once(make_session("mini-swe-agent", turns=2), sidecar_path)
    assert set(played.cpu_s) == {GATEWAY, SIDECAR}
    assert all(spent_s > 0 for spent_s in played.cpu_s.values())
    assert sum(turn.server_cpu_s or 0.0 for turn in played.turns) == pytest.approx(sum(played.cpu_s.values()))
    assert 200 < played.set_up.up_bytes < 1000
    assert 100 < played.set_up.down_bytes < 1000
