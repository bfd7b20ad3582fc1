"""The time of a task is computed from what was measured of its bytes, and says that it is computed."""

from __future__ import annotations

import pytest

from segue.bench.arms.measurement import TaskRound
from segue.bench.arms.table import ARMS, REPLAY
from segue.bench.arms.tunnelled import COLD, WARM
from segue.bench.computed_times import TaskLoad, bytes_of_a_token_alone, computed_arm, load_of, setup_rtts
from segue.bench.links.conversation_time import TurnLoad, compute_task
from segue.bench.links.profiles import LINKS
from segue.bench.meters.turn_meter import TurnUsage
from segue.bench.reports.report import RoundFigures, TurnFigures

SHORT = TaskLoad(ARMS[REPLAY], "article", (TurnLoad(4000, 30_000, 40), TurnLoad(9000, 30_000, 40)))


def a_round(*down: int | None, tokens: int = 7) -> TaskRound:
    return TaskRound(
        turns=[TurnFigures(bytes_up_wire=300, bytes_down_wire=size) for size in down],
        figures=RoundFigures(bytes_down_wire=sum(size or 0 for size in down)),
        usages=[TurnUsage(10, tokens + number) for number, _ in enumerate(down)],
    )


def test_a_load_is_what_the_turns_carried() -> None:
    load = load_of(ARMS["http id"], "loop-12", a_round(2000, None), token_bytes=0.0)
    assert load == TaskLoad(ARMS["http id"], "loop-12", (TurnLoad(300, 2000, 7), TurnLoad(300, 1, 8)))
    assert load.tokens == 15


def test_tokens_that_are_written_one_by_one_are_more_bytes() -> None:
    """What they cost is measured of one workload, and added to all."""
    at_once, one_by_one = a_round(1000, 1000), a_round(1100, 1200)
    token_bytes = bytes_of_a_token_alone(at_once, one_by_one)
    assert token_bytes == 300 / 15
    longer = load_of(ARMS[REPLAY], "conversation:2", a_round(5000, tokens=100), token_bytes=token_bytes)
    assert longer.turns == (TurnLoad(300, 5000 + 2000, 100),)
    assert bytes_of_a_token_alone(one_by_one, at_once) == 0.0, "it is never less"
    assert bytes_of_a_token_alone(a_round(), a_round()) == 0.0


@pytest.mark.parametrize(
    ("name", "with_tls", "without"),
    [
        (REPLAY, 2, 1),
        ("http/2 replay", 2, 1),
        ("http id", 2, 1),
        ("websocket id, not stored", 3, 2),
        (COLD, 0, 0),
        (WARM, 0, 0),
    ],
)
def test_what_an_arm_waits_for_before_its_first_request(name: str, with_tls: float, without: float) -> None:
    assert (setup_rtts(ARMS[name], tls=True), setup_rtts(ARMS[name], tls=False)) == (with_tls, without)


def test_an_arm_has_the_times_of_the_timing_model() -> None:
    link = LINKS["slow-4g"]
    made = computed_arm(SHORT, link, 65.0, tls=True)
    task = compute_task(SHORT.turns, link.profile, setup_rtts=2, tokens_s=65.0)
    assert made.identity == (REPLAY, "article", "slow-4g", 65.0)
    assert (made.basis, made.status, len(made.rounds)) == ("computed", "completed", 1)
    assert made.totals.time_s == made.rounds[0].task_s == task.task_s
    assert [turn.at_s for turn in made.turns] == [turn.at_s for turn in task.turns]
    assert [turn.bytes_up_wire for turn in made.turns] == [4000, 9000]
    assert made.rounds[0].set_up_s == pytest.approx(0.3)
    assert made.rounds[0].ttft_first_s == made.turns[0].ttft_s == task.turns[0].ttft_s
    assert made.rounds[0].turns_s == pytest.approx(task.task_s)


def test_the_upgrade_to_websocket_costs_a_round_trip_at_the_first_turn_alone() -> None:
    socket = TaskLoad(ARMS["websocket replay"], "article", SHORT.turns)
    http, websocket = (computed_arm(load, LINKS["geo-in-flight"], 65.0, tls=True) for load in (SHORT, socket))
    later = [
        (one.ttft_s or 0.0) - (other.ttft_s or 0.0) for one, other in zip(websocket.turns, http.turns, strict=True)
    ]
    assert later == [pytest.approx(0.79), pytest.approx(0.0)]


@pytest.mark.parametrize(("turns", "times"), [(2, 15), (10, 3), (20, 1), (84, 1)])
def test_on_a_link_with_losses_a_short_task_is_computed_several_times(turns: int, times: int) -> None:
    """The turns are those of the median, and its time is the arm's."""
    load = TaskLoad(ARMS[REPLAY], "conversation:20", (TurnLoad(9000, 5000, 5),) * turns)
    made = computed_arm(load, LINKS["geo-in-flight-bad"], 1000.0, tls=True)
    assert len(made.rounds) == times
    last = made.turns[-1]
    assert made.totals.time_s == pytest.approx((last.at_s or 0.0) + (last.time_s or 0.0))
    assert len({one.task_s for one in made.rounds}) > 0.8 * times, "each has losses of its own"
