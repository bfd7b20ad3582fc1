"""An arm is measured by doing its work; one that fails says where, and arms that did other work are not compared."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from msgspec.structs import replace

from segue.bench.arms.measurement import (
    DifferentWorkError,
    MeasurementPlan,
    TaskRound,
    check_same_work,
    measure_arm,
    measure_round,
    median_turns,
    rounds_to_arm,
)
from segue.bench.arms.model_server import ModelServerSpec, serve_workload
from segue.bench.arms.table import ARMS, REPLAY, THREADS
from segue.bench.links.profiles import LINKS
from segue.bench.meters.turn_meter import TurnUsage
from segue.bench.reports.report import RoundFigures, TurnFigures
from segue.bench.workloads.workload import ConversationWorkload, read_workload
from tests.bench.arms.processes import InProcess, end_here, model_here

WORKLOAD = ConversationWorkload("conversation:2")
HERE = MeasurementPlan(start_server=model_here, start_end=end_here)


@asynccontextmanager
async def of_another_workload(spec: ModelServerSpec) -> AsyncIterator[InProcess]:
    """Serve a model that does not know the second turn of the work."""
    async with serve_workload(replace(spec, workload="fix-a-failing-test")) as address:
        yield InProcess(address)


async def test_replay_and_id_do_the_same_work_with_other_bytes() -> None:
    rounds = {name: await measure_round(ARMS[name], WORKLOAD, HERE) for name in (REPLAY, "http id")}
    check_same_work(rounds)
    replay, by_id = (rounds_to_arm(name, WORKLOAD, HERE, [one]) for name, one in rounds.items())
    assert [len(replay.turns), len(by_id.turns)] == [2, 2]
    assert replay.totals.bytes_up_payload == (replay.totals.bytes_parsed or 0) - 2 * len(b'"stream":true,')
    second, continued = replay.turns[1], by_id.turns[1]
    assert (continued.bytes_up_payload or 0) < 0.5 * (second.bytes_up_payload or 0)
    assert continued.bytes_repeated == continued.bytes_settings_repeated
    assert (second.bytes_repeated or 0) > (continued.bytes_repeated or 0) + 20_000
    assert (by_id.totals.state_bytes or 0) > (replay.totals.state_bytes or 0)
    assert replay.totals.tokens_reused == 0
    for arm in (replay, by_id):
        (figures,) = arm.rounds
        assert 200 < (figures.set_up_up_bytes or 0) < 700
        assert 0 < (figures.set_up_s or 0) < (figures.ttft_first_s or 0) < (figures.task_s or 0)
        assert all((turn.bytes_up_wire or 0) > (turn.bytes_up_payload or 0) for turn in arm.turns)


async def test_a_message_thread_sends_instructions_and_tools_once() -> None:
    """And the same work is done: its tokens are those of another JSON, but the model says the same."""
    rounds = {name: await measure_round(ARMS[name], WORKLOAD, HERE) for name in ("http id", THREADS)}
    check_same_work(rounds)
    by_id, thread = (rounds_to_arm(name, WORKLOAD, HERE, [one]) for name, one in rounds.items())
    begun, continued = thread.turns
    assert (begun.bytes_repeated, continued.bytes_repeated) == (0, 0)
    assert (continued.bytes_up_payload or 0) < 0.4 * (by_id.turns[1].bytes_up_payload or 0)
    assert 0 < (thread.totals.bytes_down_payload or 0) < (by_id.totals.bytes_down_payload or 0)
    assert (thread.totals.state_bytes or 0) > 20_000  # in memory
    assert (continued.tokens_reused or 0) > 7_000
    assert 0 < (continued.ttft_s or 0) < (continued.time_s or 0)


async def test_a_link_costs_time_and_no_reading_of_the_server() -> None:
    plan = replace(HERE, link=LINKS["data-centre"], tokens_s=20_000.0, tls=False)
    arm = await measure_arm(ARMS["websocket id, not stored"], WORKLOAD, plan)
    assert arm.identity == ("websocket id, not stored", WORKLOAD.name, "data-centre", 20_000.0)
    assert arm.status == "completed"
    assert arm.totals.server_cpu_s is None
    assert arm.totals.state_bytes is None
    (figures,) = arm.rounds
    assert (figures.turns_s or 0) > (450 + 520) / 20_000
    assert figures.set_up_s is None


async def test_an_arm_that_fails_says_at_which_turn() -> None:
    plan = replace(HERE, start_server=of_another_workload)
    arm = await measure_arm(ARMS[REPLAY], WORKLOAD, plan, rounds=2)
    assert (arm.status, arm.failed_turn, arm.rounds) == ("failed", 1, [])
    assert arm.problem is not None
    assert "\n" not in arm.problem


@pytest.mark.untraced
async def test_processes_of_their_own_are_measured() -> None:
    arm = await measure_arm(ARMS["websocket id, stored"], WORKLOAD)
    assert arm.status == "completed"
    assert (arm.totals.server_cpu_s or 0) > 0
    assert (arm.totals.memory_bytes or 0) >= 0
    assert (arm.totals.state_bytes or 0) > 20_000


@pytest.mark.deep
@pytest.mark.parametrize("name", ARMS)
@pytest.mark.parametrize("workload", ["fix-a-failing-test", "article", "loop-12"])
async def test_every_arm_does_every_work(name: str, workload: str) -> None:
    rounds = {REPLAY: await measure_round(ARMS[REPLAY], read_workload(workload), MeasurementPlan())}
    rounds["other"] = await measure_round(ARMS[name], read_workload(workload), MeasurementPlan())
    check_same_work(rounds)
    assert rounds["other"].problem is None


async def test_the_articles_numbers() -> None:
    """176 KB against 32 KB for ten turns, which is a saving of 1 - 2/(N+1)."""
    sizes = {}
    for name in (REPLAY, "http id"):
        arm = await measure_arm(ARMS[name], read_workload("article"), HERE)
        sizes[name] = [turn.bytes_up_payload or 0 for turn in arm.turns]
    replay, by_id = sizes.values()
    assert sum(replay) == pytest.approx(176_000, rel=0.01)
    assert sum(by_id) == pytest.approx(32_000, rel=0.02)
    for turns in range(2, 11):
        saved = 1 - sum(by_id[:turns]) / sum(replay[:turns])
        assert saved == pytest.approx(1 - 2 / (turns + 1), abs=0.01)


# --- without a server ------------------------------------------------------------------------------------------------


def a_round(*seconds: float, problem: str | None = None, tokens: int = 7) -> TaskRound:
    return TaskRound(
        turns=[TurnFigures(time_s=time_s, bytes_up_wire=int(10 * time_s)) for time_s in seconds],
        figures=RoundFigures(task_s=sum(seconds)),
        usages=[TurnUsage(100, tokens) for _ in seconds],
        failed_turn=None if problem is None else len(seconds) + 1,
        problem=problem,
    )


def test_the_turns_of_an_arm_are_medians_and_its_time_is_that_of_the_median_round() -> None:
    arm = rounds_to_arm("a", WORKLOAD, MeasurementPlan(), [a_round(1, 5), a_round(2, 2), a_round(9, 3)])
    assert [turn.time_s for turn in arm.turns] == [2, 3]
    assert [turn.bytes_up_wire for turn in arm.turns] == [20, 30]
    assert arm.totals.time_s == 6
    assert (arm.workload, arm.link, arm.tokens_s, arm.failed_turn) == (WORKLOAD.name, None, None, None)


def test_the_median_of_two_whole_numbers_is_one_and_what_one_round_lacks_has_none() -> None:
    (turn,) = median_turns([[TurnFigures(bytes_up_wire=3, ttft_s=1.0)], [TurnFigures(bytes_up_wire=4)]])
    assert (turn.bytes_up_wire, turn.ttft_s) == (4, None)


def test_an_arm_fails_with_its_round_that_came_least_far() -> None:
    rounds = [a_round(1, 1, 1), a_round(1, 1, problem="late"), a_round(1, problem="early")]
    arm = rounds_to_arm("a", WORKLOAD, MeasurementPlan(), rounds)
    assert (arm.status, arm.failed_turn, arm.problem, len(arm.turns)) == ("failed", 2, "early", 1)
    assert len(arm.rounds) == 1


def test_arms_that_did_other_work_are_not_compared() -> None:
    check_same_work({})
    check_same_work({"a": a_round(1, 2), "b": a_round(3, 4), "c": a_round(1, problem="dead")})
    with pytest.raises(DifferentWorkError, match="a took 2 turns, b 1"):
        check_same_work({"a": a_round(1, 2), "b": a_round(1)})
    with pytest.raises(DifferentWorkError, match="turn 1: a had 100 tokens in and 7 out, b 100 tokens in and 8 out"):
        check_same_work({"a": a_round(1, 2), "b": a_round(1, 2, tokens=8)})


def test_tokens_of_an_input_are_compared_in_the_same_api_only() -> None:
    one, other = a_round(1), replace(a_round(1), usages=[TurnUsage(90, 7)])
    check_same_work({"a": one, "b": replace(other, api="messages")})
    with pytest.raises(DifferentWorkError, match="a had 100 tokens in and 7 out, b 90 tokens in"):
        check_same_work({"a": one, "b": other})
