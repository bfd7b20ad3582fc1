"""Benchmark: what a turn costs several gateways over one PostgreSQL and one Redis, and how far workers add up.

Sessions continue their own conversations over HTTP; the model is scripted, in the gateways themselves. First all are
kept busy: one worker and several, each over a database of its own in the same servers, and one gateway over SQLite
beside them, in turns. There each worker may use a part of a core (`share`), so that the load, PostgreSQL and Redis fit
beside them on the same machine, and what limits the turns is known: the workers. Then turns come at random to one
worker, at a light, a half and the full pace: that makes the curves of `cost_curve`. They predict two loads that did not
make them, and the predictions are compared with what was measured. Not here: what the costs mean for other numbers of
sessions (`cluster_plan`).
"""

from __future__ import annotations

import random
import string
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from segue.bench.arms.database_servers import DatabaseServers, database_servers
from segue.bench.arms.gateway_cluster import MODEL, GatewayCluster, gateway_cluster
from segue.bench.cluster_plan import AGREES_WITHIN, ClusterPlan, TurnCosts, off_by, plan_figures, predicted
from segue.bench.cost_curve import CostPoint, fit
from segue.bench.meters.cpu_quota import limited
from segue.bench.meters.process_tree import usage_of
from segue.bench.meters.turn_load import LoadResult, SessionLoad
from segue.bench.reports.report import BenchReport, Figure, figure, make_report

_TEXT_BYTES = 3200
#: How many connections the load opens, so that hardly a turn that comes at random waits for one that is free; and over
#: how many of them it keeps every worker busy.
_CONNECTIONS = 64
_BUSY_CONNECTIONS = 16
_WARM_UP_S = 1.0
#: What a database may hold for each byte that was sent.
_MOST_STORED = 2.0

#: The paces of turns at one worker, as parts of what keeps it as busy as the plan has it.
PACES: Mapping[str, float] = {"light": 0.1, "a quarter": 0.25, "half": 0.5, "full": 1.0}
#: Those that make the curves, and the one that is predicted.
FITTED = ("light", "half", "full")
CHECKED = "a quarter"
_CHECK = "check, "


class ClusterBench(msgspec.Struct, frozen=True, kw_only=True):
    """How much to measure, and for what to plan."""

    workers: int = 2
    rounds: int = 3
    seconds: float = 4.0
    share: float = 0.25
    sessions: int = 2000
    """How many sessions the loads have whose turns come at a pace; a tenth of them keep all workers busy."""
    plan: ClusterPlan = ClusterPlan()


class ClusterReading(msgspec.Struct, frozen=True):
    """What all have used so far, and what is in the database."""

    gateway_cpu_s: float
    database_cpu_s: float
    redis_cpu_s: float
    database_bytes: int
    log_bytes: int
    commits: int
    connections: int


_NOTHING = ClusterReading(0.0, 0.0, 0.0, 0, 0, 0, 0)
#: What grows with what is done.
_COUNTED = tuple(name for name in ClusterReading.__struct_fields__ if name != "connections")


class LoadWindow(msgspec.Struct, frozen=True):
    """A load, and what it has cost."""

    load: LoadResult
    before: ClusterReading
    after: ClusterReading

    def used(self, field: str) -> float:
        """Return how much of something was used."""
        return float(getattr(self.after, field) - getattr(self.before, field))

    def per_turn(self, field: str) -> float:
        """Return how much of something each turn took."""
        return self.used(field) / max(1, self.load.turns)

    @property
    def turns_s(self) -> float:
        """Turns in a second."""
        return self.load.turns / self.load.seconds


class _Deployment:
    """Gateways, the database that they use, and the load at them."""

    def __init__(self, cluster: GatewayCluster, servers: DatabaseServers, database: str | None) -> None:
        self.cluster = cluster
        self._servers = servers
        self._database = database
        self.load = SessionLoad(cluster.host, cluster.port, model=MODEL, text=_text(_TEXT_BYTES))

    async def window(self, seconds: float, *, sessions: int, turns_s: float = 0.0) -> LoadWindow:
        """Run a load, at a pace or busy, and read before and after it what all have used."""
        before = await self._read()
        if turns_s:
            done = await self.load.run(range(sessions), seconds=seconds, every_s=sessions / turns_s)
        else:
            done = await self.load.run(_busy(sessions), seconds=seconds, lanes=_BUSY_CONNECTIONS)
        return LoadWindow(done, before, await self._read())

    async def begin(self, sessions: int) -> None:
        """Let most sessions have their first turn, which continues nothing."""
        await self.load.run(range(sessions), seconds=2 * _WARM_UP_S)

    async def _read(self) -> ClusterReading:
        gateway, postgres, redis = (
            usage_of(root).cpu_s or 0.0 for root in (self.cluster.root, self._servers.postgres, self._servers.redis)
        )
        stored = (0, 0, 0, 0) if self._database is None else await self._servers.measure(self._database)
        return ClusterReading(gateway, postgres, redis, *stored)


