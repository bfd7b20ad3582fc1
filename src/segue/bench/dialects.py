"""Benchmark: what it costs to go on with a conversation at a provider, per dialect and depth of the chain.

The client sends only what is new. A stateless provider needs everything in every turn: the bytes per turn grow with the
chain, and so does the CPU time of the gateway, which should only pay for copying them, because it caches what it has
rendered once. The figure to look at is nanoseconds of CPU per additional byte of history. A provider that holds what it
was sent, as message threads of Anthropic and the WebSocket mode of OpenAI do, is sent what is new: at every depth, both
the bytes and the time should be those of the first turn. An upstream that joins the history and sends it untranslated
is measured beside them. Answers are scripted and providers are on loopback, so the figures say nothing about a provider
or a network.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

import msgspec
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from segue.bench.arms.child import Child, launched
from segue.bench.arms.providers import AnsweringProvider, answering
from segue.bench.arms.server import BARE_HISTORY, CONTINUED, PROVIDED, ServerSpec
from segue.bench.gateway import make_create, words
from segue.bench.meters.cpu_affinity import place
from segue.bench.meters.websocket_client import connect
from segue.bench.reports.report import Arm, BenchReport, Figure, TurnFigures, arm, figure, make_report
from segue.terminal import print_table, terminal

_KB = 1000
_WHOLE_FROM = 100


class DialectBenchSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How much to measure. Depth N means that the chain has at least N turns, the measured one included."""

    rounds: int
    turns: int
    depths: tuple[int, ...] = (1, 100, 500)
    create_bytes: int = 4096
    text_bytes: int = 300


FULL = DialectBenchSettings(rounds=5, turns=40)
QUICK = DialectBenchSettings(rounds=3, turns=20)


class _DialectCase(msgspec.Struct, frozen=True):
    """A model and a depth to measure in every round."""

    model: str
    depth: int

    @property
    def name(self) -> str:
        """Its name in the report."""
        return f"{_NAMES[self.model]}, depth {self.depth}"


#: The models, and what they are called. Those of providers that hold what they were sent come last.
_NAMES: dict[str, str] = {
    **{name: name for name in PROVIDED},
    BARE_HISTORY: "untranslated",
    **{name: name for name in CONTINUED},
}
#: How much more a turn may cost at the end of a chain than at its beginning where only what is new is sent.
_MOST_GROWTH = 1.3


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
                kind="gateway",
                deltas=1,
                delta_bytes=24,
                stamps=1,
                pace_s=0.0,
                core=cores.server,
                provider=provider.url,
                socket_provider=provider.socket_url,
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
        ends = measured[_DialectCase(model, first)], measured[_DialectCase(model, last)]
        if model in CONTINUED:
            figures += _growths(name, *ends, depths=(first, last))
        else:
            figures.append(figure(f"CPU per byte of history: {name}", _slopes(*ends), "ns"))
    return figures


def _growths(
    name: str, shallow: _DialectSamples, deep: _DialectSamples, *, depths: tuple[int, int]
) -> Sequence[Figure]:
    """Return how much more CPU time, and how many more bytes, a turn takes at the end of the chain, per round."""
    beside = f"{name}, depth {depths[1]} / depth {depths[0]}"
    cpu = [more / less for less, more in zip(shallow.cpu_ns, deep.cpu_ns, strict=True)]
    sent = [more / less for less, more in zip(shallow.body_bytes, deep.body_bytes, strict=True)]
    return (
        figure(f"CPU per turn: {beside}", cpu, "x", budget=_MOST_GROWTH),
        figure(f"body sent to the provider: {beside}", sent, "x", budget=_MOST_GROWTH),
    )


def growth_of(values: Mapping[str, Figure], name: str, depths: Sequence[int]) -> str:
    """Say by how much CPU time grows: for a byte of history where that is sent, else from the first turn on."""
    per_byte = values.get(f"CPU per byte of history: {name}")
    if per_byte is not None:
        return "" if per_byte.value is None else f"{per_byte.value:.3g} ns a byte"
    grown = values[f"CPU per turn: {name}, depth {depths[-1]} / depth {depths[0]}"]
    return f"{grown.value:.3g} x in all"


def kilobytes(size: Figure) -> str:
    """Return the size of a body, with a digit more if it is small."""
    assert size.value is not None, "each body was counted"
    return f"{size.value:,.0f} KB" if size.value >= _WHOLE_FROM else f"{size.value:.1f} KB"


def _slopes(shallow: _DialectSamples, deep: _DialectSamples) -> list[float]:
    """Return, per round, the cost of each byte that the deep chain sends in addition."""
    pairs = zip(shallow.cpu_ns, deep.cpu_ns, shallow.body_bytes, deep.body_bytes, strict=True)
    return [(more - less) / (large - small) for less, more, small, large in pairs if large > small]


def render(report: BenchReport, console: Console) -> None:
    """Show a line for each dialect and depth, and by how much the cost grows."""
    values = {one.name: one for one in report.figures}
    depths: Sequence[int] = report.settings["depths"]
    table = Table(title="Going on with a conversation", title_justify="left", box=None, pad_edge=False)
    for head in ("upstream", "depth", "body", "CPU per turn", "spread", "grows by"):
        table.add_column(head, justify="left" if head == "upstream" else "right", no_wrap=True)
    for name in _NAMES.values():
        if f"CPU per turn: {name}, depth {depths[-1]}" not in values:
            continue  # an older report
        for depth in depths:
            cpu = values[f"CPU per turn: {name}, depth {depth}"]
            body = values[f"body sent to the provider: {name}, depth {depth}"]
            last = growth_of(values, name, depths) if depth == depths[-1] else ""
            spread = f"{cpu.low:.3g} - {cpu.high:.3g}"
            table.add_row(name, str(depth), kilobytes(body), f"{cpu.value:.3g} ms", spread, last)
    print_table(console, table)
    machine = report.machine
    console.print(
        f"{machine.cpu}, {machine.cores} cores, Python {machine.python}, {report.settings['loop']}; "
        f"{report.settings['rounds']} rounds of {report.settings['turns']} turns, "
        f"{report.settings['create_bytes'] / 1024:g} KB each",
        style="dim",
    )
