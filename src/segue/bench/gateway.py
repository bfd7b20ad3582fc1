"""Benchmark: what a WebSocket turn costs in the gateway, beside a bare server that sends the same events.

It measures CPU time per turn at several depths of the chain, with all events at once, one per iteration of the event
loop, and one per millisecond (there most of the cost is waking up, for any server); the latency that the gateway adds
to an event; the memory of idle connections; and the bytes on disk per stored turn. Servers run in processes of their
own (`server`), arms alternate in shuffled order, and every figure is a median with its spread. The report says which
budgets were missed. The model is scripted, so the figures say nothing about a model, a provider or a network.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path

import msgspec
from msgspec.structs import replace
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from segue.bench.arms.child import Child, launched
from segue.bench.arms.server import BURST, FRAMING_EVENTS, PACED, STAMPED, TICKED, ServerSpec
from segue.bench.meters.cpu_affinity import allow_open_files, place
from segue.bench.meters.websocket_client import MeasuringSocket, TimedReply, connect
from segue.bench.reports.report import Arm, BenchReport, Figure, TurnFigures, arm, figure, make_report
from segue.terminal import print_table, terminal, verdict

CPU_BUDGET_MS = 0.5
DEPTH_BUDGET = 1.3
LATENCY_BUDGET_MS = 0.2
IDLE_BUDGET_KB = 40.0
KB = 1000

_BARE = "bare aiohttp"
_GATEWAY = "gateway"
_STORED = "gateway store=true"
_MODELS = (BURST, TICKED, PACED)


class GatewayBenchSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How much to measure. Depth N means that the chain has at least N turns, the measured one included."""

    rounds: int
    turns: int
    paced_turns: int
    depths: tuple[int, ...] = (1, 100, 500)
    events: int = 20
    delta_bytes: int = 24
    create_bytes: int = 4096
    pace_s: float = 0.001
    stamps: int = 50
    stamped_turns: int = 10
    connections: int = 1000
    stored_turns: int = 200
    warm_up: int = 20


FULL = GatewayBenchSettings(rounds=15, turns=150, paced_turns=20)
QUICK = GatewayBenchSettings(rounds=5, turns=60, paced_turns=8, stamped_turns=3, stored_turns=50)


class _GatewaySamples:
    """The samples so far."""

    def __init__(self) -> None:
        self.turns: dict[str, list[TurnFigures]] = {}
        self.cpu_s: dict[str, list[float]] = {}  # one per round: of all its turns
        self.cpu_ms: dict[str, list[float]] = {}  # one per round: per turn
        self.figures: list[Figure] = []

    def add(self, name: str, turns: Sequence[TurnFigures], cpu_s: float) -> None:
        self.turns.setdefault(name, []).extend(turns)
        self.cpu_s.setdefault(name, []).append(cpu_s)
        self.cpu_ms.setdefault(name, []).append(cpu_s / len(turns) * 1e3)

    def arms(self) -> list[Arm]:
        return [arm(name, turns, server_cpu_s=sum(self.cpu_s[name])) for name, turns in self.turns.items()]


class _GatewayCase(msgspec.Struct, frozen=True):
    """A server and a depth to measure in every round."""

    server: str
    depth: int

    def name(self, model: str) -> str:
        place = "" if self.server == _BARE else f", depth {self.depth}"
        return f"{self.server}, {model}{place}"

    @property
    def store(self) -> bool:
        return self.server == _STORED


async def measure(
    *, quick: bool = False, console: Console | None = None, settings: GatewayBenchSettings | None = None
) -> BenchReport:
    """Measure everything; `settings` replaces the quick or full ones. Progress is shown on `console`."""
    chosen = settings or (QUICK if quick else FULL)
    samples = _GatewaySamples()
    allow_open_files()
    with place() as cores, tempfile.TemporaryDirectory(prefix="segue-bench-") as folder, _progress(console) as progress:
        spec = ServerSpec(
            kind="gateway",
            deltas=chosen.events - FRAMING_EVENTS,
            delta_bytes=chosen.delta_bytes,
            stamps=chosen.stamps,
            pace_s=chosen.pace_s,
            core=cores.server,
        )
        async with _servers(spec, Path(folder)) as servers:
            loop = servers[_GATEWAY].loop
            await _measure_turns(chosen, servers, samples, progress)
            samples.figures += _cpu_figures(chosen, samples)
            samples.figures += await _measure_latency(chosen, servers, samples, progress)
        samples.figures += await _measure_memory(chosen, spec, progress)
        samples.figures.append(await _measure_store(chosen, spec, Path(folder), progress))
    described = {**msgspec.to_builtins(chosen), "loop": loop, "cores": msgspec.to_builtins(cores)}
    return make_report(samples.arms(), described, samples.figures)


