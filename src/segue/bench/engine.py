"""Benchmark: what a turn costs the local engine, by the length of its context.

For each length, one conversation begins with a prompt of that many tokens, all of which are prefilled (*full prefill*).
Short turns follow. Each finds the KV state of the turns before it: by a prefix match, when the whole conversation is
sent again (*warm prefix*); by the response's id (*continuation*); and by its id after the state was evicted to host
memory or disk (*restore memory*, *restore disk*). An engine that need not be batch-invariant prefills the same prompts
(*fastest full prefill*). Answers have one token, since only the time to the first is measured. The engine runs in the
measuring process, without a gateway. Not here: the plot (`reports`).
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Literal

import msgspec
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from segue.bench.reports.report import BenchReport, TurnFigures, arm, figure, make_report
from segue.bench.workloads.prose import ProseWriter
from segue.engine import ModelFile
from segue.engine.upstream import LocalUpstream
from segue.history.chains import History, Turn, path
from segue.protocol.events import Ended, Event
from segue.protocol.ids import ENTROPY_BYTES, new_response_id
from segue.protocol.items import Item, user_message
from segue.protocol.requests import Settings
from segue.terminal import print_table
from segue.testing.tiny_model import BENCH_SHAPE, write_tiny_model
from segue.upstreams.interface import UpstreamRequest

FULL, WARM, CONTINUED, MEMORY, DISK = "full prefill", "warm prefix", "continuation", "restore memory", "restore disk"
#: Prefill by an engine that is not batch-invariant: the fastest way to read a prompt.
FASTEST = "fastest full prefill"
ARMS = (FASTEST, FULL, WARM, CONTINUED, MEMORY, DISK)

LENGTHS = (512, 1024, 2048, 4096, 7900)
QUICK_LENGTHS = (512, 2048, 4096)
ROUNDS = 2
CONTEXT = 8192
TINY = "tiny"

_TENANT = "bench"
_GIB = 1024 * 1024 * 1024
#: The most tokens that a chat template adds around a message. A prompt is that much shorter than the context.
_AROUND = 64
#: Tokens of a short turn. With the template around them, seven such turns fit behind the longest prompt.
_QUESTION = 16


class EngineTurn(msgspec.Struct, frozen=True):
    """One turn: its figures, and the turn itself, for the next one to continue."""

    figures: TurnFigures
    turn: Turn


async def measure(
    model: Path | None,
    lengths: Sequence[int],
    *,
    rounds: int = ROUNDS,
    threads: int | None = None,
    template: Path | None = None,
    console: Console | None = None,
) -> BenchReport:
    """Measure a model file, None for the tiny model, at each of the lengths; `template` is for one that has none."""
    curves: dict[str, list[TurnFigures]] = {name: [] for name in ARMS}
    async with _loaded(model, threads, template) as upstream:
        with _progress(console, lengths) as advance:
            for length in lengths:
                for name, turns in (await _measure_length(upstream, length, rounds)).items():
                    curves[name].append(_median(turns))
                advance(length)
        settings = {
            "model": upstream.name,
            "lengths": list(lengths),
            "rounds": rounds,
            "threads": threads,
            "context": upstream.model.context,
            "cell_bytes": upstream.model.cell_bytes,
        }
    async with _loaded(model, threads, template, batch_invariant=False) as upstream:
        with _progress(console, lengths) as advance:
            for length in lengths:
                curves[FASTEST].append((await _begin(upstream, ProseWriter(length), length)).figures)
                advance(length)
    arms = [arm(name, turns) for name, turns in curves.items()]
    figures = []
    for index, length in enumerate(lengths):
        full, continued = (curves[name][index].ttft_s for name in (FASTEST, CONTINUED))
        assert full is not None, "every turn has a first token"
        assert continued, "and that takes time"
        figures.append(figure(f"{FASTEST} / {CONTINUED}, {length} tokens", [full / continued], "x"))
    most = max(turn.tokens_processed or 0 for turn in curves[CONTINUED])
    least = min(turn.tokens_processed or 0 for turn in curves[CONTINUED])
    figures.append(figure("tokens processed by a continuation", [least, most], "tokens"))
    return make_report(arms, settings, figures)


@contextmanager
def _progress(console: Console | None, lengths: Sequence[int]) -> Iterator[Callable[[int], None]]:
    """Show the progress of one engine; call the yielded function with each length that is done."""
    with Progress(console=console, transient=True, disable=console is None) as progress:
        shown = progress.add_task(f"{len(lengths)} lengths", total=sum(lengths))
        yield lambda length: progress.advance(shown, length)


@asynccontextmanager
async def _loaded(
    model: Path | None, threads: int | None, template: Path | None, *, batch_invariant: bool = True
) -> AsyncIterator[LocalUpstream]:
    """Run the engine around a block, with room for one conversation, in memory and on disk."""
    with TemporaryDirectory() as folder:
        file = model
        if file is None:
            file = Path(folder) / "tiny.gguf"
            write_tiny_model(file, BENCH_SHAPE)
        name = TINY if model is None else file.stem
        spill = Path(folder) / "spill"
        upstream = LocalUpstream(
            ModelFile(
                file,
                name,
                CONTEXT,
                threads,
                kv_bytes=1,
                host_bytes=2 * _GIB,
                disk_bytes=4 * _GIB,
                spill_directory=spill,
                batch_invariant=batch_invariant,
                template=template,
            )
        )
        await upstream.start()
        try:
            yield upstream
        finally:
            await upstream.aclose()


async def _measure_length(upstream: LocalUpstream, length: int, rounds: int) -> dict[str, list[TurnFigures]]:
    """Hold one conversation that begins with a prompt of `length` tokens."""
    prose = ProseWriter(length)
    began = await _begin(upstream, prose, length)
    turn = began.turn
    curves: dict[str, list[TurnFigures]] = {name: [] for name in ARMS if name != FASTEST}
    curves[FULL].append(began.figures)
    places: dict[str, Literal["host", "disk"] | None] = {CONTINUED: None, MEMORY: "host", DISK: "disk"}
    for _ in range(rounds):
        for name, place in places.items():
            if place is not None:
                await upstream.evict(place)
            done = await _turn(upstream, turn, [_message(upstream, prose, _QUESTION)])
            curves[name].append(done.figures)
            turn = done.turn
    whole = [item for one in path(turn) for item in (*one.input, *one.output)]
    curves[WARM].append((await _turn(upstream, None, [*whole, _message(upstream, prose, _QUESTION)])).figures)
    return curves


async def _begin(upstream: LocalUpstream, prose: ProseWriter, length: int) -> EngineTurn:
    """Prefill a prompt of `length` tokens."""
    return await _turn(upstream, None, [_message(upstream, prose, length - _AROUND)])


async def _turn(upstream: LocalUpstream, parent: Turn | None, items: Sequence[Item]) -> EngineTurn:
    """Run one turn and measure the time to its first token."""
    settings = Settings(model=upstream.name, max_output_tokens=1)
    ident = new_response_id(os.urandom(ENTROPY_BYTES), None if parent is None else parent.id)
    history = History(parent, tuple(items))
    request = UpstreamRequest(upstream.name, ident, _TENANT, history, settings, None, store=True, held=True)
    began_at = perf_counter()
    first_at: float | None = None
    output: list[Item] = []
    ended = Ended("failed")
    async for batch in upstream.stream(request):
        if batch and first_at is None:
            first_at = perf_counter()
        for event in batch:
            if isinstance(event, Event) and event.item:
                output.append(event.item)
            elif isinstance(event, Ended):
                ended = event
    now = perf_counter()
    counted = ended.usage
    if counted is None:
        raise RuntimeError(f"the engine failed: {ended.error}")
    reused = counted.input_tokens_details.cached_tokens
    figures = TurnFigures(
        ttft_s=(first_at or now) - began_at,
        time_s=now - began_at,
        bytes_up_payload=sum(map(len, items)),
        tokens_reused=reused,
        tokens_processed=counted.input_tokens - reused,
    )
    turn = Turn(id=ident, parent=parent, input=tuple(items), output=tuple(output), calls=frozenset(), stored=True)
    return EngineTurn(figures, turn)


def _message(upstream: LocalUpstream, prose: ProseWriter, tokens: int) -> Item:
    """Return a message of `tokens` tokens, or a few less."""
    words: list[str] = []
    left = tokens
    while left > 0:
        for word in prose.sentence().split():
            left -= len(upstream.model.tokenize(f" {word}", False))  # noqa: FBT003 - the shape of a tokenizer
            if left < 0:
                break
            words.append(word)
    return user_message(" ".join(words))


def _median(turns: Sequence[TurnFigures]) -> TurnFigures:
    """Return the median of each figure, rounded if it is a count."""

    def middle(name: str) -> float:
        return float(median(getattr(turn, name) for turn in turns))

    return TurnFigures(
        ttft_s=middle("ttft_s"),
        time_s=middle("time_s"),
        bytes_up_payload=round(middle("bytes_up_payload")),
        tokens_reused=round(middle("tokens_reused")),
        tokens_processed=round(middle("tokens_processed")),
    )


# --- on a screen -----------------------------------------------------------------------------------------------------


def render(report: BenchReport, console: Console) -> None:
    """Show time to first token, and tokens processed, by the length of the context."""
    table = Table(title=f"{report.settings['model']}: ms to the first token (tokens processed)", title_justify="left")
    table.add_column("context", justify="right")
    for one in report.arms:
        table.add_column(one.name, justify="right", overflow="fold")
    for index, length in enumerate(report.settings["lengths"]):
        table.add_row(f"{length:,}", *(_cell(one.turns[index]) for one in report.arms))
    print_table(console, table)
    for found in report.figures:
        spread = "" if found.low == found.high else f" ({found.low:.0f} to {found.high:.0f})"
        console.print(f"{found.name}: {found.value:,.1f} {found.unit}{spread}", style="dim")


def _cell(turn: TurnFigures) -> str:
    return f"{1e3 * (turn.ttft_s or 0):,.0f} ({turn.tokens_processed:,})"
