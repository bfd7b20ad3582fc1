"""Benchmark: what a turn costs several gateways over one PostgreSQL and one Redis, and how far workers add up.

Sessions continue their own conversations over HTTP; the model is scripted, in the gateways themselves. Each worker may
use a part of a core (`share`), so that the load, PostgreSQL and Redis fit beside them on the same machine, and what
limits the turns is known: the workers. One worker and several are measured in turns, each over a database of its own
in the same servers, and one gateway over SQLite beside them. What a turn cost one full worker then predicts a light
load of ten times the sessions at several, and the prediction is compared with what was measured. Not here: what the
costs mean for other numbers of sessions (`cluster_plan`).
"""

from __future__ import annotations

import random
import string
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from segue.bench.arms.database_servers import DatabaseServers, database_servers
from segue.bench.arms.gateway_cluster import MODEL, GatewayCluster, gateway_cluster
from segue.bench.cluster_plan import ClusterPlan, TurnCosts, plan_figures, predicted
from segue.bench.meters.cpu_quota import limited
from segue.bench.meters.process_tree import usage_of
from segue.bench.meters.turn_load import LoadResult, SessionLoad
from segue.bench.reports.report import BenchReport, Figure, figure, make_report

_TEXT_BYTES = 3200
#: How many connections the load opens: enough to keep every worker busy.
_CONNECTIONS = 16
_WARM_UP_S = 1.0


class ClusterBench(msgspec.Struct, frozen=True, kw_only=True):
    """How much to measure, and for what to plan."""

    workers: int = 2
    rounds: int = 3
    seconds: float = 4.0
    share: float = 0.25
    sessions: int = 2000
    """How many sessions the checked load has; the loads that predict it have a tenth of them."""
    turn_every_s: float = 10.0
    """How often each of them begins a turn."""
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

    async def window(self, seconds: float, *, sessions: int, every_s: float = 0.0) -> LoadWindow:
        """Run a load, and read before and after it what all have used."""
        before = await self._read()
        done = await self.load.run(range(sessions), seconds=seconds, every_s=every_s)
        return LoadWindow(done, before, await self._read())

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
        on_step("checks the prediction")
        one, several = names[0], names[1]
        idle = await deployments[one].window(chosen.seconds, sessions=0)
        seconds, every_s = chosen.seconds * chosen.rounds, chosen.turn_every_s
        large = await deployments[several].window(seconds, sessions=chosen.sessions, every_s=every_s)
    costs = turn_costs(windows[one], idle)
    figures = [
        *measured_figures(windows),
        *_costs_figures(costs),
        *check_figures(chosen, costs, large),
        *plan_figures(chosen.plan, costs),
    ]
    settings = {**msgspec.to_builtins(chosen), "limited": all(possible), "costs": msgspec.to_builtins(costs)}
    return make_report([], settings, figures)


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
            await one.load.run(range(4 * _CONNECTIONS), seconds=_WARM_UP_S)
        yield found


def _text(size: int) -> str:
    """Return what no database compresses, so that its size is an upper bound."""
    letters = random.Random(1)
    return "".join(letters.choice(string.ascii_letters + string.digits) for _ in range(size))


def worker_label(count: int) -> str:
    """Name a deployment."""
    return "1 worker" if count == 1 else f"{count} workers"


def turn_costs(windows: list[LoadWindow], idle: LoadWindow) -> TurnCosts:
    """Return what a turn of one worker cost in several windows together, beyond what was used without any."""
    turns = sum(window.load.turns for window in windows)
    seconds = sum(window.load.seconds for window in windows)

    def per_turn(field: str) -> float:
        used = sum(window.used(field) for window in windows) - seconds * idle.used(field) / idle.load.seconds
        return max(0.0, used) / max(1, turns)

    return TurnCosts(
        idle_gateway_cores=idle.used("gateway_cpu_s") / idle.load.seconds,
        idle_redis_cores=idle.used("redis_cpu_s") / idle.load.seconds,
        gateway_cpu_ms=per_turn("gateway_cpu_s") * 1e3,
        database_cpu_ms=per_turn("database_cpu_s") * 1e3,
        redis_cpu_ms=per_turn("redis_cpu_s") * 1e3,
        database_bytes=per_turn("database_bytes"),
        log_bytes=per_turn("log_bytes"),
        commits=per_turn("commits"),
        sent_bytes=sum(window.load.sent_bytes for window in windows) / max(1, turns),
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
    return [
        *figures,
        figure(f"turns: {several} / {one}", [many.turns_s / alone.turns_s for alone, many in pairs], "x"),
        figure(f"turns per CPU second: {several} / {one}", [alone / many for many, alone in cpu], "x"),
        figure("gateway CPU per turn: PostgreSQL / SQLite", stores, "x", 1.5),
    ]


def _costs_figures(costs: TurnCosts) -> list[Figure]:
    rows = [
        ("PostgreSQL CPU per turn", costs.database_cpu_ms, "ms"),
        ("Redis CPU per turn", costs.redis_cpu_ms, "ms"),
        ("PostgreSQL bytes per turn", costs.database_bytes, "B"),
        ("PostgreSQL bytes per byte of a turn", costs.database_bytes / max(1.0, costs.sent_bytes), "x"),
        ("PostgreSQL log per turn", costs.log_bytes, "B"),
        ("PostgreSQL commits per turn", costs.commits, ""),
    ]
    return [Figure(name=name, value=value, unit=unit) for name, value, unit in rows]


def check_figures(chosen: ClusterBench, costs: TurnCosts, large: LoadWindow) -> list[Figure]:
    """Return what the costs of a turn say of a load, and what that load was."""
    said = predicted(costs, workers=chosen.workers, sessions=chosen.sessions, turn_every_s=chosen.turn_every_s)
    figures = []
    for name, unit, field, used in _CHECKED:
        value = large.turns_s if used is None else large.used(used) / large.load.seconds
        scale = 1e3 if unit == "KB/s" else 1.0
        told: float = getattr(said, field)
        figures += [
            Figure(name=f"check, {name}: predicted", value=told / scale, unit=unit),
            Figure(name=f"check, {name}: measured", value=value / scale, unit=unit),
        ]
    return [*figures, Figure(name="check, connections of PostgreSQL", value=large.after.connections, unit="")]


#: What is predicted: its name, its unit, its field of `LoadPrediction`, and what of a window is compared with it.
_CHECKED: tuple[tuple[str, str, str, str | None], ...] = (
    ("turns", "/s", "turns_s", None),
    ("gateway CPU", "cores", "gateway_cores", "gateway_cpu_s"),
    ("PostgreSQL CPU", "cores", "database_cores", "database_cpu_s"),
    ("Redis CPU", "cores", "redis_cores", "redis_cpu_s"),
    ("PostgreSQL size", "KB/s", "database_bytes_s", "database_bytes"),
)


def costs_of(report: BenchReport) -> TurnCosts | None:
    """Return what an earlier report has measured of a turn; None if it is of something else."""
    costs: Any = report.settings.get("costs")
    try:
        return msgspec.convert(costs, TurnCosts)
    except msgspec.ValidationError:
        return None
