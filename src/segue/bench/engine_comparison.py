"""Benchmark: the local model beside llama.cpp's own server, with the same model file, threads and prompts.

Each server runs in a process of its own and is asked over HTTP, in the same way. They take turns: in each round both do
the same piece of work, one directly after the other, the first of them another one each time; while one works, the
other waits. So a ratio is of two neighbours, and a slow minute of the machine is in both. The pieces are: a prompt of
some length that nobody has seen (seconds to the first token, then tokens in a second while the answer is written), some
conversations at once (tokens in a second, all together), and a conversation that goes on for some turns. Times and
speeds are figures of each server. A ratio is greater than 1 where the local model is the faster one. Not here: the
servers (`arms.engine_servers`), and what is kept between turns (`engine`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from time import perf_counter

import aiohttp
import msgspec
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from segue.bench.arms.child import Child, launched
from segue.bench.arms.engine_servers import MODEL, EngineServerSpec, LlamaServerSpec, ModelServer
from segue.bench.meters.chat_stream import TimedAnswer, ask
from segue.bench.reports.report import BenchReport, Figure, figure, make_report
from segue.bench.workloads.prose import ProseWriter
from segue.terminal import print_table

OURS, THEIRS = "segue", "llama-server"
_MODULE = "segue.bench.arms.engine_servers"
_TIMEOUT_S = 600.0
_MIB = 1024 * 1024
#: What prose takes on average, in characters for a token: prompts are about as long as they are named.
_TOKEN_CHARACTERS = 3.6
_QUESTION = "Count from one to five hundred in words. Write nothing but the numbers, one after the other."
_FOLLOW_UP = "Go on counting from where you stopped, in words."


class ComparisonPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What is compared.

    - `lengths`: tokens of the prompts; the speed of writing is measured behind each. `tokens`: of each answer.
    - `at_once`: how many conversations, each with a short prompt. `turns`: of the conversation that goes on; 0: none.
    """

    lengths: tuple[int, ...] = (100, 512, 2048, 4096, 7500)
    tokens: int = 64
    at_once: tuple[int, ...] = (1, 2, 4, 8)
    turns: int = 10
    rounds: int = 3


FULL_PLAN = ComparisonPlan()
QUICK_PLAN = ComparisonPlan(lengths=(100, 512, 2048), tokens=32, at_once=(4,), turns=4, rounds=2)


class Speed(msgspec.Struct, frozen=True):
    """One number of one piece of work. `faster`: which of two numbers is the better one."""

    name: str
    value: float
    unit: str
    faster: str


#: Does a piece of work at one server, given a number that makes its prompts new.
Work = Callable[["Server", int], Awaitable[list[Speed]]]


class Server(msgspec.Struct, frozen=True):
    """A server that runs."""

    name: str
    child: Child
    session: aiohttp.ClientSession

    async def ask(self, messages: Sequence[Mapping[str, str]], tokens: int) -> TimedAnswer:
        """Ask for an answer."""
        url = f"http://{self.child.host}:{self.child.port}"
        return await ask(self.session, url, messages, model=MODEL, tokens=tokens)


async def measure(
    file: Path,
    plan: ComparisonPlan,
    *,
    threads: int,
    batch_invariant: bool = False,
    console: Console | None = None,
) -> BenchReport:
    """Compare the two servers on a model file."""
    context, parallel = 8192, max(plan.at_once, default=1)
    specs: dict[str, ModelServer] = {
        OURS: EngineServerSpec(
            file=str(file), context=context, parallel=parallel, threads=threads, batch_invariant=batch_invariant
        ),
        THEIRS: LlamaServerSpec(file=str(file), cells=2 * context, parallel=parallel, threads=threads),
    }
    works = _works(plan)
    found: dict[str, dict[str, list[Speed]]] = {OURS: {}, THEIRS: {}}
    async with AsyncExitStack() as stack:
        # a connection for each request: llama.cpp's server closes one that rests while the other server works
        connector, timeout = aiohttp.TCPConnector(limit=0, force_close=True), aiohttp.ClientTimeout(total=_TIMEOUT_S)
        session = await stack.enter_async_context(aiohttp.ClientSession(connector=connector, timeout=timeout))
        servers = [
            Server(name, await stack.enter_async_context(launched(spec, _MODULE)), session)
            for name, spec in specs.items()
        ]
        with Progress(console=console, transient=True, disable=console is None) as progress:
            shown = progress.add_task("both servers", total=(plan.rounds + 1) * len(works))
            for number in range(plan.rounds + 1):
                for work in works if number else works[:1]:  # the first piece is done once before it counts
                    await _both(servers, work, number, found if number else {OURS: {}, THEIRS: {}})
                    progress.advance(shown)
        memory = [((await server.child.settled()).rss_bytes or 0) / _MIB for server in servers]
    settings = {**msgspec.structs.asdict(plan), "model": file.stem, "threads": threads, "against": THEIRS}
    settings["batch_invariant"] = batch_invariant
    figures = [
        *_figures(found),
        *(figure(f"memory, {one.name}", [used], "MiB") for one, used in zip(servers, memory, strict=True)),
    ]
    return make_report([], settings, figures)


