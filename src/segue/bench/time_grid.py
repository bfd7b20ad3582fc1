"""Benchmark: how long one workload takes on each arm, over links and at model speeds, measured and computed.

What is measured runs in real time over emulated links, several rounds in another order each. Those that mostly wait run
side by side. The bytes of every arm are measured once more on loopback, and what is not measured is computed from them:
further links, and long conversations. What is measured is computed, too, so that you see how far to believe it. Every
arm must have done the same work. A run that was stopped goes on from what it had reported. Not here: one round
(`arms.measurement`), computing (`computed_times`), and how the report is shown (`reports.time_tables`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from itertools import product
from typing import TypeAlias

import msgspec
from msgspec.structs import replace

from segue.bench.arms.measurement import MeasurementPlan, TaskRound, check_same_work, measure_round, rounds_to_arm
from segue.bench.arms.model_server import ModelServerSpec
from segue.bench.arms.table import ARMS, REPLAY
from segue.bench.arms.tunnelled import COLD
from segue.bench.computed_times import TaskLoad, computed_arm, load_of
from segue.bench.links.profiles import LINKS
from segue.bench.load_budget import LoadBudget
from segue.bench.meters.server_reading import ServerProcess
from segue.bench.reports.report import Arm, BenchReport, Figure, figure, make_report
from segue.bench.workloads.workload import Workload, read_workload

ROUNDS = 3
#: Today's habit, the two ways to continue by id, and the sidecar in front of today's habit.
MAIN_ARMS = (REPLAY, "http id", "websocket id, not stored", COLD)
MAIN_LINKS = ("fibre", "leo-in-flight", "slow-4g", "geo-in-flight")
#: A usual model's speed and a fast one's: GPT-5.2 and GPT-5.3-Codex-Spark, as OpenAI's post of 2026-04-22 has them.
SPEEDS = (65.0, 1000.0)

#: Tokens a second of all measurements that run side by side: two cores forward so many without a queue.
_MOST_TOKENS_S = 800.0
_WHOLE = ("completed", "measured")

#: What no other arm of a report has: name, workload, link, speed.
ArmIdentity: TypeAlias = tuple[str, str | None, str | None, float | None]
#: Is given everything that was measured so far, whenever a cell is done.
Save: TypeAlias = Callable[[BenchReport], None]
#: Is told how many of all rounds are done, and what the last one was.
Progressed: TypeAlias = Callable[[int, int, str], None]


class TimeGrid(msgspec.Struct, frozen=True, kw_only=True):
    """Which arms do a workload over which links at which speeds, and which longer workloads are computed for them."""

    workload: str = "article"
    arms: tuple[str, ...] = MAIN_ARMS
    links: tuple[str, ...] = MAIN_LINKS
    speeds: tuple[float, ...] = SPEEDS
    rounds: int = ROUNDS
    long: tuple[str, ...] = ()
    tls: bool = True

    @property
    def cells(self) -> list[GridCell]:
        """Everything that is measured, the slow models first."""
        ordered = product(sorted(self.speeds), self.links, self.arms)
        return [GridCell(arm, link, speed) for speed, link, arm in ordered]

    @property
    def settings(self) -> dict[str, object]:
        """What a report of this grid says of it."""
        return msgspec.to_builtins(self)


class GridCell(msgspec.Struct, frozen=True):
    """One arm over one link at one speed."""

    arm: str
    link: str
    tokens_s: float


class UnlikeGridError(ValueError):
    """The report that should be gone on with is of another measurement; the message says what differs."""


async def measure(
    grid: TimeGrid,
    plan: MeasurementPlan,
    *,
    before: BenchReport | None = None,
    save: Save | None = None,
    progressed: Progressed | None = None,
) -> BenchReport:
    """Measure what `before` has not yet, compute the rest, and report everything.

    Raises:
        UnlikeGridError: `before` is of another grid, or another version of the program.
        DifferentWorkError: two arms did not do the same work.
    """
    run = _GridRun(grid, plan, save or (lambda _: None), progressed or (lambda *_: None))
    if before is not None:
        run.take_up(before)
    return await run.run()


class _GridRun:
    """What one run has measured so far."""

    def __init__(self, grid: TimeGrid, plan: MeasurementPlan, save: Save, progressed: Progressed) -> None:
        self._grid = grid
        self._plan = replace(plan, tls=grid.tls)
        self._save = save
        self._progressed = progressed
        self._workload = read_workload(grid.workload)
        self._budget = LoadBudget(_MOST_TOKENS_S)
        self._starting = asyncio.Lock()
        self._loads: dict[tuple[str, str], TaskLoad] = {}
        self._rounds: dict[GridCell, list[TaskRound]] = {}
        self._arms: dict[ArmIdentity, Arm] = {}
        self._done = self._all = 0

    def take_up(self, before: BenchReport) -> None:
        """Keep what an earlier run has measured."""
        now = make_report([], self._grid.settings)
        for name, was, became in (
            ("version", before.version, now.version),
            ("machine", before.machine, now.machine),
            ("settings", before.settings, msgspec.json.decode(msgspec.json.encode(now.settings))),
        ):
            if was != became:
                raise UnlikeGridError(f"its {name} differs: it has {was}, and this run {became}")
        wanted = {self._identity(cell) for cell in self._grid.cells}
        self._arms = {
            one.identity: one
            for one in before.arms
            if (one.status, one.basis) == _WHOLE and one.identity in wanted and len(one.rounds) == self._grid.rounds
        }

    async def run(self) -> BenchReport:
        """Measure and compute."""
        cells = [cell for cell in self._grid.cells if self._identity(cell) not in self._arms]
        workloads = (self._grid.workload, *self._grid.long)
        self._all = len(workloads) * len(self._grid.arms) + len(cells) * self._grid.rounds
        for name in workloads:
            await self._measure_bytes(read_workload(name))
        async with asyncio.TaskGroup() as group:
            for number in range(self._grid.rounds):
                for cell in cells[::-1] if number % 2 else cells:
                    group.create_task(self._measure(cell))
        for link, tokens_s in product(self._grid.links, self._grid.speeds):
            same = {one.arm: done[0] for one, done in self._rounds.items() if (one.link, one.tokens_s) == (link, tokens_s)}
            check_same_work(same)
        return self._report([*self._arms.values(), *self._computed()], self._figures())

    def _identity(self, cell: GridCell) -> ArmIdentity:
        return (cell.arm, self._grid.workload, cell.link, cell.tokens_s)

    async def _measure_bytes(self, workload: Workload) -> None:
        """Measure on loopback what each arm carries; that is all that the computed ones know of it."""
        plan = replace(self._plan, link=None, tokens_s=None)
        done: dict[str, TaskRound] = {}
        for name in self._grid.arms:
            measured = done[name] = await measure_round(ARMS[name], workload, plan)
            if measured.problem is None:
                self._loads[name, workload.name] = load_of(ARMS[name], workload.name, measured)
            self._tell(f"{workload.name}: bytes of {name}")
        check_same_work(done)

    async def _measure(self, cell: GridCell) -> None:
        link = LINKS[cell.link]
        plan = replace(self._plan, link=link, tokens_s=cell.tokens_s, start_server=self._start_alone)
        async with self._budget.take(self._expected_tokens_s(cell)):
            measured = await measure_round(ARMS[cell.arm], self._workload, plan)
        rounds = self._rounds.setdefault(cell, [])
        rounds.append(measured)
        self._tell(f"{cell.arm} over {cell.link} at {cell.tokens_s:g} tokens/s")
        if len(rounds) == self._grid.rounds:
            self._arms[self._identity(cell)] = rounds_to_arm(cell.arm, self._workload, plan, rounds)
            self._save(self._report(list(self._arms.values()), []))

    def _tell(self, what: str) -> None:
        self._done += 1
        self._progressed(self._done, self._all, what)

    @asynccontextmanager
    async def _start_alone(self, spec: ModelServerSpec) -> AsyncIterator[ServerProcess]:
        """Start one server at a time: starting keeps a core busy, and others are being measured."""
        await self._starting.acquire()
        try:
            started = self._plan.start_server(spec)
            server = await started.__aenter__()
        finally:
            self._starting.release()
        try:
            yield server
        finally:
            await started.__aexit__(None, None, None)

    def _expected_tokens_s(self, cell: GridCell) -> float:
        """Return how many tokens a second this will be, on the average."""
        load = self._loads.get((cell.arm, self._grid.workload))
        if load is None:
            return _MOST_TOKENS_S  # it failed on loopback: nobody knows
        computed = computed_arm(load, LINKS[cell.link], cell.tokens_s, tls=self._grid.tls)
        return sum(turn.tokens for turn in load.turns) / (computed.totals.time_s or 1.0)

    # --- the report --------------------------------------------------------------------------------------------------

    def _report(self, arms: Sequence[Arm], figures: Sequence[Figure]) -> BenchReport:
        return make_report(_ordered(arms), self._grid.settings, figures)

    def _computed(self) -> list[Arm]:
        """Compute the links that nothing was measured over, and the long workloads on all links."""
        further = [link for name, link in LINKS.items() if name not in self._grid.links]
        return [
            computed_arm(load, link, tokens_s, tls=self._grid.tls)
            for (_, workload), load in self._loads.items()
            for link in (further if workload == self._grid.workload else LINKS.values())
            for tokens_s in self._grid.speeds
        ]

    def _figures(self) -> list[Figure]:
        """Say how much time each arm saves, and how far computing is from measuring."""
        return [*_savings(self._arms), *_agreement(self._arms, self._loads, tls=self._grid.tls)]


def _ordered(arms: Sequence[Arm]) -> list[Arm]:
    """Order arms by workload, speed, link and name, in the order of their tables."""
    links, names = list(LINKS), list(ARMS)
    workloads = list(dict.fromkeys(one.workload for one in arms))

    def place(one: Arm) -> tuple[int, float, int, int]:
        link = -1 if one.link is None else links.index(one.link)
        return (workloads.index(one.workload), one.tokens_s or 0.0, link, names.index(one.name))

    return sorted(arms, key=place)


def _savings(arms: Mapping[ArmIdentity, Arm]) -> list[Figure]:
    found: list[Figure] = []
    for one in _ordered(list(arms.values())):
        replay = arms.get((REPLAY, *one.identity[1:]))
        times = (None, None) if replay is None else (replay.totals.time_s, one.totals.time_s)
        if one.name == REPLAY or times[0] is None or times[1] is None or "failed" in {one.status, replay and replay.status}:
            continue
        found.append(figure(f"time saved: {one.label}", [100 * (1 - times[1] / times[0])], "%"))
    return found


def _agreement(
    arms: Mapping[ArmIdentity, Arm], loads: Mapping[tuple[str, str], TaskLoad], *, tls: bool
) -> list[Figure]:
    """Return computed over measured time of everything that was measured on links that lose nothing, as one figure."""
    ratios = [
        (computed_arm(load, LINKS[one.link], one.tokens_s, tls=tls).totals.time_s or 0.0) / one.totals.time_s
        for one in arms.values()
        if one.link and one.tokens_s and one.totals.time_s and one.status == "completed"
        for load in [loads.get((one.name, one.workload or ""))]
        if load is not None
    ]
    return [figure("computed / measured task time", ratios, "x")] if ratios else []
