"""Benchmark: where a conversation's state can be, how long it lasts there, and what that costs in time and bytes.

The four ways of the Responses API, message threads and the sidecar do the same work over one link; how long an id can
be continued is tried out: on a new connection, and after a restart of the server. A local model comes from the results
of `segue bench engine`, since its state is computed and not sent. The services of others are cited, and nothing of them
is measured. Not here: measuring an arm (`arms.measurement`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, Literal

import aiohttp
import msgspec
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from segue.bench.arms.child import launched
from segue.bench.arms.measurement import MeasurementPlan, TaskRound, check_same_work, measure_round, rounds_to_arm
from segue.bench.arms.server import BURST, ServerSpec
from segue.bench.arms.table import ARMS, REPLAY, THREADS, MeasuredArm
from segue.bench.arms.tunnelled import COLD
from segue.bench.gateway import make_create
from segue.bench.meters.server_reading import ServerProcess
from segue.bench.meters.websocket_client import TurnRefusedError, connect
from segue.bench.reports.report import Arm, BenchReport, Figure, figure, make_report
from segue.bench.workloads.workload import Workload
from segue.terminal import print_table, print_text

KB = 1000
_OK = 200
#: This API demands a limit.
_LEAST_TOKENS = 64

#: How long an id can be continued.
Lifetime = Literal["connection", "process", "store"]


class SpectrumRow(msgspec.Struct, frozen=True, kw_only=True):
    """One way to keep a conversation. A way of somebody else has a source, and `lasts` in its words."""

    name: str
    state: str
    """Where the state is."""
    arm: str | None = None
    """The arm that measures it."""
    lasts: str | None = None
    """How long it lasts, if that is not tried out."""
    at_most: str | None = None
    """How long it lasts at most, whatever is tried out."""
    sends: str | None = None
    """What a later turn sends, if that is not measured."""
    source: str | None = None


LOCAL = "local model, by id"
ROWS = (
    SpectrumRow(name="HTTP, whole conversation", state="the client", arm=REPLAY, lasts="as long as the client"),
    SpectrumRow(name="HTTP, stored", state="the server's store", arm="http id"),
    SpectrumRow(name="WebSocket, not stored", state="the server's memory", arm="websocket id, not stored"),
    SpectrumRow(name="WebSocket, stored", state="the server's memory and store", arm="websocket id, stored"),
    SpectrumRow(
        name="message threads",
        state="the server's memory, instructions and tools too",
        arm=THREADS,
        at_most="at most 5 minutes after the last request",
    ),
    SpectrumRow(
        name="sidecar", state="the client; bytes, as a cache, at both ends", arm=COLD, lasts="as long as the client"
    ),
    SpectrumRow(
        name=LOCAL,
        state="the engine: tokens and KV cache in memory, then on disk",
        lasts="as the response",
        sends="new items",
    ),
    SpectrumRow(
        name="Anthropic, message threads",
        state="the provider's memory",
        lasts="5 minutes after the last request, best effort",
        sends="new messages",
        source="https://platform.claude.com/docs/en/build-with-claude/message-threads",
    ),
    SpectrumRow(
        name="Gemini, interactions",
        state="the provider's store",
        lasts="55 days, or 1 day without a paid plan",
        sends="new steps, instructions and tools",
        source="https://ai.google.dev/gemini-api/docs/interactions",
    ),
)

#: What is said of a lifetime.
_LASTS: Mapping[Lifetime, str] = {
    "connection": "until the connection closes",
    "process": "until the server restarts",
    "store": "survives a restart of the server",
}

#: Starts the server whose ids are tried out.
StartProbed = Callable[[ServerSpec], AbstractAsyncContextManager[ServerProcess]]


def measured_arms() -> list[MeasuredArm]:
    """Return the arms of the rows, in order."""
    return [ARMS[row.arm] for row in ROWS if row.arm is not None]


async def measure(
    workload: Workload,
    plan: MeasurementPlan,
    *,
    rounds: int,
    engine: BenchReport | None = None,
    console: Console | None = None,
    start_probed: StartProbed = launched,
) -> BenchReport:
    """Measure all rows that can be measured. `engine`: what `segue bench engine` wrote.

    Raises:
        DifferentWorkError: two arms did not do the same work.
    """
    arms = measured_arms()
    done: dict[str, list[TaskRound]] = {arm.name: [] for arm in arms}
    with Progress(console=console, transient=True, disable=console is None) as progress:
        shown = progress.add_task(workload.name, total=rounds * len(arms) + 1)
        for number in range(rounds):
            for arm in arms if number % 2 == 0 else reversed(arms):
                done[arm.name].append(await measure_round(arm, workload, plan))
                progress.advance(shown)
            check_same_work({name: all_rounds[-1] for name, all_rounds in done.items()})
        lifetimes = await try_lifetimes(start_probed)
        progress.advance(shown)
    measured = [rounds_to_arm(name, workload, plan, all_rounds) for name, all_rounds in done.items()]
    local = [] if engine is None else local_figures(engine)
    settings = {
        "workload": workload.name,
        "link": None if plan.link is None else plan.link.name,
        "tokens_s": plan.tokens_s,
        "rounds": rounds,
        "lasts": lifetimes,
    }
    return make_report(measured, settings, local)


# --- how long an id lasts --------------------------------------------------------------------------------------------


async def try_lifetimes(start: StartProbed) -> dict[str, Lifetime]:
    """Try out how long the ids of each arm can be continued."""
    arms = [arm for arm in measured_arms() if arm.history == "id"]
    with TemporaryDirectory(prefix="segue-bench-") as folder:
        spec = ServerSpec(
            kind="gateway",
            store=f"sqlite:///{Path(folder, 'responses.db')}",
            deltas=1,
            delta_bytes=8,
            stamps=1,
            pace_s=0.0,
        )
        async with start(spec) as server:
            ids = {arm.name: await _turn(server, arm, None) for arm in arms}
            elsewhere = {arm.name for arm in arms if await _turn(server, arm, ids[arm.name]) is not None}
        async with start(spec) as server:
            later = {arm.name for arm in arms if await _turn(server, arm, ids[arm.name]) is not None}
    return {
        arm.name: "store" if arm.name in later else "process" if arm.name in elsewhere else "connection" for arm in arms
    }


async def _turn(server: ServerProcess, arm: MeasuredArm, previous: str | None) -> str | None:
    """Take one turn on a connection of its own; return the id of the response, or None if the parent is unknown."""
    if arm.api == "messages":
        return await _post(server, "/v1/messages", _message(previous))
    create = make_create(BURST, "Remember this.", previous, store=arm.store)
    if arm.transport == "websocket":
        socket = await connect(server.host, server.port)
        try:
            return (await socket.turn(create)).response_id
        except TurnRefusedError:
            return None
        finally:
            socket.close()
    body = {name: value for name, value in msgspec.json.decode(create).items() if name != "type"}
    return await _post(server, "/v1/responses", body)


def _message(previous: str | None) -> Mapping[str, Any]:
    """Make a request that begins a message thread, or that continues one."""
    known = {"type": "create"} if previous is None else {"type": "continue", "previous_message_id": previous}
    said = {"role": "user", "content": "Remember this."}
    return {"model": BURST, "max_tokens": _LEAST_TOKENS, "messages": [said], "thread": known}


async def _post(server: ServerProcess, path: str, body: Mapping[str, Any]) -> str | None:
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"http://{server.host}:{server.port}{path}", json=body) as response,
    ):
        return (await response.json())["id"] if response.status == _OK else None


# --- the local model -------------------------------------------------------------------------------------------------


def local_figures(engine: BenchReport) -> list[Figure]:
    """Take from the engine's results what the longest context costs: read again, and continued."""
    ttft_s = {arm.name: arm.turns[-1].ttft_s for arm in engine.arms if arm.turns}
    named = {
        "whole conversation": "fastest full prefill",
        "continued": "continuation",
        "continued from disk": "restore disk",
    }
    length = engine.settings["lengths"][-1]
    return [
        figure(f"{LOCAL}: first token at {length:,} tokens, {what}", [1e3 * value], "ms")
        for what, name in named.items()
        if (value := ttft_s.get(name)) is not None
    ]


