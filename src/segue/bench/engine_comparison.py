"""Benchmark: the local model beside llama.cpp's own server, with the same model file, threads and prompts.

Each server runs in a process of its own and is asked over HTTP, in the same way. They take turns: in each round both do
the same piece of work, one directly after the other, the first of them another one each time; while one works, the
other waits. So a ratio is of two neighbours, and a slow minute of the machine is in both. The pieces are: a prompt of
some length that nobody has seen (seconds to the first token, then tokens in a second while the answer is written), some
conversations at once (tokens in a second, all together), a conversation that goes on for some turns, and how soon a
server answers small requests while it reads a long prompt. Times and speeds are figures of each server. A ratio is
greater than 1 where the local model is the faster one.

Both have the same threads, room for as many tokens in the KV cache, as many turns at once, as much host memory for what
does not fit, and reuse the prefix of a prompt. The report says which build of llama.cpp is in either, since a newer one
may have faster kernels. In each round both are new processes, since a process may be some percent faster than another
for all its life. Each first does two pieces of work, whose prompts tell how many characters of such a text are a token.
Not here: the servers (`arms.engine_servers`), and what is kept between turns (`engine`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Final

import aiohttp
import msgspec
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from segue.bench.arms.child import Child, launched
from segue.bench.arms.engine_servers import MODEL, EngineServerSpec, LlamaServerSpec, ModelServer, llama_cpp_builds
from segue.bench.meters.chat_stream import TimedAnswer, ask
from segue.bench.reports.report import BenchReport, Figure, figure, make_report
from segue.bench.workloads.prose import ProseWriter
from segue.terminal import print_table

OURS, THEIRS = "segue", "llama-server"
_MODULE = "segue.bench.arms.engine_servers"
_TIMEOUT_S = 600.0
_MIB = 1024 * 1024
#: What prose takes in characters for a token, until a first answer has told how many they are for this model.
_TOKEN_CHARACTERS = 3.6
_CONTEXT = 8192
_WARM_UP_LENGTHS = (50, 1000)
#: How long to wait between two small requests beside a prompt.
_PROBE_PAUSE_S = 0.02
_SCRIPTED_TURN = b'{"model":"scripted","input":"a","store":false,"stream":true}'
#: Small requests that a server answers without the model: by its name and theirs, the path and the body.
PROBES: Final[dict[str, Mapping[str, tuple[str, bytes | None]]]] = {
    OURS: {"health check": ("/healthz", None), "scripted turn": ("/v1/responses", _SCRIPTED_TURN)},
    THEIRS: {"health check": ("/health", None)},
}
_QUESTION = "Count from one to five hundred in words. Write nothing but the numbers, one after the other."
_FOLLOW_UP = "Go on counting from where you stopped, in words."


class ComparisonPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What is compared.

    - `lengths`: tokens of the prompts; the speed of writing is measured behind each. `tokens`: of each answer.
    - `at_once`: how many conversations, each with a short prompt. `turns`: of the conversation that goes on; 0: none.
    - `beside`: tokens of the prompt beside which small requests are sent; 0: none.
    - `only`: names of the pieces that are measured (`pieces`), if not all of them.
    """

    lengths: tuple[int, ...] = (100, 512, 2048, 4096, 7900)
    tokens: int = 64
    at_once: tuple[int, ...] = (1, 2, 4, 8)
    turns: int = 10
    beside: int = 7900
    rounds: int = 3
    only: tuple[str, ...] = ()

    def pieces(self) -> list[str]:
        """Return the names of the pieces that there are, in their order."""
        return list(_all_works(self, Prompts()))


FULL_PLAN = ComparisonPlan()
QUICK_PLAN = ComparisonPlan(lengths=(100, 512, 2048), tokens=32, at_once=(4,), turns=4, beside=2048, rounds=2)


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

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://{self.child.host}:{self.child.port}"

    async def ask(self, messages: Sequence[Mapping[str, str]], tokens: int) -> TimedAnswer:
        """Ask for an answer."""
        return await ask(self.session, self.url, messages, model=MODEL, tokens=tokens)

    async def probe(self, path: str, body: bytes | None) -> float:
        """Send a small request; return the seconds to the first byte of its answer's body."""
        headers = {} if body is None else {"content-type": "application/json"}
        began_at = perf_counter()
        method = "GET" if body is None else "POST"
        async with self.session.request(method, self.url + path, data=body, headers=headers) as reply:
            reply.raise_for_status()
            await reply.content.readany()
            took_s = perf_counter() - began_at
            await reply.read()
        return took_s


