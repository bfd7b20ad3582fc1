"""Benchmark: how long workloads take on each arm, over links and at model speeds, measured and computed.

What is measured runs in real time over emulated links, several rounds in alternating order. Rounds that mostly wait run
side by side, and no two programs start at the same time. The bytes of every arm are measured once more on loopback, and
what is not measured is computed from them: further links, and long conversations. There the model writes at once, so
what tokens cost that are written one by one is measured of a short workload. What is measured is computed, too, so
that you see how far to believe it. Every round must have done the same work. A run that was stopped goes on from what
it had reported. Not here: one round (`arms.measurement`), computing (`computed_times`), and how the report is shown
(`time_tables`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from itertools import product
from typing import TypeAlias, TypeVar

import msgspec
from msgspec.structs import replace

from segue.bench.arms.measurement import MeasurementPlan, TaskRound, check_same_work, measure_round, rounds_to_arm
from segue.bench.arms.table import ARMS, REPLAY
from segue.bench.arms.tunnelled import COLD
from segue.bench.computed_times import TaskLoad, bytes_of_a_token_alone, computed_arm, load_of
from segue.bench.links.profiles import LINKS
from segue.bench.load_budget import LoadBudget
from segue.bench.reports.report import Arm, BenchReport, Figure, figure, make_report
from segue.bench.workloads.workload import read_workload

ROUNDS = 3
#: Today's habit, the two ways to continue by id, and the sidecar in front of today's habit.
MAIN_ARMS = (REPLAY, "http id", "websocket id, not stored", COLD)
MAIN_LINKS = ("fibre", "leo-in-flight", "slow-4g", "geo-in-flight")
#: A usual model's speed and a fast one's: GPT-5.2 and GPT-5.3-Codex-Spark, in OpenAI's post of 2026-04-22.
SPEEDS = (65.0, 1000.0)
WORKLOADS = ("article",)
#: Too long to be measured over links. TraceLab's sessions have 84 turns on average.
LONG_WORKLOADS = ("conversation:20", "conversation:50", "conversation:84")
AGREEMENT = "computed / measured task time"

#: Tokens a second of all measurements that run side by side: two cores forward so many without a queue. A fast model
#: on a fast link is alone.
_MOST_TOKENS_S = 1000.0

#: What tokens cost that are written one by one is measured of this, at this speed: few tokens, and none waits.
_SAMPLE, _SAMPLE_TOKENS_S = "article", 1000.0

#: What no other arm of a report has: name, workload, link, speed.
ArmIdentity: TypeAlias = tuple[str, str | None, str | None, float | None]
#: Is given everything that was measured so far, whenever a cell is done.
Save: TypeAlias = Callable[[BenchReport], None]
#: Is told how many of all steps are done, and what the last one was.
Progressed: TypeAlias = Callable[[int, int, str], None]
T = TypeVar("T")


class TimeGrid(msgspec.Struct, frozen=True, kw_only=True):
    """Which arms do which workloads over which links at which speeds, and which longer workloads are computed."""

    workloads: tuple[str, ...] = WORKLOADS
    computed: tuple[str, ...] = LONG_WORKLOADS
    arms: tuple[str, ...] = MAIN_ARMS
    links: tuple[str, ...] = MAIN_LINKS
    speeds: tuple[float, ...] = SPEEDS
    rounds: int = ROUNDS
    tls: bool = True

    @property
    def cells(self) -> list[GridCell]:
        """Everything that is measured."""
        ordered = product(self.arms, self.workloads, self.links, self.speeds)
        return [GridCell(*cell) for cell in ordered]

    @property
    def rounds_in_order(self) -> list[GridCell]:
        """Every cell as often as it is measured: the arms of a link in turns, there and back, and then the next link.

        The slow models come first, since more of them fit beside each other.
        """
        compared = product(sorted(self.speeds), self.workloads, self.links, range(self.rounds))
        return [
            GridCell(arm, workload, link, speed)
            for speed, workload, link, number in compared
            for arm in (reversed(self.arms) if number % 2 else self.arms)
        ]

    @property
    def computed_cells(self) -> list[GridCell]:
        """The other links for the workloads that are measured, and all links for the others."""
        every = product(self.arms, dict.fromkeys((*self.workloads, *self.computed)), LINKS, self.speeds)
        measured = set(self.cells)
        return [cell for cell in (GridCell(*one) for one in every) if cell not in measured]

    @property
    def settings(self) -> dict[str, object]:
        """What a report of this grid says of it: as JSON has it."""
        made: dict[str, object] = msgspec.json.decode(msgspec.json.encode(self))
        return made


class GridCell(msgspec.Struct, frozen=True):
    """One arm with one workload over one link at one speed."""

    arm: str
    workload: str
    link: str
    tokens_s: float

    @property
    def identity(self) -> ArmIdentity:
        """That of the arm which is made of it."""
        return (self.arm, self.workload, self.link, self.tokens_s)

    def __str__(self) -> str:
        return f"{self.arm}, {self.workload} over {self.link} at {self.tokens_s:g} tokens/s"


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
        UnlikeGridError: `before` is of another grid, or of another version of the program, or another machine.
        DifferentWorkError: a round did other work than another.
    """
    run = _GridRun(grid, plan, save=save or (lambda _: None), progressed=progressed or (lambda *_: None))
    if before is not None:
        run.take_up(before)
    return await run.run()


