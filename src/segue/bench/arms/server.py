"""The server under test of the gateway benchmark, in a process of its own, so that its CPU time is the server's alone.

`python -m segue.bench.arms.server SPEC` serves what SPEC (JSON) describes: the gateway with a scripted upstream, or a
bare aiohttp WebSocket server that decodes the same creates and sends the same events, recorded beforehand: no gateway
on this stack can cost less. The models are `burst` (all events at once), `ticked` (one delta per turn of the event
loop), `paced` (one per time step) and `stamped` (paced, and each delta is the clock at its making). It prints one
`Ready` line, then answers each line on stdin with a `ProcessUsage` line, and ends when stdin ends. Not here: starting
it (`child`) and measuring (`gateway`).
"""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing, suppress
from functools import partial
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import msgspec
from aiohttp import WSMsgType, web
from msgspec.structs import replace

from segue.bench.arms.providers import BareUpstream
from segue.config import Config, ProviderDialect, ServerConfig, UpstreamConfig
from segue.gateway.app import serving
from segue.gateway.bootstrap import build_router as build_configured
from segue.history.chains import History
from segue.protocol.events import Ended, OutputWriter
from segue.protocol.ids import ENTROPY_BYTES, new_response_id
from segue.protocol.items import user_message
from segue.protocol.requests import Settings
from segue.protocol.responses import encode_echo, usage
from segue.protocol.turns import TurnStream
from segue.upstreams.interface import Batch, UpstreamRequest
from segue.upstreams.router import ModelRule, Router
from segue.upstreams.scripted import ScriptedUpstream

BURST, TICKED, PACED, STAMPED = "burst", "ticked", "paced", "stamped"

#: With a provider there are more models: one for each of its dialects, and one that sends the history untranslated.
PROVIDED: tuple[ProviderDialect, ...] = ("chat", "messages", "responses")
BARE_HISTORY = "bare-history"
#: The upstreams that hold what they were sent, so that a turn which continues another is sent what is new.
THREADED, OVER_WEBSOCKET = "messages with threads", "responses over WebSocket"
CONTINUED = (THREADED, OVER_WEBSOCKET)

#: Where Linux says how much memory this process has.
MEMORY_FILE = Path("/proc/self/statm")

#: So short that it has passed at the next iteration of the event loop.
_TICK_S = 1e-9

#: Events of a turn besides its text deltas: two begin the turn, two open the message, three end it, one ends the turn.
FRAMING_EVENTS = 8


class ServerSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What to serve. `core` pins the process; `pace_s` is the time step of the paced models; `provider` is the base URL
    of a provider that speaks all dialects, and `socket_provider` that of one that speaks Responses over WebSockets.
    """

    kind: Literal["gateway", "bare"]
    store: str = "memory:"
    deltas: int
    delta_bytes: int
    stamps: int
    pace_s: float
    core: int | None = None
    provider: str | None = None
    socket_provider: str | None = None


class Ready(msgspec.Struct, frozen=True):
    """The server listens; `loop` is the event loop it runs on."""

    host: str
    port: int
    loop: str


class ProcessUsage(msgspec.Struct, frozen=True):
    """CPU time of all threads of the process, and its resident memory if the system reports it."""

    cpu_ns: int
    rss_bytes: int | None


class StampedUpstream:
    """An upstream whose deltas are timestamps of `time.perf_counter_ns()`, a clock that all processes share."""

    def __init__(self, deltas: int, pace_s: float) -> None:
        self._deltas = deltas
        self._pace_s = pace_s

    @property
    def models(self) -> Sequence[str]:
        """The name it answers to."""
        return (STAMPED,)

    async def start(self) -> None:
        """Nothing to do."""

    async def aclose(self) -> None:
        """Nothing to release."""

    async def stream(self, request: UpstreamRequest) -> AsyncGenerator[Batch, None]:
        """Yield one delta per step."""
        writer = OutputWriter(request.response_id)
        yield []
        for _ in range(self._deltas):
            await asyncio.sleep(self._pace_s)
            yield writer.text(str(time.perf_counter_ns()))
        yield [*writer.end_item(), Ended("completed", usage(1, self._deltas))]


# --- what is served --------------------------------------------------------------------------------------------------


@asynccontextmanager
async def serve_gateway(spec: ServerSpec) -> AsyncIterator[tuple[str, int]]:
    """Serve the gateway around a block; yields where it listens."""
    config = Config(server=ServerConfig(port=0, store=spec.store))
    async with serving(config, build_router(spec)) as (_, url):
        yield address_of(url)


def address_of(url: str) -> tuple[str, int]:
    """Return the host and the port of a URL that names both."""
    parts = urlsplit(url)
    assert parts.hostname is not None, "a URL of ours names its host"
    assert parts.port is not None, "a URL of ours names its port"
    return parts.hostname, parts.port


def build_router(spec: ServerSpec) -> Router:
    """Build the four models."""
    rules: list[ModelRule] = [
        ModelRule(ScriptedUpstream(deltas=spec.deltas, delta_bytes=spec.delta_bytes, pace_s=pace_s), (model,))
        for model, pace_s in _paces(spec).items()
    ]
    rules.append(ModelRule(StampedUpstream(spec.stamps, spec.pace_s), (STAMPED,)))
    if spec.provider is not None:
        rules.append(ModelRule(BareUpstream(spec.provider, "x" * spec.delta_bytes), (BARE_HISTORY,)))
        rules += provider_rules(spec.provider, spec.socket_provider)
    return Router(rules)


def provider_rules(base_url: str, socket_url: str | None = None) -> list[ModelRule]:
    """Build an upstream for each dialect, and those that hold what they were sent, as a configuration would."""
    plain = UpstreamConfig(name="", dialect="chat", models=[], base_url=base_url)
    ups = [replace(plain, name=name, dialect=name, models=[name]) for name in PROVIDED]
    ups.append(replace(plain, name="threads", dialect="messages", models=[THREADED], message_threads=True))
    if socket_url is not None:
        socket = {"dialect": "responses", "models": [OVER_WEBSOCKET], "base_url": socket_url, "transport": "websocket"}
        ups.append(replace(plain, name="sockets", **socket))
    return list(build_configured(Config(upstream=ups)).rules)


def _paces(spec: ServerSpec) -> dict[str, float]:
    """Return the seconds between the deltas of each model that does not stamp them."""
    return {BURST: 0.0, TICKED: _TICK_S, PACED: spec.pace_s}


@asynccontextmanager
async def serve_bare(spec: ServerSpec) -> AsyncIterator[tuple[str, int]]:
    """Serve the baseline around a block: the same bytes without a gateway's work."""
    app = web.Application()
    turns = {model: await _recorded(spec, model, pace_s) for model, pace_s in _paces(spec).items()}
    app.add_routes([web.get("/v1/responses", partial(_bare, turns, spec))])
    runner = web.AppRunner(app, access_log=None, handle_signals=False)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, backlog=1024).start()
        host, port = runner.addresses[0]
        yield host, port
    finally:
        await runner.cleanup()