async def measure_cluster(chosen: ClusterBench, on_step: Callable[[str], None]) -> BenchReport:
    """Measure everything. Raises `ServersMissing` where PostgreSQL, Redis or their clients are not installed."""
    on_step("starts PostgreSQL, Redis and the gateways")
    async with _deployments(chosen) as deployments:
        names = list(deployments)
        windows: dict[str, list[LoadWindow]] = {name: [] for name in names}
        async with AsyncExitStack() as stack:
            possible = [
                stack.enter_context(limited(one.cluster.workers(), chosen.share)) for one in deployments.values()
            ]
            for number in range(chosen.rounds):
                for name in names if number % 2 == 0 else reversed(names):
                    on_step(f"round {number + 1} of {chosen.rounds}: {name}")
                    windows[name].append(await deployments[name].window(chosen.seconds, sessions=chosen.sessions // 10))
        one, several = names[0], names[1]
        full_s = chosen.plan.load / pooled(windows[one]).per_turn("gateway_cpu_s")
        paced, idle = await _paced(deployments[one], chosen, full_s, on_step)
        costs = turn_costs([paced[name] for name in FITTED], idle)
        on_step(f"checks the prediction with {several}")
        checked_s = chosen.workers * full_s * PACES[CHECKED]
        await deployments[several].begin(chosen.sessions)
        large = await deployments[several].window(2 * chosen.seconds, sessions=chosen.sessions, turns_s=checked_s)
    figures = [
        *measured_figures(windows),
        *paced_figures(paced),
        *_costs_figures(costs),
        *check_figures(one, costs, paced[CHECKED], workers=1, turns_s=full_s * PACES[CHECKED]),
        *check_figures(several, costs, large, workers=chosen.workers, turns_s=checked_s),
        *plan_figures(chosen.plan, costs),
    ]
    settings = {**msgspec.to_builtins(chosen), "limited": all(possible), "costs": msgspec.to_builtins(costs)}
    return make_report([], settings, figures)


async def _paced(
    deployment: _Deployment, chosen: ClusterBench, full_s: float, on_step: Callable[[str], None]
) -> tuple[Mapping[str, LoadWindow], LoadWindow]:
    """Measure one worker at each pace, once upwards and once downwards, and without turns."""
    found: dict[str, list[LoadWindow]] = {name: [] for name in PACES}
    await deployment.begin(chosen.sessions)
    for name in (*PACES, *list(PACES)[::-1]):
        on_step(f"{name}: {full_s * PACES[name]:,.0f} turns a second")
        turns_s = full_s * PACES[name]
        found[name].append(await deployment.window(chosen.seconds, sessions=chosen.sessions, turns_s=turns_s))
    idle = await deployment.window(chosen.seconds, sessions=0)
    return {name: pooled(own) for name, own in found.items()}, idle


@asynccontextmanager
async def _deployments(chosen: ClusterBench) -> AsyncIterator[Mapping[str, _Deployment]]:
    """One worker and several over PostgreSQL, and a gateway over SQLite."""
    async with AsyncExitStack() as stack:
        servers = await stack.enter_async_context(database_servers())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="segue-bench-")))
        found: dict[str, _Deployment] = {}
        for count in (1, chosen.workers):
            database = f"workers{count}"
            await servers.create(database)
            live = f"{servers.live}&prefix={database}"
            (folder / database).mkdir()
            running = gateway_cluster(folder / database, store=servers.store(database), live=live, workers=count)
            cluster = await stack.enter_async_context(running)
            found[worker_label(count)] = _Deployment(cluster, servers, database)
        (folder / "sqlite").mkdir()
        running = gateway_cluster(folder / "sqlite", store=f"sqlite:///{folder}/turns.db", live=None, workers=1)
        found["SQLite"] = _Deployment(await stack.enter_async_context(running), servers, None)
        for one in found.values():
            await one.load.connect(_CONNECTIONS)
            stack.callback(one.load.close)
            await one.load.run(_busy(chosen.sessions // 10), seconds=_WARM_UP_S, lanes=_BUSY_CONNECTIONS)
        yield found


def _busy(sessions: int) -> range:
    """Return sessions other than those that have a pace: theirs are at other connections, and so at other workers."""
    return range(-sessions, 0)


def _text(size: int) -> str:
    """Return what no database compresses, so that its size is an upper bound."""
    letters = random.Random(1)
    return "".join(letters.choice(string.ascii_letters + string.digits) for _ in range(size))


def worker_label(count: int) -> str:
    """Name a deployment."""
    return "1 worker" if count == 1 else f"{count} workers"


def pooled(windows: Sequence[LoadWindow]) -> LoadWindow:
    """Return several windows as if they were one."""
    loads = [window.load for window in windows]
    load = LoadResult(
        turns=sum(load.turns for load in loads),
        seconds=sum(load.seconds for load in loads),
        latencies_s=[one for load in loads for one in load.latencies_s],
        sent_bytes=sum(load.sent_bytes for load in loads),
    )
    used = msgspec.structs.replace(
        windows[-1].after,
        **{name: sum(window.used(name) for window in windows) for name in _COUNTED},
        connections=max(window.after.connections for window in windows),
    )
    return LoadWindow(load, _NOTHING, used)


def turn_costs(windows: Sequence[LoadWindow], idle: LoadWindow) -> TurnCosts:
    """Return what a turn of one worker costs by the pace of turns, beyond what was used without any."""

    def points(field: str, scale: float = 1.0) -> list[CostPoint]:
        rest = idle.used(field) / idle.load.seconds
        return [
            CostPoint(window.turns_s, scale * max(0.0, window.per_turn(field) - rest / window.turns_s))
            for window in windows
            if window.load.turns
        ]

    total = pooled(windows)
    return TurnCosts(
        idle_gateway_cores=idle.used("gateway_cpu_s") / idle.load.seconds,
        idle_redis_cores=idle.used("redis_cpu_s") / idle.load.seconds,
        gateway_cpu_ms=fit(points("gateway_cpu_s", 1e3)),
        database_cpu_ms=fit(points("database_cpu_s", 1e3)),
        redis_cpu_ms=fit(points("redis_cpu_s", 1e3)),
        commits=fit(points("commits")),
        fullest_turns_s=max(window.turns_s for window in windows),
        database_bytes=total.per_turn("database_bytes"),
        log_bytes=total.per_turn("log_bytes"),
        sent_bytes=total.load.sent_bytes / max(1, total.load.turns),
    )


def measured_figures(windows: Mapping[str, list[LoadWindow]]) -> list[Figure]:
    """Return what each deployment did, and how several workers compare with one, and PostgreSQL with SQLite."""
    one, several, sqlite = windows
    figures = []
    for name, own in windows.items():
        busy = [window.used("gateway_cpu_s") / window.load.seconds for window in own]
        figures += [
            figure(f"turns: {name}", [window.turns_s for window in own], "/s"),
            figure(f"gateway CPU per turn: {name}", [1e3 * window.per_turn("gateway_cpu_s") for window in own], "ms"),
            figure(f"gateway CPU used: {name}", busy, "cores"),
            figure(f"time of a turn, median: {name}", [1e3 * window.load.latency_s(0.5) for window in own], "ms"),
        ]
    pairs = list(zip(windows[one], windows[several], strict=True))
    cpu = [(many.per_turn("gateway_cpu_s"), alone.per_turn("gateway_cpu_s")) for alone, many in pairs]
    stores = [
        pg.per_turn("gateway_cpu_s") / lite.per_turn("gateway_cpu_s")
        for pg, lite in zip(windows[one], windows[sqlite], strict=True)
    ]
    rounds = [many.turns_s / alone.turns_s for alone, many in pairs]
    return [
        *figures,
        figure(f"turns: {several} / {one}", rounds, "x"),
        *(figure(f"turns: {several} / {one}, round {n}", [each], "x") for n, each in enumerate(rounds, 1)),
        figure(f"turns per CPU second: {several} / {one}", [alone / many for many, alone in cpu], "x"),
        figure("gateway CPU per turn: PostgreSQL / SQLite", stores, "x", 1.5),
    ]


def paced_figures(paced: Mapping[str, LoadWindow]) -> list[Figure]:
    """Return what a turn took of everything at each pace."""
    figures = []
    for name, window in paced.items():
        rows = [
            ("turns", window.turns_s, "/s"),
            ("gateway CPU used", window.used("gateway_cpu_s") / window.load.seconds, "cores"),
            ("gateway CPU per turn", 1e3 * window.per_turn("gateway_cpu_s"), "ms"),
            ("PostgreSQL CPU per turn", 1e3 * window.per_turn("database_cpu_s"), "ms"),
            ("Redis CPU per turn", 1e3 * window.per_turn("redis_cpu_s"), "ms"),
            ("PostgreSQL commits per turn", window.per_turn("commits"), ""),
            ("time of a turn, median", 1e3 * window.load.latency_s(0.5), "ms"),
        ]
        figures += [Figure(name=f"{name}, {what}", value=value, unit=unit) for what, value, unit in rows]
    return figures


def _costs_figures(costs: TurnCosts) -> list[Figure]:
    stored = costs.database_bytes / max(1.0, costs.sent_bytes)
    return [
        Figure(name="PostgreSQL bytes per turn", value=costs.database_bytes, unit="B"),
        Figure(
            name="PostgreSQL bytes per byte of a turn",
            value=stored,
            unit="x",
            budget=_MOST_STORED,
            met=stored <= _MOST_STORED,
        ),
        Figure(name="PostgreSQL log per turn", value=costs.log_bytes, unit="B"),
    ]


def check_figures(name: str, costs: TurnCosts, window: LoadWindow, *, workers: int, turns_s: float) -> list[Figure]:
    """Return what the costs say of a load that they were not made of, what that load was, and whether both agree."""
    said = predicted(costs, workers=workers, sessions=turns_s, turn_every_s=1.0)
    figures = []
    for what, unit, field, used in _CHECKED:
        value = window.turns_s if used is None else window.used(used) / window.load.seconds
        scale = 1e3 if unit == "KB/s" else 1.0
        told: float = getattr(said, field)
        off = 100 * off_by(told, value)
        judged = used != "redis_cpu_s"  # it is so little that what wakes it at rest is most of it
        figures += [
            Figure(name=f"{_CHECK}{name}, {what}: predicted", value=told / scale, unit=unit),
            Figure(name=f"{_CHECK}{name}, {what}: measured", value=value / scale, unit=unit),
            Figure(
                name=f"{_CHECK}{name}, {what}: off by",
                value=off,
                unit="%",
                budget=100 * AGREES_WITHIN if judged else None,
                met=off <= 100 * AGREES_WITHIN if judged else None,
            ),
        ]
    return [
        *figures,
        Figure(name=f"{_CHECK}{name}, connections of PostgreSQL", value=window.after.connections, unit=""),
    ]


#: What is predicted: its name, its unit, its field of `LoadPrediction`, and what of a window is compared with it.
_CHECKED: tuple[tuple[str, str, str, str | None], ...] = (
    ("turns", "/s", "turns_s", None),
    ("gateway CPU", "cores", "gateway_cores", "gateway_cpu_s"),
    ("PostgreSQL CPU", "cores", "database_cores", "database_cpu_s"),
    ("Redis CPU", "cores", "redis_cores", "redis_cpu_s"),
    ("PostgreSQL size", "KB/s", "database_bytes_s", "database_bytes"),
)


class Verdict(msgspec.Struct, frozen=True):
    """How far the predictions of one load are from what was measured: by `off_by` per cent at most."""

    load: str
    agrees: bool
    off_by: float


def verdicts_of(report: BenchReport) -> list[Verdict]:
    """Return how each load that was predicted compares; none if nothing was."""
    found: dict[str, list[Figure]] = {}
    for one in report.figures:
        if one.name.startswith(_CHECK) and one.met is not None:
            found.setdefault(one.name.removeprefix(_CHECK).partition(", ")[0], []).append(one)
    return [
        Verdict(load, all(one.met for one in own), max(one.value or 0.0 for one in own)) for load, own in found.items()
    ]


def costs_of(report: BenchReport) -> TurnCosts | None:
    """Return what an earlier report has measured of a turn; None if it is of something else."""
    costs: Any = report.settings.get("costs")
    try:
        return msgspec.convert(costs, TurnCosts)
    except msgspec.ValidationError:
        return None
