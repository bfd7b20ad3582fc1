"""Every cell is measured as often as it should be, the others are computed, and a stopped run goes on."""

from __future__ import annotations

import asyncio

import pytest
from msgspec.structs import replace

from segue.bench import time_grid
from segue.bench.arms.ends import SidecarSpec
from segue.bench.arms.measurement import DifferentWorkError, MeasurementPlan, TaskRound
from segue.bench.arms.model_server import ModelServerSpec
from segue.bench.arms.table import ARMS, REPLAY, MeasuredArm
from segue.bench.arms.tunnelled import COLD
from segue.bench.computed_times import TaskLoad, computed_arm
from segue.bench.links.conversation_time import TurnLoad
from segue.bench.links.profiles import LINKS
from segue.bench.meters.turn_meter import TurnUsage
from segue.bench.reports.report import BenchReport, RoundFigures, TurnFigures
from segue.bench.time_grid import AGREEMENT, LONG_WORKLOADS, MAIN_ARMS, TimeGrid, UnlikeGridError, measure
from segue.bench.workloads.workload import Workload
from tests.bench.arms.processes import end_here, model_here

PLAN = MeasurementPlan()
SMALL = TimeGrid(
    workloads=("article",),
    computed=(),
    arms=(REPLAY, "http id"),
    links=("fibre", "geo-in-flight"),
    speeds=(1000.0, 65.0),
    rounds=2,
)
FAST = replace(SMALL, speeds=(1e6,), links=("fibre", "data-centre"))


class Rounds:
    """Stands in for measuring: notes what was measured. A round lasts for some iterations of the event loop."""

    def __init__(self, *, failing: str = "", fails_over: str | None = None, different: str = "") -> None:
        self.order: list[tuple[str, str, str | None, float | None]] = []
        self.together = self.most_together = 0
        self.plans: list[MeasurementPlan] = []
        self.broken_at: int | None = None
        self._failing, self._fails_over, self._different = failing, fails_over, different

    async def __call__(self, arm: MeasuredArm, workload: Workload, plan: MeasurementPlan) -> TaskRound:
        link = None if plan.link is None else plan.link.name
        self.order.append((arm.name, workload.name, link, plan.tokens_s))
        self.plans.append(plan)
        if self.broken_at == len(self.order):
            raise RuntimeError("stopped")
        self.together += link is not None
        self.most_together = max(self.most_together, self.together)
        for _ in range(3):
            await asyncio.sleep(0)
        self.together -= link is not None
        failed = arm.name == self._failing and link == self._fails_over
        sent = 9000 if arm.history == "replay" else 3000
        turn = TurnFigures(bytes_up_wire=sent, bytes_down_wire=9000, time_s=2.0, ttft_s=0.25, at_s=0.0)
        different = arm.name == self._different and link is not None
        return TaskRound(
            turns=[turn] if failed else [turn, turn],
            figures=RoundFigures(
                task_s=4.0, ttft_first_s=0.5, bytes_down_wire=18_000 if plan.tokens_s is None else 19_000
            ),
            usages=[TurnUsage(10, 5 if different else 4)] * 2,
            failed_turn=2 if failed else None,
            problem="it broke" if failed else None,
        )


async def report_of(
    monkeypatch: pytest.MonkeyPatch, rounds: Rounds, grid: TimeGrid = SMALL, *, before: BenchReport | None = None
) -> BenchReport:
    monkeypatch.setattr(time_grid, "measure_round", rounds)
    return await measure(grid, PLAN, before=before)


def test_the_default_is_four_arms_over_four_links_at_two_speeds_and_everything_else_is_computed() -> None:
    grid = TimeGrid()
    assert len(grid.cells) == len(MAIN_ARMS) * 4 * 2
    assert len(grid.rounds_in_order) == 3 * len(grid.cells)
    assert {cell.tokens_s for cell in grid.rounds_in_order[:48]} == {65.0}
    computed = grid.computed_cells
    assert len(computed) == len(MAIN_ARMS) * 2 * (len(LINKS) - 4 + len(LONG_WORKLOADS) * len(LINKS))
    assert {cell.workload for cell in computed if cell.link == "fibre"} == set(LONG_WORKLOADS)


def test_a_workload_that_is_measured_is_not_computed_over_the_same_links() -> None:
    grid = TimeGrid(workloads=("article",), computed=("article",), arms=(REPLAY,), speeds=(65.0,))
    assert {cell.link for cell in grid.computed_cells} == {"data-centre", "geo-in-flight-bad", "2g"}