class Prompts:
    """Makes messages of so many tokens, each of which begins as no other does."""

    def __init__(self) -> None:
        self._token_characters = _TOKEN_CHARACTERS

    def learn(self, answered: Sequence[tuple[Mapping[str, str], int]]) -> None:
        """Take in how many tokens the prompts of two messages had; what the template adds is the same in both."""
        (short, few), (long, many) = answered
        self._token_characters = (len(long["content"]) - len(short["content"])) / (many - few)

    def message(self, length: int, name: str) -> dict[str, str]:
        """Return a message of about so many tokens. It begins with its name, so nothing of it was read under another.

        The rest is the same text for all: another one may have a twentieth more tokens in as many characters.
        """
        prose, text = ProseWriter(0), f"{name}: "
        size = int(self._token_characters * length) - len(_QUESTION)
        while len(text) < size:
            text += prose.sentence() + " "
        return {"role": "user", "content": text[: max(size, 0)] + _QUESTION}


async def measure(
    file: Path,
    plan: ComparisonPlan,
    *,
    threads: int,
    template: Path | None = None,
    batch_invariant: bool = False,
    console: Console | None = None,
) -> BenchReport:
    """Compare the two servers on a model file; `template` is a chat template to use instead of its own."""
    specs = _specs(file, plan, threads=threads, template=template, batch_invariant=batch_invariant)
    prompts = Prompts()
    works = _works(plan, prompts)
    found: dict[str, dict[str, list[Speed]]] = {OURS: {}, THEIRS: {}}
    memory: dict[str, list[float]] = {OURS: [], THEIRS: []}
    with Progress(console=console, transient=True, disable=console is None) as progress:
        shown = progress.add_task("both servers", total=plan.rounds * len(works))
        for number in range(1, plan.rounds + 1):
            async with _launched(specs, turned=number % 2 == 0) as servers:
                await _warm_up(servers, prompts, plan.tokens)
                for work in works:
                    await _both(servers, work, number, found)
                    progress.advance(shown)
                for server in servers:
                    memory[server.name].append(((await server.child.settled()).rss_bytes or 0) / _MIB)
    settings = {**msgspec.structs.asdict(plan), "model": file.stem, "threads": threads, "against": THEIRS}
    settings |= {"batch_invariant": batch_invariant, "cells": 2 * _CONTEXT}
    settings["llama.cpp"] = dict(zip((OURS, THEIRS), llama_cpp_builds(), strict=True))
    figures = [
        *_figures(found),
        *(figure(f"memory, {name}", used, "MiB") for name, used in memory.items()),
    ]
    return make_report([], settings, figures)


def _specs(
    file: Path, plan: ComparisonPlan, *, threads: int, template: Path | None, batch_invariant: bool
) -> dict[str, ModelServer]:
    """Return the two servers, with as much of everything."""
    written = None if template is None else str(template)
    cells, parallel = 2 * _CONTEXT, max(plan.at_once, default=1)
    return {
        OURS: EngineServerSpec(
            file=str(file),
            context=_CONTEXT,
            cells=cells,
            parallel=parallel,
            threads=threads,
            template=written,
            batch_invariant=batch_invariant,
        ),
        THEIRS: LlamaServerSpec(file=str(file), cells=cells, parallel=parallel, threads=threads, template=written),
    }


@asynccontextmanager
async def _launched(specs: Mapping[str, ModelServer], *, turned: bool) -> AsyncIterator[list[Server]]:
    """Run both servers around a block; the second one first if they are `turned`."""
    async with AsyncExitStack() as stack:
        # a connection for each request: llama.cpp's server closes one that rests while the other server works
        connector, timeout = aiohttp.TCPConnector(limit=0, force_close=True), aiohttp.ClientTimeout(total=_TIMEOUT_S)
        session = await stack.enter_async_context(aiohttp.ClientSession(connector=connector, timeout=timeout))
        servers = [
            Server(name, await stack.enter_async_context(launched(spec, _MODULE)), session)
            for name, spec in specs.items()
        ]
        yield servers[::-1] if turned else servers


async def _both(servers: list[Server], work: Work, number: int, found: dict[str, dict[str, list[Speed]]]) -> None:
    """Let both do a piece of work; who was first is second the next time."""
    for server in servers:
        for speed in await work(server, number):
            found[server.name].setdefault(speed.name, []).append(speed)
    servers.reverse()


