"""Benchmark: what it costs to send a whole history to a provider, per dialect and depth of the chain.

The client sends only what is new, but a stateless provider needs everything in every turn. So the bytes per turn grow
with the chain, and so does the CPU time of the gateway; it should only pay for copying them, because it caches what it
has rendered once. The benchmark compares, in one process, the gateway's three dialects and an upstream that joins the
history and sends it untranslated. The figure to look at is nanoseconds of CPU per additional byte of history. Answers
are scripted and providers are on loopback, so the figures say nothing about a provider or a network.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import msgspec
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from segue.bench.arms.child import Child, launched
from segue.bench.arms.providers import AnsweringProvider, answering
from segue.bench.arms.server import BARE_HISTORY, PROVIDED, ServerSpec
from segue.bench.gateway import make_create, words
from segue.bench.meters.cpu_affinity import place
from segue.bench.meters.websocket_client import connect
from segue.bench.reports.report import Arm, BenchReport, Figure, TurnFigures, arm, figure, make_report
from segue.terminal import terminal

_KB = 1000


class DialectBenchSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How much to measure. Depth N means that the chain has at least N turns, the measured one included."""

    rounds: int
    turns: int
    depths: tuple[int, ...] = (1, 100, 500)
    create_bytes: int = 4096
    text_bytes: int = 300


FULL = DialectBenchSettings(rounds=9, turns=40)
QUICK = DialectBenchSettings(rounds=3, turns=20)


class _DialectCase(msgspec.Struct, frozen=True):
    """A model and a depth to measure in every round."""

    model: str
    depth: int

    @property
    def name(self) -> str:
        """Its name in the report."""
        return f"{_NAMES[self.model]}, depth {self.depth}"


_NAMES: dict[str, str] = {**{name: name for name in PROVIDED}, BARE_HISTORY: "untranslated"}


class _DialectSamples(msgspec.Struct):
    """The samples of one case, per round: CPU per turn in nanoseconds, and bytes of a body."""

    cpu_ns: list[float] = []
    body_bytes: list[float] = []
    turns: list[TurnFigures] = []


async def measure(
    *, quick: bool = False, console: Console | None = None, settings: DialectBenchSettings | None = None
) -> BenchReport:
    """Measure everything; `settings` replaces the quick or full ones. Progress is shown on `console`."""
    chosen = settings or (QUICK if quick else FULL)
    cells = [_DialectCase(model, depth) for model in _NAMES for depth in chosen.depths]
    measured = {cell: _DialectSamples() for cell in cells}
    shown = terminal(quiet=True) if console is None else console
    text = words(chosen.text_bytes)
    with place() as cores, Progress(console=shown, transient=True, disable=console is None) as progress:
        async with answering(text) as provider:
            spec = ServerSpec(
                kind="gateway", deltas=1, delta_bytes=24, stamps=1, pace_s=0.0, core=cores.server, provider=provider.url
            )
            task = progress.add_task("CPU per turn", total=chosen.rounds * len(_NAMES))
            mixed = random.Random(1)
            async with launched(spec) as child:
                for _ in range(chosen.rounds):
                    for model in mixed.sample(list(_NAMES), len(_NAMES)):
                        await _measure_chain(chosen, model, child, provider, measured)
                        progress.advance(task)
        described = {**msgspec.to_builtins(chosen), "loop": child.loop, "cores": msgspec.to_builtins(cores)}
    return make_report([_arm(cell, measured[cell]) for cell in cells], described, _figures(chosen, measured))


async def _measure_chain(
    chosen: DialectBenchSettings,
    model: str,
    child: Child,
    provider: AnsweringProvider,
    measured: dict[_DialectCase, _DialectSamples],
) -> None:
    """Grow one chain, and measure some turns at each depth."""
    socket = await connect(child.host, child.port)
    text = words(chosen.create_bytes)
    previous: str | None = None
    depth = 0
    for wanted in chosen.depths:
        while depth + 1 < wanted:
            done = await socket.turn(make_create(model, text, previous, chosen.create_bytes))
            previous, depth = done.response_id, depth + 1
        turns: list[TurnFigures] = []
        received, before = provider.received_bytes, (await child.usage()).cpu_ns
        for _ in range(chosen.turns):
            create = make_create(model, text, previous if wanted > 1 else None, chosen.create_bytes)
            done = await socket.turn(create)
            previous, depth = done.response_id, depth + 1 if wanted > 1 else 1
            turns.append(TurnFigures(bytes_up_payload=len(create), ttft_s=done.first_s, time_s=done.time_s))
        into = measured[_DialectCase(model, wanted)]
        into.cpu_ns.append(((await child.usage()).cpu_ns - before) / chosen.turns)
        into.body_bytes.append((provider.received_bytes - received) / chosen.turns)
        into.turns += turns
    socket.close()


def _arm(cell: _DialectCase, measured: _DialectSamples) -> Arm:
    total_s = sum(measured.cpu_ns) / 1e9 * len(measured.turns) / max(1, len(measured.cpu_ns))
    return arm(cell.name, measured.turns, server_cpu_s=total_s)


def _figures(chosen: DialectBenchSettings, measured: dict[_DialectCase, _DialectSamples]) -> list[Figure]:
    first, last = chosen.depths[0], chosen.depths[-1]
    figures: list[Figure] = []
    for model, name in _NAMES.items():
        for depth in chosen.depths:
            cell = measured[_DialectCase(model, depth)]
            figures.append(figure(f"CPU per turn: {name}, depth {depth}", [ns / 1e6 for ns in cell.cpu_ns], "ms"))
            sizes = [size / _KB for size in cell.body_bytes]
            figures.append(figure(f"body sent to the provider: {name}, depth {depth}", sizes, "KB"))
        slopes = _slopes(measured[_DialectCase(model, first)], measured[_DialectCase(model, last)])
        figures.append(figure(f"CPU per byte of history: {name}", slopes, "ns"))
    return figures


def _slopes(shallow: _DialectSamples, deep: _DialectSamples) -> list[float]:
    """Return, per round, the cost of each byte that the deep chain sends in addition."""
    pairs = zip(shallow.cpu_ns, deep.cpu_ns, shallow.body_bytes, deep.body_bytes, strict=True)
    return [(more - less) / (large - small) for less, more, small, large in pairs if large > small]


def render(report: BenchReport, console: Console) -> None:
    """Show a line for each dialect and depth, and the cost of a byte of history."""
    values = {one.name: one for one in report.figures}
    depths: Sequence[int] = report.settings["depths"]
    table = Table(title="Sending the whole history", title_justify="left")
    for head in ("upstream", "depth", "body", "CPU per turn", "spread", "CPU per byte of history"):
        table.add_column(head, justify="left" if head == "upstream" else "right")
    for name in _NAMES.values():
        per_byte = values[f"CPU per byte of history: {name}"]
        for depth in depths:
            cpu = values[f"CPU per turn: {name}, depth {depth}"]
            body = values[f"body sent to the provider: {name}, depth {depth}"]
            last = f"{per_byte.value:.3g} ns" if depth == depths[-1] and per_byte.value is not None else ""
            spread = f"{cpu.low:.3g} - {cpu.high:.3g}"
            table.add_row(name, str(depth), f"{body.value:,.0f} KB", f"{cpu.value:.3g} ms", spread, last)
    console.print(table)
    machine = report.machine
    console.print(
        f"{machine.cpu}, {machine.cores} cores, Python {machine.python}, {report.settings['loop']}; "
        f"{report.settings['rounds']} rounds of {report.settings['turns']} turns, "
        f"{report.settings['create_bytes'] / 1024:g} KB each",
        style="dim",
    )