async def test_everything_is_measured_in_alternating_order_and_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    rounds = Rounds()
    grid = replace(SMALL, computed=("conversation:3",))
    report = await report_of(monkeypatch, rounds, grid)
    both = [REPLAY, "http id"]
    assert rounds.order[:4] == [
        (name, work, None, None) for work in ("conversation:3", "article") for name in reversed(both)
    ]
    assert rounds.order[4:6] == [(name, "article", None, 1000.0) for name in both]
    timed = rounds.order[6:]
    there_and_back = [REPLAY, "http id", "http id", REPLAY]
    assert [name for name, *_ in timed] == there_and_back * 4
    assert [one[2:] for one in timed[::4]] == [
        (link, speed) for speed in (65.0, 1000.0) for link in ("fibre", "geo-in-flight")
    ]
    assert report.settings == grid.settings
    assert report.settings["computed"] == ["conversation:3"]
    measured = [one for one in report.arms if one.basis == "measured"]
    assert {one.identity for one in measured} == {cell.identity for cell in SMALL.cells}
    assert all(len(one.rounds) == 2 for one in measured)
    computed = {one.identity for one in report.arms if one.basis == "computed"}
    assert computed == {cell.identity for cell in grid.computed_cells}
    # ordered by workload, speed, link and arm
    assert [one.identity for one in report.arms] == [
        (name, workload, link, speed)
        for workload in ("article", "conversation:3")
        for speed in (65.0, 1000.0)
        for link in LINKS
        for name in (REPLAY, "http id")
    ]


async def test_what_is_measured_is_computed_too_and_both_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    report = await report_of(monkeypatch, Rounds())
    (agreement,) = report.figures
    assert agreement.name == AGREEMENT
    load = TaskLoad(ARMS[REPLAY], "article", (TurnLoad(9000, 9000 + 500, 4),) * 2)
    slowest = computed_arm(load, LINKS["geo-in-flight"], 65.0, tls=True).totals.time_s or 0.0
    assert agreement.high == pytest.approx(slowest / 4.0)
    assert 0 < (agreement.low or 0) < (agreement.value or 0) < (agreement.high or 0)


async def test_slow_models_are_measured_beside_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    slow, fast = Rounds(), Rounds()
    await report_of(monkeypatch, slow, replace(SMALL, speeds=(20.0,)))
    await report_of(monkeypatch, fast, replace(SMALL, speeds=(1e6,), links=("data-centre",)))
    assert slow.most_together == 8
    assert fast.most_together == 1


async def test_the_plan_is_that_of_the_cell_and_programs_start_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    rounds = Rounds()
    monkeypatch.setattr(time_grid, "measure_round", rounds)
    await measure(replace(SMALL, tls=False), replace(PLAN, start_server=model_here, start_end=end_here))
    assert not any(plan.tls for plan in rounds.plans)
    plan = rounds.plans[-1]
    spec = ModelServerSpec(workload="conversation:2")
    async with (
        plan.start_server(spec) as server,
        plan.start_end(SidecarSpec(f"http://{server.host}:{server.port}")) as end,
    ):
        assert len({server.port, end.port}) == 2


# --- what goes wrong -------------------------------------------------------------------------------------------------


async def test_a_cell_that_fails_counts_as_failed_with_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    report = await report_of(monkeypatch, Rounds(failing="http id", fails_over="fibre"))
    failed = [one for one in report.arms if one.status == "failed"]
    assert [(one.name, one.link, one.failed_turn, one.problem) for one in failed] == [
        ("http id", "fibre", 2, "it broke")
    ] * 2
    assert len(report.arms) == len(SMALL.cells) + len(SMALL.computed_cells)


async def test_an_arm_that_fails_on_loopback_is_told_and_nothing_is_computed_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rounds = Rounds(failing="http id")
    report = await report_of(monkeypatch, rounds)
    failed = [one for one in report.arms if one.status == "failed"]
    assert [one.identity for one in failed] == [("http id", "article", None, speed) for speed in (None, 1000.0)]
    assert failed[0].failed_turn == 2
    assert {one.name for one in report.arms if one.basis == "computed"} == {REPLAY}
    assert len([one for one in report.arms if one.basis == "measured" and one.link]) == len(SMALL.cells)


async def test_a_round_that_did_other_work_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        DifferentWorkError, match=r"turn 1: http id on loopback had .* 4 out, http id, article over .* 5 out"
    ):
        await report_of(monkeypatch, Rounds(different="http id"))


# --- going on --------------------------------------------------------------------------------------------------------