class _GridRun:
    """What one run has measured so far."""

    def __init__(self, grid: TimeGrid, plan: MeasurementPlan, *, save: Save, progressed: Progressed) -> None:
        self._grid = grid
        self._plan = replace(plan, tls=grid.tls)
        self._save = save
        self._progressed = progressed
        self._blank = make_report([], grid.settings)
        self._starting = asyncio.Lock()
        self._weighed: dict[tuple[str, str, float | None], TaskRound] = {}  # by arm, workload and speed, on loopback
        self._loads: dict[tuple[str, str], TaskLoad] = {}  # by arm and workload
        self._same: dict[str, dict[str, TaskRound]] = {}  # by workload: the round that all others must be like
        self._failed: list[Arm] = []  # on loopback, so that nothing can be computed
        self._rounds: dict[GridCell, list[TaskRound]] = {}
        self._arms: dict[ArmIdentity, Arm] = {}
        self._done = self._steps = 0

    def take_up(self, before: BenchReport) -> None:
        """Keep what an earlier run has measured; what had failed is tried again."""
        now = self._blank
        for what, was, became in (
            ("version", before.version, now.version),
            ("commit", _commit(before), _commit(now)),
            ("machine", before.machine, now.machine),
            *((f"setting {name!r}", before.settings.get(name), value) for name, value in now.settings.items()),
        ):
            if was != became:
                raise UnlikeGridError(f"its {what} differs: there it is {was}, and now it would be {became}")
        wanted = {cell.identity for cell in self._grid.cells}
        self._arms = {one.identity: one for one in before.arms if one.identity in wanted and self._whole(one)}

    def _whole(self, one: Arm) -> bool:
        measured = one.status == "completed" and one.basis == "measured" and bool(one.turns)
        return measured and len(one.rounds) == self._grid.rounds

    async def run(self) -> BenchReport:
        """Measure bytes, then times, and compute."""
        grid = self._grid
        workloads = dict.fromkeys((_SAMPLE, *grid.workloads, *grid.computed))
        # long ones are named last: they come first, so that the last two end at about the same time
        to_weigh: list[tuple[str, str, float | None]] = [
            (name, workload, None) for workload in reversed(workloads) for name in reversed(grid.arms)
        ]
        to_weigh += [(name, _SAMPLE, _SAMPLE_TOKENS_S) for name in grid.arms]
        to_time = [cell for cell in grid.rounds_in_order if cell.identity not in self._arms]
        self._steps = len(to_weigh) + len(to_time) + len(grid.cells) + len(grid.computed_cells)
        two = LoadBudget(2)  # times do not matter
        await _together(self._weigh(name, workload, tokens_s=speed, room=two) for name, workload, speed in to_weigh)
        self._loads = {one: load for one in product(grid.arms, workloads) if (load := self._load(*one)) is not None}
        expected = await self._computed(grid.cells)
        room = LoadBudget(_MOST_TOKENS_S)
        await _together(self._measure(cell, room, self._tokens_s(cell, expected)) for cell in to_time)
        computed = await self._computed(grid.computed_cells)
        return self._report(list(computed.values()), self._agreement(expected))

    def _tell(self, what: str) -> None:
        self._done += 1
        self._progressed(self._done, self._steps, what)

    def _check(self, name: str, workload: str, measured: TaskRound) -> None:
        if measured.problem is None:
            check_same_work({**self._same.setdefault(workload, {name: measured}), name: measured})

    # --- bytes -------------------------------------------------------------------------------------------------------

    async def _weigh(self, name: str, workload: str, *, tokens_s: float | None, room: LoadBudget) -> None:
        """Measure on loopback what an arm carries."""
        plan = replace(self._plan, link=None, tokens_s=tokens_s)
        async with room.take(1):
            measured = await measure_round(ARMS[name], read_workload(workload), plan)
        self._check(f"{name} on loopback", workload, measured)
        if measured.problem is None:
            self._weighed[name, workload, tokens_s] = measured
        else:
            self._failed.append(rounds_to_arm(name, read_workload(workload), plan, [measured]))
        self._tell(f"bytes of {name}, {workload}")

    def _load(self, name: str, workload: str) -> TaskLoad | None:
        """Return what an arm carries in a workload, which is all that is computed from; None if it failed."""
        at_once = self._weighed.get((name, workload, None))
        sample = self._weighed.get((name, _SAMPLE, None))
        one_by_one = self._weighed.get((name, _SAMPLE, _SAMPLE_TOKENS_S))
        if at_once is None or sample is None or one_by_one is None:
            return None
        token_bytes = bytes_of_a_token_alone(sample, one_by_one)
        return load_of(ARMS[name], workload, at_once, token_bytes=token_bytes)

    async def _computed(self, cells: Sequence[GridCell]) -> dict[GridCell, Arm]:
        """Compute cells, as far as the bytes of their arms are known."""
        made: dict[GridCell, Arm] = {}
        for cell in cells:
            load = self._loads.get((cell.arm, cell.workload))
            if load is not None:
                made[cell] = computed_arm(load, LINKS[cell.link], cell.tokens_s, tls=self._grid.tls)
            self._tell(f"computed: {cell}")
            await asyncio.sleep(0)  # so that it can be stopped
        return made

    # --- times -------------------------------------------------------------------------------------------------------

    def _tokens_s(self, cell: GridCell, expected: Mapping[GridCell, Arm]) -> float:
        """Return how many tokens a second a cell will cause, on the average."""
        if cell not in expected:
            return _MOST_TOKENS_S  # it failed on loopback: nobody knows
        return self._loads[cell.arm, cell.workload].tokens / (expected[cell].totals.time_s or 1.0)

    async def _measure(self, cell: GridCell, room: LoadBudget, tokens_s: float) -> None:
        """Measure a cell once, as soon as there is room for so many tokens a second."""
        workload = read_workload(cell.workload)
        plan = replace(
            self._plan,
            link=LINKS[cell.link],
            tokens_s=cell.tokens_s,
            start_server=lambda spec: self._alone(self._plan.start_server(spec)),
            start_end=lambda spec: self._alone(self._plan.start_end(spec)),
        )
        async with room.take(tokens_s):
            measured = await measure_round(ARMS[cell.arm], workload, plan)
        self._check(str(cell), cell.workload, measured)
        rounds = self._rounds.setdefault(cell, [])
        rounds.append(measured)
        if len(rounds) == self._grid.rounds:
            self._arms[cell.identity] = rounds_to_arm(cell.arm, workload, plan, rounds)
            self._save(self._report(()))
        self._tell(str(cell))

    @asynccontextmanager
    async def _alone(self, starting: AbstractAsyncContextManager[T]) -> AsyncIterator[T]:
        """Start one program at a time: starting keeps a core busy, and others are being measured."""
        async with AsyncExitStack() as stack:
            async with self._starting:
                started = await stack.enter_async_context(starting)
            yield started

    # --- the report --------------------------------------------------------------------------------------------------

    def _report(self, computed: Sequence[Arm], figures: Sequence[Figure] = ()) -> BenchReport:
        arms = _ordered([*self._arms.values(), *computed, *self._failed])
        return replace(self._blank, arms=arms, figures=list(figures))

    def _agreement(self, expected: Mapping[GridCell, Arm]) -> list[Figure]:
        """Return computed over measured time of everything that was measured."""
        ratios = [
            (computed.totals.time_s or 0.0) / measured.totals.time_s
            for cell, computed in expected.items()
            if (measured := self._arms[cell.identity]).status == "completed" and measured.totals.time_s
        ]
        return [figure(AGREEMENT, ratios, "x")] if ratios else []


async def _together(measurements: Iterable[Coroutine[None, None, None]]) -> None:
    """Run measurements side by side. The first that breaks ends the others."""
    try:
        async with asyncio.TaskGroup() as group:
            for one in measurements:
                group.create_task(one)
    except ExceptionGroup as broken:
        raise broken.exceptions[0] from None


def _commit(report: BenchReport) -> str:
    """Return the commit of a report, changed or not: results that are committed make a checkout dirty."""
    return (report.commit or "none").removesuffix("-dirty")


def _ordered(arms: Sequence[Arm]) -> list[Arm]:
    """Order arms by workload, speed, link and name, in the order of their tables."""
    links, names = [None, *LINKS], list(ARMS)
    workloads = list(dict.fromkeys(one.workload for one in arms))

    def place(one: Arm) -> tuple[int, float, int, int]:
        return (
            workloads.index(one.workload),
            one.tokens_s or 0.0,
            links.index(one.link),
            names.index(one.name),
        )

    return sorted(arms, key=place)
