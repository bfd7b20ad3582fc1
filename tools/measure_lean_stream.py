"""Measures what comes down the wire: python -m tools.measure_lean_stream [--quick] [--json FILE]

A gateway in this process plays sessions with the instructions (21 KB) and tools (10 KB) of a coding agent. A client
asks for them whole, lean and as compact events, over HTTP and in WebSocket mode, with and without compression. Every
byte that TCP carries down to the client is counted, with heads and frames, and divided by the bytes of the turn's
finished items: what the model itself has said, as JSON. The words are generated prose, the encrypted reasoning is
random, so that it compresses no better than a real one. *Paced* is a model that says 60 tokens a second, each in a read
of its own; in a *burst*, everything is there at once. Not here: CPU and memory (`segue bench gateway`).
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from pathlib import Path
from statistics import fmean
from typing import Literal

import aiohttp
import msgspec

from segue.bench.meters.tcp import Meter, metered
from segue.bench.reports.report import BenchReport, Figure, make_report, write
from segue.bench.workloads.prose import ProseWriter
from segue.bench.workloads.toolsets import make_tools
from segue.cli.loop import run
from segue.config import Config, ServerConfig
from segue.dialects.output_writer import InterleavedOutputWriter
from segue.gateway.app import serving
from segue.http.content_decoding import ContentDecoder, decoder_for
from segue.http.event_coding import PRESET, preset_decoder
from segue.http.heads import Line
from segue.http.sse import SseReader
from segue.protocol.compact_events import CompactReader
from segue.protocol.events import Ended, Event
from segue.protocol.requests import StreamForm
from segue.protocol.responses import usage
from segue.testing.replies import Json
from segue.upstreams.interface import Batch, UpstreamRequest
from segue.upstreams.router import ModelRule, Router

#: Bytes received for each byte of the finished items.
BUDGET = 1.2
_TOKENS_S = 60
_TOKEN = 4  # characters
_TURNS = 12
#: How long after one another sessions begin that are paced: their pieces must not all be due at once.
_APART_S = 0.03

Pace = Literal["burst", "paced"]
Way = Literal["http", "http gzip", "http segue-1", "websocket", "websocket deflate"]
FORMS: tuple[StreamForm, ...] = ("compact", "lean", "whole")
WAYS: tuple[Way, ...] = ("websocket deflate", "http segue-1", "http gzip", "websocket", "http")
_CODINGS: dict[Way, str] = {"http": "identity", "http gzip": "gzip", "http segue-1": "segue-1, gzip"}


# --- the model -------------------------------------------------------------------------------------------------------


def _pieces(text: str) -> Iterator[str]:
    return (text[at : at + _TOKEN] for at in range(0, len(text), _TOKEN))


class _Turn:
    """One turn of the model, each of its tokens with its events."""

    def __init__(self, request: UpstreamRequest, prose: ProseWriter) -> None:
        self._writer = InterleavedOutputWriter(request.response_id)
        self._prose = prose
        self.reads: list[list[Event]] = []

    def say(self, size: int) -> None:
        """Say something to the user."""
        self.reads += [self._writer.text(piece) for piece in _pieces(self._prose.prompt(size))]

    def think(self) -> None:
        """Reason, with a summary and 2 KB that only the provider can read."""
        self.reads += [self._writer.reasoning(piece) for piece in _pieces(self._prose.sentence())]
        self.reads.append(self._writer.seal(self._prose.secret(2048)))

    def call(self, arguments: Json) -> None:
        """Call a tool."""
        self.reads.append(self._writer.start_call(0, f"call_{self._prose.hexadecimal(24)}", self._prose.name()))
        text = msgspec.json.encode(arguments).decode()
        self.reads += [self._writer.arguments(0, piece) for piece in _pieces(text)]

    def run_command(self) -> None:
        """Call the tool that runs a command, as most turns of an agent do."""
        command = f"python -m pytest -q {self._prose.path()} 2>&1 | tail -40"
        self.call({"command": ["bash", "-lc", command], "workdir": self._prose.folder, "timeout_ms": 120000})

    def write_file(self) -> None:
        """Call the tool that writes a file."""
        self.call({"path": f"{self._prose.folder}/{self._prose.path()}", "content": self._prose.source(3000)})

    def end(self) -> list[Event]:
        """Return the last events."""
        return self._writer.end()


def _think_and_call(turn: _Turn) -> None:
    turn.think()
    turn.run_command()


def _announce_and_call(turn: _Turn) -> None:
    turn.say(120)
    turn.run_command()


SHAPES: dict[str, Callable[[_Turn], None]] = {
    "tool call": _Turn.run_command,
    "call that writes a file": _Turn.write_file,
    "short text": lambda turn: turn.say(200),
    "long text": lambda turn: turn.say(2000),
    "reasoning and tool call": _think_and_call,
    "text and tool call": _announce_and_call,
}

#: What an agent's session consists of.
SESSION = (
    *("reasoning and tool call", "tool call", "text and tool call", "reasoning and tool call", "tool call"),
    *("call that writes a file", "tool call", "reasoning and tool call", "text and tool call", "tool call"),
    *("tool call", "long text"),
)


class _Model:
    """A model whose name says what it does: the shape of its turns, and their pace."""

    models = ("*",)

    def __init__(self) -> None:
        self._turns: dict[str, int] = {}

    async def start(self) -> None:
        """Nothing to do."""

    async def aclose(self) -> None:
        """Nothing to release."""

    async def stream(self, request: UpstreamRequest) -> AsyncGenerator[Batch, None]:
        """Play a turn; every session gets the same words."""
        _, shape, pace = request.model.split("/")
        number = self._turns[request.model] = self._turns.get(request.model, -1) + 1
        turn = _Turn(request, ProseWriter(f"{shape}:{number}"))
        SHAPES[SESSION[number % len(SESSION)] if shape == "session" else shape](turn)
        counted = usage(9000 + 400 * number, len(turn.reads), cached=8800 + 400 * number)
        last: list[Event | Ended] = [*turn.end(), Ended("completed", counted)]
        reads: list[Batch] = [*turn.reads, last]
        if pace == "burst":
            yield [event for read in reads for event in read]
            return
        loop = asyncio.get_running_loop()
        begun = loop.time()
        for number, read in enumerate(reads, 1):  # by the clock, so that a busy machine makes no slower model
            await asyncio.sleep(begun + number / _TOKENS_S - loop.time())
            yield read


# --- the client ------------------------------------------------------------------------------------------------------


class _Item(msgspec.Struct):
    """An event, as far as it is measured."""

    type: str
    item: msgspec.Raw = msgspec.Raw(b"")
    response: dict[str, msgspec.Raw] = {}


_decode = msgspec.json.Decoder(_Item).decode


class TurnSize(msgspec.Struct, frozen=True):
    """What came down in one turn."""

    events: int
    item_bytes: int
    wire_bytes: int


class _Client:
    """One session of one shape, lean or whole."""

    def __init__(self, http: aiohttp.ClientSession, meter: Meter, model: str, *, form: StreamForm) -> None:
        prose = ProseWriter("prompt")
        tools = [
            {"type": "function", "name": tool["name"], "description": tool["description"], "parameters": tool["schema"]}
            for tool in make_tools(prose, 10, 10_000)
        ]
        self._create: Json = {"model": model, "instructions": prose.prompt(21_000), "tools": tools, "input": "go on"}
        self._create["include"] = ["reasoning.encrypted_content"]
        if form != "whole":
            self._create["segue"] = {"lean": form == "lean" or form}
        self._http = http
        self._meter = meter
        self._events: list[_Item] = []
        self._reader = CompactReader()

    async def session(self, way: Way, turns: int) -> list[TurnSize]:
        """Run a session and return the sizes of its turns, without the handshake of a WebSocket."""
        if way in _CODINGS:
            return [await self._post({"Accept-Encoding": _CODINGS[way]}) for _ in range(turns)]
        url, window = f"{self._meter.url}/v1/responses", 15 if way == "websocket deflate" else 0
        async with self._http.ws_connect(url, compress=window, max_msg_size=0) as socket:
            self._meter.take()
            return [await self._ask(socket) for _ in range(turns)]

    async def _post(self, headers: dict[str, str]) -> TurnSize:
        body = {**self._create, "stream": True}
        async with self._http.post(f"{self._meter.url}/v1/responses", json=body, headers=headers) as reply:
            reader, decoder = SseReader(), _decoder_of(reply.headers.get("Content-Encoding", "identity"))
            async for data in reply.content.iter_any():
                for event in reader.feed(data if decoder is None else _decoded(decoder, data)):
                    if event.data != b"[DONE]":
                        self._take(event.data)
        return self._size()

    async def _ask(self, socket: aiohttp.ClientWebSocketResponse) -> TurnSize:
        await socket.send_json({"type": "response.create", "store": False, **self._create})
        while not self._events or self._events[-1].type != "response.completed":
            self._take((await socket.receive_str()).encode())
        return self._size()

    def _take(self, data: bytes) -> None:
        event = self._reader.event(data)
        assert event is not None, "all events have come"
        self._events.append(_decode(event))

    def _size(self) -> TurnSize:
        """Count the turn, and continue it with the next one."""
        events, self._events, self._reader = self._events, [], CompactReader()
        self._create["previous_response_id"] = msgspec.json.decode(events[-1].response["id"])
        items = sum(len(event.item) for event in events if event.type == "response.output_item.done")
        return TurnSize(len(events), items, self._meter.take().down_bytes)


def _decoder_of(coding: str) -> ContentDecoder | None:
    return preset_decoder() if coding == PRESET else decoder_for((Line(b"Content-Encoding", coding.encode()),))


def _decoded(decoder: ContentDecoder, data: bytes) -> bytes:
    decoder.feed(data)
    return b"".join(iter(decoder.read, b""))


# --- measuring -------------------------------------------------------------------------------------------------------


class LeanArm(msgspec.Struct, frozen=True):
    """One session: of which turns, how paced, on which way, and in which form."""

    shape: str
    pace: Pace
    way: Way
    form: StreamForm

    @property
    def name(self) -> str:
        """The arm as the report names it."""
        return f"{self.shape}, {self.pace}, {self.way}, {self.form}"


def arms(*, quick: bool) -> list[LeanArm]:
    """Return what is measured; quickly, only what comes in a burst."""
    paces: tuple[Pace, ...] = ("burst",) if quick else ("burst", "paced")
    shapes = (*SHAPES, "session")
    return [LeanArm(shape, pace, way, form) for shape in shapes for pace in paces for way in WAYS for form in FORMS]


async def _run(host: str, port: int, arm: LeanArm, *, number: int, turns: int) -> list[TurnSize]:
    model = f"{number}/{arm.shape}/{arm.pace}"
    if arm.pace == "paced":
        await asyncio.sleep(number * _APART_S)
    async with metered(host, port) as meter, aiohttp.ClientSession(auto_decompress=False) as http:
        return await _Client(http, meter, model, form=arm.form).session(arm.way, turns)


async def measure(chosen: Sequence[LeanArm], turns: int = _TURNS) -> BenchReport:
    """Run sessions: those in a burst first, so that they do not disturb the pace of the others."""
    config = Config(server=ServerConfig(port=0, store="memory:", compression=True))
    async with serving(config, Router([ModelRule(_Model(), ("*",))])) as (_, url):
        host, port = url.removeprefix("http://").split(":")
        sizes: dict[LeanArm, list[TurnSize]] = {}
        for pace in ("burst", "paced"):
            arms_now = [arm for arm in chosen if arm.pace == pace]
            runs = [_run(host, int(port), arm, number=number, turns=turns) for number, arm in enumerate(arms_now)]
            sizes |= zip(arms_now, await asyncio.gather(*runs), strict=True)
    figures = [one for arm in chosen for one in _figures(arm, sizes[arm])]
    settings = {"turns": turns, "tokens_s": _TOKENS_S, "instructions_bytes": 21_000, "tools_bytes": 10_000}
    return make_report([], settings, figures)


def _figures(arm: LeanArm, turns: Sequence[TurnSize]) -> Iterator[Figure]:
    """Return the ratio over the session with the spread of its turns, and the bytes of a turn."""
    ratios = [turn.wire_bytes / turn.item_bytes for turn in turns]
    whole = sum(turn.wire_bytes for turn in turns) / sum(turn.item_bytes for turn in turns)
    judged = arm.form == "compact"
    yield Figure(
        name=f"received / said: {arm.name}",
        value=whole,
        unit="x",
        low=min(ratios),
        high=max(ratios),
        budget=BUDGET if judged else None,
        met=whole <= BUDGET if judged else None,
    )
    yield Figure(name=f"bytes received a turn: {arm.name}", value=fmean(turn.wire_bytes for turn in turns), unit="B")
    yield Figure(name=f"events a turn: {arm.name}", value=fmean(turn.events for turn in turns), unit="events")


def main(arguments: Sequence[str]) -> int:
    """Measure, print a table, and write the report if asked for; returns the exit status."""
    rest = [one for one in arguments if one != "--quick"]
    if rest and (len(rest) != len(("--json", "FILE")) or rest[0] != "--json"):
        print("usage: measure_lean_stream.py [--quick] [--json FILE]")
        return 2
    report = run(measure(arms(quick="--quick" in arguments)))
    for one in report.figures:
        verdict = "" if one.met is None else ", as it should be" if one.met else f", more than {one.budget}"
        print(f"{one.name}: {one.value:.2f} {one.unit}{verdict}")
    if rest:
        write(report, Path(rest[1]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