class _BareCreate(msgspec.Struct):
    """The least that a server must decode of a create: the model and the items."""

    model: str
    input: list[dict[str, object]]
    previous_response_id: str | None = None


_creates = msgspec.json.Decoder(_BareCreate)


async def _bare(turns: dict[str, list[list[bytes]]], spec: ServerSpec, request: web.Request) -> web.StreamResponse:
    socket = web.WebSocketResponse(compress=False)
    await socket.prepare(request)
    paces = _paces(spec)
    async for message in socket:
        create = _creates.decode(message.data)
        if create.model == STAMPED:
            await _send_stamped(socket, turns[PACED], spec)
            continue
        for index, batch in enumerate(turns[create.model]):
            if index:
                await asyncio.sleep(paces[create.model])
            for event in batch:
                await socket.send_frame(event, WSMsgType.TEXT)
    return socket


async def _send_stamped(socket: web.WebSocketResponse, recorded: list[list[bytes]], spec: ServerSpec) -> None:
    head = b'{"type":"response.output_text.delta","item_id":"msg","output_index":0,"content_index":0,"delta":"%d"}'
    for event in recorded[0]:
        await socket.send_frame(event, WSMsgType.TEXT)
    for _ in range(spec.stamps):
        await asyncio.sleep(spec.pace_s)
        await socket.send_frame(head % time.perf_counter_ns(), WSMsgType.TEXT)
    await socket.send_frame(recorded[-1][-1], WSMsgType.TEXT)


async def _recorded(spec: ServerSpec, model: str, pace_s: float) -> list[list[bytes]]:
    """Record the events of one turn, batch by batch; the baseline sends them again for each turn."""
    upstream = ScriptedUpstream(deltas=spec.deltas, delta_bytes=spec.delta_bytes, pace_s=pace_s)
    settings = Settings(model=model)
    response_id = new_response_id(os.urandom(ENTROPY_BYTES))
    history = History(None, (user_message("Record this."),))
    stream = TurnStream(response_id, None, encode_echo(settings, store=False), time.time())
    waiting = [event.whole() for event in stream.open()]
    batches: list[list[bytes]] = []
    async for batch in upstream.stream(UpstreamRequest(settings.model, response_id, "local", history, settings)):
        waiting += [event.data for event in stream.feed(one for one in batch if not isinstance(one, Ended))]
        waiting += [stream.close(one, time.time()).terminal.whole() for one in batch if isinstance(one, Ended)]
        batches.append(waiting)
        waiting = []
    return batches


# --- the process -----------------------------------------------------------------------------------------------------


async def serve(serving_it: AbstractAsyncContextManager[tuple[str, int]]) -> None:
    """Serve until stdin ends, and answer each line of it with what the process has used."""
    loop = asyncio.get_running_loop()
    commands = asyncio.StreamReader()
    stdin, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    async with serving_it as (host, port):
        with closing(stdin), suppress(BrokenPipeError):  # whoever started this process may be gone
            _say(Ready(host, port, type(loop).__module__.partition(".")[0]))
            while command := await commands.readline():
                cpu_ns = time.process_time_ns()
                if command.strip() == b"settle":
                    gc.collect()
                _say(ProcessUsage(cpu_ns, _resident_bytes()))


def _say(line: Ready | ProcessUsage) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(line) + b"\n")
    sys.stdout.buffer.flush()


def _resident_bytes() -> int | None:
    try:
        pages = MEMORY_FILE.read_text(encoding="ascii").split()[1]
    except OSError:
        return None
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return the factory of the event loop: uvloop's where it is installed, as in production."""
    try:
        import uvloop  # noqa: PLC0415 - not there on every platform
    except ImportError:
        return None
    return uvloop.new_event_loop


def run_process(serving_it: AbstractAsyncContextManager[tuple[str, int]]) -> None:
    """Run the process: serve until stdin ends. `serving_it` yields the address."""
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(serve(serving_it))


def main() -> None:
    """Run what the command line specifies."""
    spec = msgspec.json.decode(sys.argv[1], type=ServerSpec)
    if spec.core is not None:
        os.sched_setaffinity(0, {spec.core})
    run_process(serve_gateway(spec) if spec.kind == "gateway" else serve_bare(spec))


if __name__ == "__main__":
    main()
