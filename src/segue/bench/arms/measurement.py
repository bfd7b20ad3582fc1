"""Measures one arm: it does the whole work of a workload with a server, a path and a client of its own.

    arm = await measure_arm(ARMS["http id"], read_workload("article"), rounds=3)

An arm that fails is a result, too: it says at which turn, and why. `check_same_work` makes sure that arms can be
compared: that all had the same turns and tokens. Not here: which arms there are (`table`), and in what order they are
measured.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import aiohttp
import msgspec

from segue.bench.arms.agent_paths import AgentPath, PathSite
from segue.bench.arms.child import launched
from segue.bench.arms.coded_wire import SetUp
from segue.bench.arms.model_server import ModelServerSpec
from segue.bench.arms.table import ArmApi, MeasuredArm
from segue.bench.arms.tls_coding import tls_contexts
from segue.bench.arms.tunnelled import Start, started
from segue.bench.links.profiles import NamedLink
from segue.bench.meters.message_threads import ThreadTransport
from segue.bench.meters.server_reading import ServerMeter, ServerProcess, ServerReading
from segue.bench.meters.tcp import WireBytes
from segue.bench.meters.turn_meter import MeteredLink, RecordedExchange, TurnMeter, TurnUsage
from segue.bench.reports.report import Arm, RoundFigures, TurnFigures
from segue.bench.reports.report import arm as make_arm
from segue.bench.workloads.holding import WorkloadError, do_work
from segue.bench.workloads.workload import Workload
from segue.client.client import AsyncClient
from segue.client.errors import ClientError
from segue.client.settings import ConnectionSettings
from segue.client.transports.connection_pool import WebSocketTransport
from segue.client.transports.http import HttpTransport
from segue.client.turn import ServerLinks

_SERVER = "segue.bench.arms.model_server"
_LONGEST_PROBLEM = 200
#: The wire has the handshake of TLS itself; what is left of a link's set-up is that of TCP.
_TCP_RTTS = 1.0


class DifferentWorkError(Exception):
    """Two arms did not do the same work, so that nothing can be said of the difference between them."""


class StartServer(Protocol):
    """Starts the server of an arm."""

    def __call__(self, spec: ModelServerSpec) -> AbstractAsyncContextManager[ServerProcess]:
        """Run it around a block."""
        ...


class TaskRound(msgspec.Struct, frozen=True, kw_only=True):
    """One repetition of an arm, which spoke `api`. `recorded` has what was said, if that was asked for."""

    turns: list[TurnFigures]
    figures: RoundFigures
    usages: list[TurnUsage]
    api: ArmApi = "responses"
    failed_turn: int | None = None
    problem: str | None = None
    recorded: list[RecordedExchange] = []


class MeasurementPlan(msgspec.Struct, frozen=True, kw_only=True):
    """How to measure: over which link (None: none), how fast the model writes (None: at once), and with TLS or not.

    `wait_for_tools` lets the tools of a generated conversation take their time. `start_server` and `start_end` run the
    programs; tests run them in their own process.
    """

    link: NamedLink | None = None
    tokens_s: float | None = None
    tls: bool = True
    wait_for_tools: bool = False
    start_server: StartServer = partial(launched, module=_SERVER)
    start_end: Start = started


class _PathProbe:
    """Reads a path, and a server unless times over a link are what counts."""

    def __init__(self, path: AgentPath, server: ServerMeter | None) -> None:
        self._path = path
        self._server = server

    def take(self) -> WireBytes:
        return self._path.carried.take()

    async def cpu_s(self) -> float | None:
        return None if self._server is None else await self._server.cpu_s()

    async def read(self) -> ServerReading | None:
        return None if self._server is None else await self._server.read()


async def measure_arm(
    arm: MeasuredArm, workload: Workload, plan: MeasurementPlan | None = None, *, rounds: int = 1
) -> Arm:
    """Measure an arm several times."""
    plan = MeasurementPlan() if plan is None else plan
    return rounds_to_arm(arm.name, workload, plan, [await measure_round(arm, workload, plan) for _ in range(rounds)])


async def measure_round(
    arm: MeasuredArm, workload: Workload, plan: MeasurementPlan, *, keep: bool = False
) -> TaskRound:
    """Measure an arm once. `keep` keeps what was said."""
    with TemporaryDirectory(prefix="segue-bench-") as folder:
        database = Path(folder, "responses.db") if arm.on_disk else None
        store = "memory:" if database is None else f"sqlite:///{database}"
        spec = ModelServerSpec(workload=workload.name, tokens_s=plan.tokens_s, store=store)
        async with plan.start_server(spec) as server, aiohttp.ClientSession() as asking:
            reads = ServerMeter(server, database, asking) if plan.link is None else None
            async with arm.open_path(_site(arm, workload, plan, server)) as path:
                return await _measure(arm, workload, plan, TurnMeter(_PathProbe(path, reads), keep=keep), path)


def _site(arm: MeasuredArm, workload: Workload, plan: MeasurementPlan, server: ServerProcess) -> PathSite:
    async def warm_up(url: str) -> None:
        async with AsyncClient(base_url=f"{url}/v1", deflate=False) as client:
            await do_work(client, workload.earlier, arm.switches)

    profile = None if plan.link is None else msgspec.structs.replace(plan.link.profile, setup_rtts=_TCP_RTTS)
    tls = tls_contexts() if plan.tls else None
    return PathSite(host=server.host, port=server.port, tls=tls, profile=profile, warm_up=warm_up, start=plan.start_end)


async def _measure(
    arm: MeasuredArm, workload: Workload, plan: MeasurementPlan, meter: TurnMeter, path: AgentPath
) -> TaskRound:
    problem: str | None = None
    failed_turn: int | None = None
    await meter.start()
    async with metered_client(path.url, meter, arm.api) as client:
        try:
            await do_work(client, workload, arm.switches, wait_for_tools=plan.wait_for_tools)
        except (ClientError, WorkloadError) as error:
            failed_turn, problem = meter.number, " ".join(str(error).split())[:_LONGEST_PROBLEM]
        task_s = meter.now_s
        await path.settle()
        meter.take_late()
    return TaskRound(
        turns=meter.turns,
        figures=_round_figures(meter, path.carried.set_ups, task_s=task_s, tls=plan.tls),
        usages=meter.usages,
        api=arm.api,
        failed_turn=failed_turn,
        problem=problem,
        recorded=meter.recorded,
    )


@asynccontextmanager
async def metered_client(url: str, meter: TurnMeter, api: ArmApi = "responses") -> AsyncIterator[AsyncClient]:
    """Make a client of the plain server at a URL, all of whose turns are measured."""

    def links(settings: ConnectionSettings) -> ServerLinks:
        websocket = MeteredLink(WebSocketTransport(settings), meter)
        if api == "messages":
            return ServerLinks(MeteredLink(ThreadTransport(settings, meter), meter, tells=True), websocket)
        return ServerLinks(MeteredLink(HttpTransport(settings), meter), websocket)

    async with AsyncClient(base_url=f"{url}/v1", deflate=False, links=links) as client:
        yield client


def _round_figures(meter: TurnMeter, set_ups: Sequence[SetUp], *, task_s: float, tls: bool) -> RoundFigures:
    turns = meter.turns
    first = [turn.ttft_s for turn in turns if turn.ttft_s is not None]
    return RoundFigures(
        task_s=task_s,
        turns_s=sum(turn.time_s or 0.0 for turn in turns),
        ttft_first_s=turns[0].ttft_s if turns else None,
        ttft_median_s=median(first) if first else None,
        set_up_s=set_ups[0].time_s if set_ups and tls else None,
        set_up_up_bytes=sum(one.up_bytes for one in set_ups) + meter.before_first.up_bytes,
        set_up_down_bytes=sum(one.down_bytes for one in set_ups) + meter.before_first.down_bytes,
        bytes_up_wire=sum(turn.bytes_up_wire or 0 for turn in turns),
        bytes_down_wire=sum(turn.bytes_down_wire or 0 for turn in turns),
        server_cpu_s=_sum([turn.server_cpu_s for turn in turns]),
    )


def _sum(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None


# --- several rounds --------------------------------------------------------------------------------------------------


def rounds_to_arm(name: str, workload: Workload, plan: MeasurementPlan, rounds: Sequence[TaskRound]) -> Arm:
    """Make an arm of its rounds. If one failed, the arm did, and its turns are those of the round that failed first."""
    failed = [one for one in rounds if one.problem is not None]
    worst = min(failed, key=lambda one: one.failed_turn or 0, default=None)
    turns = median_turns([one.turns for one in rounds]) if worst is None else worst.turns
    made = make_arm(
        name,
        turns,
        status="completed" if worst is None else "failed",
        rounds=[one.figures for one in rounds if one.problem is None],
    )
    return msgspec.structs.replace(
        made,
        workload=workload.name,
        link=None if plan.link is None else plan.link.name,
        tokens_s=plan.tokens_s,
        failed_turn=None if worst is None else worst.failed_turn,
        problem=None if worst is None else worst.problem,
    )


def median_turns(rounds: Sequence[Sequence[TurnFigures]]) -> list[TurnFigures]:
    """Return the median of each figure of the same turn in all rounds."""
    return [_median_turn(turns) for turns in zip(*rounds, strict=True)]


def _median_turn(turns: Sequence[TurnFigures]) -> TurnFigures:
    fields: dict[str, Any] = {}
    for name in TurnFigures.__struct_fields__:
        values = [getattr(turn, name) for turn in turns]
        if None not in values:
            middle = median(values)
            fields[name] = middle if name.endswith("_s") else round(middle)
    return TurnFigures(**fields)


def check_same_work(rounds: Mapping[str, TaskRound]) -> None:
    """Make sure that all arms that came to their end had the same turns, with the same tokens in and out.

    Tokens of the input are counted by the JSON that said it, so that those of another API are others.

    Raises:
        DifferentWorkError: two of them had not.
    """
    done = {name: one for name, one in rounds.items() if one.problem is None}
    if not done:
        return
    first, *others = done
    for other in others:
        pair = done[first], done[other]
        if len(pair[0].usages) != len(pair[1].usages):
            raise DifferentWorkError(f"{first} took {len(pair[0].usages)} turns, {other} {len(pair[1].usages)}")
        alike = pair[0].api == pair[1].api
        for number, (one, another) in enumerate(zip(pair[0].usages, pair[1].usages, strict=True), 1):
            if one.output_tokens != another.output_tokens or (alike and one.input_tokens != another.input_tokens):
                raise DifferentWorkError(f"turn {number}: {first} had {_told(one)}, {other} {_told(another)}")


def _told(used: TurnUsage) -> str:
    return f"{used.input_tokens} tokens in and {used.output_tokens} out"