async def _warm_up(servers: Sequence[Server], prompts: Prompts, tokens: int) -> None:
    """Let each server do two pieces of work that do not count, and learn how long a token is."""
    messages = [prompts.message(length, "0") for length in _WARM_UP_LENGTHS]
    for server in servers:
        prompts.learn([(one, (await server.ask([one], tokens)).prompt_tokens) for one in messages])


def _works(plan: ComparisonPlan, prompts: Prompts) -> list[Work]:
    return [work for name, work in _all_works(plan, prompts).items() if not plan.only or name in plan.only]


def _all_works(plan: ComparisonPlan, prompts: Prompts) -> dict[str, Work]:
    works = {f"prompt-{length}": _prompt_work(prompts, length, plan.tokens) for length in plan.lengths}
    works |= {f"at-once-{count}": _at_once_work(prompts, count, plan.tokens) for count in plan.at_once}
    works |= {"turns": _conversation_work(prompts, plan.turns, plan.tokens)} if plan.turns else {}
    return works | ({"beside": _beside_work(prompts, plan.beside)} if plan.beside else {})


def _prompt_work(prompts: Prompts, length: int, tokens: int) -> Work:
    """A prompt that nobody has seen, and the answer to it."""

    async def work(server: Server, number: int) -> list[Speed]:
        answer = await server.ask([prompts.message(length, f"{length} tokens, round {number}")], tokens)
        speeds = [Speed(f"first token, {length} tokens", answer.first_token_s, "s", "less")]
        if answer.tokens_s is not None:
            speeds.append(Speed(f"writing behind {length} tokens", answer.tokens_s, "tokens/s", "more"))
        return speeds

    return work


def _at_once_work(prompts: Prompts, count: int, tokens: int) -> Work:
    """Conversations that begin at the same time."""

    async def work(server: Server, number: int) -> list[Speed]:
        began_at = perf_counter()
        names = [f"{each + 1} of {count} at once, round {number}" for each in range(count)]
        asked = [server.ask([prompts.message(100, name)], tokens) for name in names]
        answers = await asyncio.gather(*asked)
        written = sum(answer.output_tokens for answer in answers)
        return [Speed(f"{count} at once", written / (perf_counter() - began_at), "tokens/s", "more")]

    return work


def _conversation_work(prompts: Prompts, turns: int, tokens: int) -> Work:
    """A conversation whose every turn sends all that was said."""

    async def work(server: Server, number: int) -> list[Speed]:
        messages = [prompts.message(100, f"conversation {number}")]
        began_at = perf_counter()
        answers: list[TimedAnswer] = []
        for _ in range(turns):
            answer = await server.ask(messages, tokens)
            answers.append(answer)
            messages += [
                {"role": "assistant", "content": answer.text},
                {"role": "user", "content": _FOLLOW_UP},
            ]
        written = sum(answer.output_tokens for answer in answers)
        speeds = [Speed(f"{turns} turns", written / (perf_counter() - began_at), "tokens/s", "more")]
        later = [answer.first_token_s for answer in answers[1:]]
        return [*speeds, *([Speed("first token, a turn that goes on", median(later), "s", "less")] if later else [])]

    return work


def _beside_work(prompts: Prompts, length: int) -> Work:
    """Small requests, one after the other, while a prompt is read that nobody has seen."""

    async def work(server: Server, number: int) -> list[Speed]:
        took: dict[str, list[float]] = {name: [] for name in PROBES[server.name]}
        async with asyncio.TaskGroup() as group:
            reading = group.create_task(
                server.ask([prompts.message(length, f"prompt {number} beside which others ask")], 1)
            )
            while not reading.done():
                for name, (path, body) in PROBES[server.name].items():
                    took[name].append(1e3 * await server.probe(path, body))
                    await asyncio.sleep(_PROBE_PAUSE_S)
        return [
            Speed(f"{name} beside {length} tokens, {part}", _percentile(times, share), "ms", "less")
            for name, times in took.items()
            for part, share in (("p50", 0.5), ("p99", 0.99))
        ]

    return work


def _percentile(times: Sequence[float], share: float) -> float:
    """Return the time within which so large a part of the requests was answered."""
    return sorted(times)[min(len(times) - 1, int(share * len(times)))]


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