def render(report: BenchReport, console: Console, *, title: str = "Gateway") -> None:
    """Show the figures, each beside its budget if it has one."""
    table = Table(title=title, title_justify="left")
    for name in ("what", "median", "spread", "budget", ""):
        table.add_column(name, justify="left" if name in {"what", ""} else "right")
    for one in report.figures:
        spread = "" if one.low is None or one.low == one.high else f"{one.low:.3g} - {one.high:.3g}"
        value = "not measured" if one.value is None else f"{one.value:.3g} {one.unit}"
        budget = "" if one.budget is None else f"≤ {one.budget:.4g}"
        table.add_row(one.name, value, spread, budget, verdict(met=one.met))
    print_table(console, table)
    machine = report.machine
    where = [machine.cpu, f"{machine.cores} cores", f"Python {machine.python}", report.settings.get("loop")]
    rounds = f"{report.settings.get('rounds')} rounds"
    console.print(f"{', '.join(part for part in where if part)}; {rounds}", style="dim")


# --- CPU per turn ----------------------------------------------------------------------------------------------------


@asynccontextmanager
async def _servers(spec: ServerSpec, folder: Path) -> AsyncIterator[Mapping[str, Child]]:
    """Run one of each server around a block."""
    specs = {
        _BARE: replace(spec, kind="bare"),
        _GATEWAY: spec,
        _STORED: replace(spec, store=_sqlite(folder / "turns.db")),
    }
    async with AsyncExitStack() as stack:
        yield {name: await stack.enter_async_context(launched(one)) for name, one in specs.items()}


async def _measure_turns(
    chosen: GatewayBenchSettings, servers: Mapping[str, Child], samples: _GatewaySamples, progress: Progress
) -> None:
    """Measure every cell in every round."""
    cells = _cells(chosen)
    mixed = random.Random(1)
    task = progress.add_task("CPU per turn", total=chosen.rounds * len(cells))
    for _ in range(chosen.rounds):
        for cell in mixed.sample(cells, len(cells)):
            models = mixed.sample(_MODELS, len(_MODELS))
            await _measure_cell(chosen, cell, models, servers[cell.server], samples)
            progress.advance(task)


def _cells(chosen: GatewayBenchSettings) -> list[_GatewayCase]:
    return [
        _GatewayCase(_BARE, 1),
        *(_GatewayCase(_GATEWAY, depth) for depth in chosen.depths),
        _GatewayCase(_STORED, 1),
    ]


async def _measure_cell(
    chosen: GatewayBenchSettings, cell: _GatewayCase, models: Sequence[str], child: Child, samples: _GatewaySamples
) -> None:
    """Build a chain on a new connection, then measure turns of each model on it."""
    socket = await connect(child.host, child.port)
    text = words(chosen.create_bytes)
    previous: str | None = None
    for _ in range(max(cell.depth - 1, chosen.warm_up)):
        create = make_create(BURST, text, previous, chosen.create_bytes, store=cell.store)
        previous = (await socket.turn(create)).response_id
    for model in models:
        turns: list[TurnFigures] = []
        before = await child.usage()
        for _ in range(chosen.paced_turns if model == PACED else chosen.turns):
            parent = previous if cell.depth > 1 else None
            create = make_create(model, text, parent, chosen.create_bytes, store=cell.store)
            done = await socket.turn(create)
            previous = done.response_id
            turns.append(_turn_figures(create, done))
        after = await child.usage()
        samples.add(cell.name(model), turns, (after.cpu_ns - before.cpu_ns) / 1e9)
    socket.close()