async def _both(servers: list[Server], work: Work, number: int, found: dict[str, dict[str, list[Speed]]]) -> None:
    """Let both do a piece of work; who was first is second the next time."""
    for server in servers:
        for speed in await work(server, number):
            found[server.name].setdefault(speed.name, []).append(speed)
    servers.reverse()


def _works(plan: ComparisonPlan) -> list[Work]:
    lengths = [_prompt_work(length, plan.tokens) for length in plan.lengths]
    at_once = [_at_once_work(count, plan.tokens) for count in plan.at_once]
    return [*lengths, *at_once, *([_conversation_work(plan.turns, plan.tokens)] if plan.turns else [])]


def _prompt_work(length: int, tokens: int) -> Work:
    """A prompt that nobody has seen, and the answer to it."""

    async def work(server: Server, number: int) -> list[Speed]:
        answer = await server.ask([_new_message(length, number)], tokens)
        speeds = [Speed(f"first token, {length} tokens", answer.first_token_s, "s", "less")]
        if answer.tokens_s is not None:
            speeds.append(Speed(f"writing behind {length} tokens", answer.tokens_s, "tokens/s", "more"))
        return speeds

    return work


def _at_once_work(count: int, tokens: int) -> Work:
    """Conversations that begin at the same time."""

    async def work(server: Server, number: int) -> list[Speed]:
        began_at = perf_counter()
        asked = [server.ask([_new_message(60, 1000 * number + each)], tokens) for each in range(count)]
        answers = await asyncio.gather(*asked)
        written = sum(answer.output_tokens for answer in answers)
        return [Speed(f"{count} at once", written / (perf_counter() - began_at), "tokens/s", "more")]

    return work


def _conversation_work(turns: int, tokens: int) -> Work:
    """A conversation whose every turn sends all that was said."""

    async def work(server: Server, number: int) -> list[Speed]:
        messages = [_new_message(60, 5000 + number)]
        began_at = perf_counter()
        written = 0
        for _ in range(turns):
            answer = await server.ask(messages, tokens)
            written += answer.output_tokens
            messages += [
                {"role": "assistant", "content": answer.text},
                {"role": "user", "content": _FOLLOW_UP},
            ]
        return [Speed(f"{turns} turns", written / (perf_counter() - began_at), "tokens/s", "more")]

    return work


def _new_message(length: int, number: int) -> dict[str, str]:
    """Return a message of about so many tokens that begins as no other does."""
    prose, text = ProseWriter(number), f"{number}: "
    while len(text) < _TOKEN_CHARACTERS * length - len(_QUESTION):
        text += prose.sentence() + " "
    return {"role": "user", "content": text + _QUESTION}


def _figures(found: Mapping[str, Mapping[str, Sequence[Speed]]]) -> list[Figure]:
    """Return each server's speeds, and how many times as fast the local model was, round by round."""
    figures: list[Figure] = []
    for name, ours in found[OURS].items():
        theirs = found[THEIRS].get(name, ())
        unit = ours[0].unit
        ratios = [_ratio(*both) for both in zip(ours, theirs, strict=False)]
        figures += [
            figure(f"{name}, {OURS}", [one.value for one in ours], unit),
            figure(f"{name}, {THEIRS}", [one.value for one in theirs], unit),
            figure(f"{name}, times as fast", ratios, "x"),
        ]
    return figures


def _ratio(ours: Speed, theirs: Speed) -> float:
    return theirs.value / ours.value if ours.faster == "less" else ours.value / theirs.value


def render(report: BenchReport, console: Console) -> None:
    """Show both servers' speeds side by side, with the ratio."""
    title = f"{report.settings['model']}, {report.settings['threads']} threads: {OURS} beside {THEIRS}"
    table = Table(title=title, title_justify="left")
    for heading in ("", OURS, THEIRS, "times as fast"):
        table.add_column(heading, justify="right" if heading else "left")
    by_name = {one.name: one for one in report.figures}
    for name in (name.removesuffix(f", {OURS}") for name in by_name if name.endswith(f", {OURS}")):
        ours, theirs = by_name[f"{name}, {OURS}"], by_name[f"{name}, {THEIRS}"]
        ratio = by_name.get(f"{name}, times as fast")
        table.add_row(name, _cell(ours), _cell(theirs), "" if ratio is None else _cell(ratio))
    print_table(console, table)


def _cell(found: Figure) -> str:
    if found.value is None:
        return "-"
    spread = "" if found.low == found.high else f" ({found.low:.2f} to {found.high:.2f})"
    return f"{found.value:,.2f} {found.unit}{spread}"