async def stopped_run(monkeypatch: pytest.MonkeyPatch, at: int) -> BenchReport:
    """Run until a round, and return what was kept until then."""
    kept: list[BenchReport] = []
    rounds = Rounds()
    rounds.broken_at = at
    monkeypatch.setattr(time_grid, "measure_round", rounds)
    monkeypatch.setattr(time_grid, "_MOST_TOKENS_S", 1e-6)  # one after the other
    with pytest.raises(RuntimeError, match="stopped"):
        await measure(FAST, PLAN, save=kept.append)
    return kept[-1]


async def test_a_stopped_run_goes_on_with_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The four rounds of one link are done when the fifth breaks: only the other link is measured again."""
    before = await stopped_run(monkeypatch, at=4 + 5)
    assert [one.link for one in before.arms] == ["fibre", "fibre"]
    rounds = Rounds()
    steps: list[tuple[int, int, str]] = []
    monkeypatch.setattr(time_grid, "measure_round", rounds)
    report = await measure(FAST, PLAN, before=before, progressed=lambda *step: steps.append(step))
    assert {link for _, _, link, _ in rounds.order} == {None, "data-centre"}
    assert len(rounds.order) == 4 + 4
    assert [one for one in report.arms if one.link == "fibre"][:2] == before.arms
    assert len(report.arms) == len(FAST.cells) + len(FAST.computed_cells)
    assert [done for done, *_ in steps] == list(range(1, len(steps) + 1))
    assert {every for _, every, _ in steps} == {len(steps)}


async def test_what_failed_and_what_has_too_few_rounds_is_measured_again(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = await report_of(monkeypatch, Rounds(), FAST)
    arms = [replace(whole.arms[0], status="failed"), *whole.arms[1:]]
    at = next(number for number, one in enumerate(arms) if one.identity == ("http id", "article", "fibre", 1e6))
    arms[at] = replace(arms[at], rounds=arms[at].rounds[:1])
    rounds = Rounds()
    await report_of(monkeypatch, rounds, FAST, before=replace(whole, arms=arms))
    assert rounds.order[4:] == [
        (name, "article", link, 1e6)
        for name, link in (("http id", "fibre"), ("http id", "fibre"), (REPLAY, "data-centre"), (REPLAY, "data-centre"))
    ]


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"version": "0.0.0"}, "its version differs: there it is 0.0.0"),
        ({"commit": "0" * 40}, "its commit differs"),
        ({"machine": None}, "its machine differs"),
        ({"settings": {**FAST.settings, "rounds": 7}}, "its setting 'rounds' differs: there it is 7, and now .* be 2"),
        ({"settings": {}}, "its setting 'workloads' differs: there it is None"),
    ],
)
async def test_a_report_of_something_else_is_refused(
    changed: dict[str, object], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rounds = Rounds()
    before = replace(await report_of(monkeypatch, Rounds(), FAST), **changed)
    with pytest.raises(UnlikeGridError, match=told):
        await report_of(monkeypatch, rounds, FAST, before=before)
    assert rounds.order == []


async def test_uncommitted_changes_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Writing results that are committed makes a checkout dirty."""
    before = await report_of(monkeypatch, Rounds(), FAST)
    clean = (before.commit or "none").removesuffix("-dirty")
    rounds = Rounds()
    await report_of(monkeypatch, rounds, FAST, before=replace(before, commit=f"{clean}-dirty"))
    assert len(rounds.order) == 4


# --- for real --------------------------------------------------------------------------------------------------------


@pytest.mark.untraced
@pytest.mark.parametrize(
    "arms", [(REPLAY, "websocket id, not stored"), pytest.param(MAIN_ARMS, marks=pytest.mark.deep)]
)
async def test_a_small_grid_for_real(arms: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process, over the fastest link: it is measured and computed."""
    monkeypatch.setattr(time_grid, "_SAMPLE", "conversation:2")
    monkeypatch.setattr(time_grid, "_SAMPLE_TOKENS_S", 4000.0)
    grid = TimeGrid(
        workloads=("conversation:2",), computed=(), arms=arms, links=("data-centre",), speeds=(4000.0,), rounds=1
    )
    report = await measure(grid, replace(PLAN, start_server=model_here, start_end=end_here))
    assert [one.status for one in report.arms] == ["completed"] * len(arms) * len(LINKS)
    assert all((one.rounds[0].set_up_s == 0) == (one.name == COLD) for one in report.arms if one.basis == "computed")
    assert 0 < (report.figures[0].value or 0) <= 1.02, "nothing is faster than the link and the model"