def _cpu_figures(chosen: GatewayBenchSettings, samples: _GatewaySamples) -> list[Figure]:
    figures: list[Figure] = []
    first = chosen.depths[0]
    for model in _MODELS:
        for cell in _cells(chosen):
            # Every server, the bare one too, pays for waking up at each step. The budget is for the work alone.
            judged = cell == _GatewayCase(_GATEWAY, first) and model != PACED
            values = samples.cpu_ms[cell.name(model)]
            figures.append(figure(f"CPU per turn: {cell.name(model)}", values, "ms", CPU_BUDGET_MS if judged else None))
        ours = samples.cpu_ms[_GatewayCase(_GATEWAY, first).name(model)]
        bare = samples.cpu_ms[_GatewayCase(_BARE, 1).name(model)]
        figures.append(figure(f"CPU per turn: {model}, gateway / bare", _ratios(ours, bare), "x"))
        for depth in chosen.depths[1:]:
            deep = samples.cpu_ms[_GatewayCase(_GATEWAY, depth).name(model)]
            name = f"CPU per turn: {model}, depth {depth} / depth {first}"
            figures.append(figure(name, _ratios(deep, ours), "x", DEPTH_BUDGET))
    return figures


def _ratios(values: Sequence[float], bases: Sequence[float]) -> list[float]:
    """Divide round by round: within one round the machine was under the same load."""
    return [value / base for value, base in zip(values, bases, strict=True)]


# --- latency ---------------------------------------------------------------------------------------------------------