# --- on a screen -----------------------------------------------------------------------------------------------------


def render(report: BenchReport, console: Console) -> None:
    """Show the rows, what the arms of each cost in the first and the last turn, and the sources."""
    settings = report.settings
    arms = {arm.name: arm for arm in report.arms}
    turns = max((len(arm.turns) for arm in report.arms), default=0)
    console.print(f"{settings['workload']}, {turns} turns over {settings['link'] or 'loopback'}", highlight=False)
    table = Table(box=None, pad_edge=False, collapse_padding=True)
    for head in ("\napproach", "\nstate", "\nlasts"):
        table.add_column(head, overflow="fold", ratio=1)
    for head in ("KB up\nfirst", "\nlast", "\nall", "first token\nfirst ms", "\nlast"):
        table.add_column(head, justify="right", no_wrap=True)
    cited = [row for row in ROWS if row.source is not None]
    for row in ROWS:
        number = f" [{cited.index(row) + 1}]" if row in cited else ""
        lasts = row.lasts or _tried(settings["lasts"].get(row.arm), row)
        arm = arms.get(row.arm or "")
        cells = ("", "", "", "", "") if arm is None or not arm.turns else _cells(arm)
        table.add_row(f"{row.name}{number}", row.state, lasts, *cells)
    print_table(console, table)
    for arm in report.arms:
        if arm.status == "failed":
            console.print(f"{arm.name} failed at turn {arm.failed_turn}: {arm.problem}", style="bold red")
    for one in report.figures:
        console.print(f"{one.name}: {one.value:,.0f} {one.unit}", highlight=False)
    console.print(
        "KB up are all that the wire carried. How long an id lasts was tried out, on a new connection and after a "
        "restart. The sidecar has its link before the first turn. What has no figures is cited, or comes from `segue "
        "bench engine` (--engine).",
        style="dim",
        highlight=False,
    )
    for place, row in enumerate(cited, start=1):
        print_text(console, f"[{place}] A later turn sends {row.sends}. {row.source}", style="dim")


def _tried(found: Lifetime | None, row: SpectrumRow) -> str:
    """Say how long the ids of a row last; an older report may not have tried that out."""
    tried = "not tried out" if found is None else _LASTS[found]
    return tried if row.at_most is None else f"{tried}, {row.at_most}"


def _cells(arm: Arm) -> Sequence[str]:
    sizes = [arm.turns[0].bytes_up_wire, arm.turns[-1].bytes_up_wire, arm.totals.bytes_up_wire]
    first_s = [one.ttft_first_s for one in arm.rounds if one.ttft_first_s is not None]
    times_s = [median(first_s) if first_s else None, arm.turns[-1].ttft_s]
    return [
        *("" if size is None else f"{size / KB:,.1f}" for size in sizes),
        *("" if value is None else f"{1e3 * value:,.0f}" for value in times_s),
    ]