async def _measure_latency(
    chosen: GatewayBenchSettings, servers: Mapping[str, Child], samples: _GatewaySamples, progress: Progress
) -> list[Figure]:
    """Measure how much later an event arrives from the gateway than from the bare server."""
    task = progress.add_task("latency per event", total=chosen.rounds * 2)
    names = [_BARE, _GATEWAY]
    p50: dict[str, list[float]] = {name: [] for name in names}
    p99: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(chosen.rounds):
        names.reverse()
        for name in names:
            latencies = sorted(await _stamped_latencies(chosen, name, servers[name], samples))
            p50[name].append(latencies[len(latencies) // 2] / 1e6)
            p99[name].append(latencies[len(latencies) * 99 // 100] / 1e6)
            progress.advance(task)
    return [
        figure(f"latency of an event, p50: {_BARE}", p50[_BARE], "ms"),
        figure("latency added to an event, p50", _differences(p50), "ms", LATENCY_BUDGET_MS),
        figure(f"latency of an event, p99: {_BARE}", p99[_BARE], "ms"),
        figure("latency added to an event, p99", _differences(p99), "ms"),
    ]


async def _stamped_latencies(
    chosen: GatewayBenchSettings, name: str, child: Child, samples: _GatewaySamples
) -> list[int]:
    socket = await connect(child.host, child.port)
    text = words(chosen.create_bytes)
    latencies: list[int] = []
    turns: list[TurnFigures] = []
    before = await child.usage()
    for _ in range(chosen.stamped_turns):
        create = make_create(STAMPED, text, None, chosen.create_bytes)
        done = await socket.turn(create)
        latencies += done.latencies_ns()
        turns.append(_turn_figures(create, done))
    after = await child.usage()
    socket.close()
    samples.add(f"{name}, {STAMPED}", turns, (after.cpu_ns - before.cpu_ns) / 1e9)
    return latencies


def _differences(values: dict[str, list[float]]) -> list[float]:
    return [ours - bare for ours, bare in zip(values[_GATEWAY], values[_BARE], strict=True)]


# --- memory and disk -------------------------------------------------------------------------------------------------


async def _measure_memory(chosen: GatewayBenchSettings, spec: ServerSpec, progress: Progress) -> list[Figure]:
    """Measure the memory of an idle connection: after the handshake, and after one short turn."""
    figures: list[Figure] = []
    task = progress.add_task("memory per connection", total=2)
    for name, one in ((_BARE, replace(spec, kind="bare")), (_GATEWAY, spec)):
        async with launched(one) as child:
            await _close(await _open(child, min(chosen.connections, 100), ""))  # allocates what is needed only once
            empty = (await child.settled()).rss_bytes
            sockets = await _open(child, chosen.connections)
            idle = (await child.settled()).rss_bytes
            await asyncio.gather(*(socket.turn(make_create(BURST, "Hello.", None)) for socket in sockets))
            used = (await child.settled()).rss_bytes
            await _close(sockets)
        budget = IDLE_BUDGET_KB if name == _GATEWAY else None
        what = f"memory of an idle connection, of {chosen.connections}"
        figures.append(figure(f"{what}: {name}", _per_connection(empty, idle, chosen), "KB", budget))
        figures.append(figure(f"the same after a short turn: {name}", _per_connection(empty, used, chosen), "KB"))
        progress.advance(task)
    return figures


async def _open(child: Child, count: int, text: str | None = None) -> list[MeasuringSocket]:
    """Open connections, a few at a time; with `text`, do a turn on each."""
    sockets: list[MeasuringSocket] = []
    while len(sockets) < count:
        several = min(50, count - len(sockets))
        sockets += await asyncio.gather(*(connect(child.host, child.port) for _ in range(several)))
    if text is not None:
        await asyncio.gather(*(socket.turn(make_create(BURST, text, None)) for socket in sockets))
    return sockets


async def _close(sockets: Sequence[MeasuringSocket]) -> None:
    for socket in sockets:
        socket.close()
    await asyncio.sleep(0.2)  # the server notices in its own time, and does not report it


def _per_connection(before: int | None, after: int | None, chosen: GatewayBenchSettings) -> list[float]:
    return [] if before is None or after is None else [(after - before) / chosen.connections / KB]


async def _measure_store(chosen: GatewayBenchSettings, spec: ServerSpec, folder: Path, progress: Progress) -> Figure:
    """Measure what a stored turn adds to the files of an SQLite store; closing the store empties its WAL."""
    path = folder / "bytes.db"
    one = replace(spec, store=_sqlite(path))
    task = progress.add_task("store bytes per turn", total=chosen.stored_turns + chosen.warm_up)
    previous, _ = await _stored_turns(chosen, one, None, chosen.warm_up)
    before = _size(path)
    progress.advance(task, chosen.warm_up)
    _, delta = await _stored_turns(chosen, one, previous, chosen.stored_turns)
    added = (_size(path) - before) / chosen.stored_turns
    progress.advance(task, chosen.stored_turns)
    name = f"store bytes per turn, delta {delta:.0f}"
    return figure(name, [added], "B", 2 * delta + KB)


async def _stored_turns(
    chosen: GatewayBenchSettings, spec: ServerSpec, previous: str | None, count: int
) -> tuple[str | None, float]:
    """Add turns to a chain in a server of their own; returns the last id, and bytes of new items per turn."""
    delta = 0
    async with launched(spec) as child:
        socket = await connect(child.host, child.port)
        for _ in range(count):
            text = words(chosen.create_bytes)
            done = await socket.turn(make_create(BURST, text, previous, store=True))
            previous = done.response_id
            delta += len(_item(text)) + done.item_bytes()
        socket.close()
    return previous, delta / count


def _sqlite(path: Path) -> str:
    return f"sqlite:///{path}"


def _size(path: Path) -> int:
    return sum(file.stat().st_size for file in path.parent.glob(f"{path.name}*"))


# --- requests --------------------------------------------------------------------------------------------------------


def words(size: int) -> str:
    """Return text of about `size` bytes: lines of words and quotes, as the output of a tool has them."""
    line = 'def answer(self, question: str) -> str:\n    return f"{question} is being thought about"\n'
    return (line * (size // len(line) + 1))[:size]


def make_create(model: str, text: str, previous: str | None, size: int | None = None, *, store: bool = False) -> bytes:
    """Make a create; with `size`, its text is cut so that the message has exactly that many bytes."""
    body = {"type": "response.create", "model": model, "store": store, "previous_response_id": previous}
    head = msgspec.json.encode({**body, "input": []})[:-2]
    if size is not None:
        text = _cut(text, size - len(head) - len(_item("")) - 2)
    return b"%b%b]}" % (head, _item(text))


def _cut(text: str, size: int) -> str:
    """Cut `text` so that its JSON has exactly `size` bytes between the quotes."""
    kept = text[:size]
    while (over := len(msgspec.json.encode(kept)) - 2 - size) > 0:
        kept = kept[:-over]
    return kept + "." * -over


def _item(text: str) -> bytes:
    content = [{"type": "input_text", "text": text}]
    return msgspec.json.encode({"type": "message", "role": "user", "content": content})


def _turn_figures(create: bytes, done: TimedReply) -> TurnFigures:
    return TurnFigures(
        bytes_up_payload=len(create),
        bytes_up_wire=done.bytes_up,
        bytes_down_wire=done.bytes_down,
        ttft_s=done.first_s,
        time_s=done.time_s,
    )


@contextmanager
def _progress(console: Console | None) -> Iterator[Progress]:
    shown = terminal(quiet=True) if console is None else console
    with Progress(console=shown, transient=True, disable=console is None) as progress:
        yield progress
