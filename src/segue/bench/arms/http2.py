"""A measured wire that speaks HTTP/2: an agent and a server of HTTP/1.1, and all requests on one connection between.

    agent ── HTTP/1.1 ──► near end ══ HTTP/2 over TLS, over the link ══► far end ── HTTP/1.1 ──► server

Each request is a stream (RFC 9113, 5), whatever connection of the agent it came on. Head lines are compressed by HPACK
(RFC 7541); bodies go as they are, and a reply piece by piece as it comes. The bytes are counted at the near end, as
`coded_wire` counts them; setting up is TCP, TLS, and the connection preface. It needs h2 (extra `bench`). Not here:
WebSockets, which this wire refuses, and the arms that use it (`agent_paths`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import h11
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    RequestReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    WindowUpdated,
)
from h2.exceptions import ProtocolError

from segue.bench.arms.coded_wire import (
    CarriedBytes,
    CodedWire,
    Coding,
    PlainCoding,
    SetUp,
    connected,
    listening,
    write_open,
)
from segue.bench.arms.tls_coding import TlsCoding, tls_contexts
from segue.testing.link import LinkProfile, linked

_READ_BYTES = 256 * 1024
#: What each side lets the other send ahead, for a stream and for all: as much as browsers do.
WINDOW_BYTES = 8 * 1024 * 1024
#: What belongs to one connection of HTTP/1.1 and is left out (RFC 9113, 8.2.2).
_HOP_LINES = frozenset({b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"})

Headers = list[tuple[bytes, bytes]]


class WireClosedError(ConnectionError):
    """The connection of the wire is over, and so is every stream on it."""


class _Http2Stream:
    """One request and its reply: what came of the other side, in order."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.events: asyncio.Queue[Event | None] = asyncio.Queue()
        self.window = asyncio.Event()

    async def take(self) -> Event:
        """Return the next event.

        Raises:
            WireClosedError: the wire has closed, or the other side gave the stream up.
        """
        event = await self.events.get()
        if event is None or isinstance(event, StreamReset):
            raise WireClosedError("the stream was cut")
        return event


class _Http2Side:
    """One side of the connection: it reads, sorts events by stream, and sends within the other side's windows."""

    def __init__(
        self,
        coding: Coding,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        client_side: bool,
        count: Callable[[int, int], None] = lambda _up, _down: None,
    ) -> None:
        config = H2Configuration(client_side=client_side, header_encoding=False)
        self._http2 = H2Connection(config)
        self._coding = coding
        self._reader = reader
        self._writer = writer
        self._count = count
        self._early = b""
        self._streams: dict[int, _Http2Stream] = {}
        self.closed = False

    async def shake(self) -> None:
        """Do the handshake of the coding, and send the preface with our settings."""
        self._write(self._coding.open())
        while not self._coding.ready:
            data = await self._receive()
            plain, reply = self._coding.decode(data)
            self._early += plain
            self._write(reply)
        self._http2.initiate_connection()
        self._http2.increment_flow_control_window(WINDOW_BYTES)
        self._http2.update_settings({4: WINDOW_BYTES})  # SETTINGS_INITIAL_WINDOW_SIZE: RFC 9113, 6.5.2
        self.flush()

    async def read(self, on_request: Callable[[_Http2Stream, Headers], None] | None = None) -> None:
        """Read until the connection ends; then every stream ends."""
        try:
            with suppress(OSError, ProtocolError):  # it broke, and every stream is told so
                self._take(self._early, on_request)
                while not self.closed:
                    self.flush()
                    await self._writer.drain()
                    plain, reply = self._coding.decode(await self._receive())
                    self._write(reply)
                    self._take(plain, on_request)
        finally:
            self.closed = True
            for stream in self._streams.values():
                stream.events.put_nowait(None)
                stream.window.set()

    def open(self, headers: Headers) -> _Http2Stream:
        """Begin a request."""
        stream = _Http2Stream(self._http2.get_next_available_stream_id())
        self._streams[stream.number] = stream
        self._http2.send_headers(stream.number, headers)
        return stream

    def answer(self, stream: _Http2Stream, headers: Headers) -> None:
        """Begin a reply."""
        self._http2.send_headers(stream.number, headers)
        self.flush()

    async def send(self, stream: _Http2Stream, data: bytes) -> None:
        """Send a piece of a body, as the windows allow."""
        while data:
            if self.closed:
                raise WireClosedError("the wire is closed")
            room = min(
                self._http2.local_flow_control_window(stream.number), self._http2.max_outbound_frame_size, len(data)
            )
            if room <= 0:
                self.flush()
                stream.window.clear()
                await stream.window.wait()
                continue
            self._http2.send_data(stream.number, data[:room])
            data = data[room:]
        self.flush()
        await self._writer.drain()

    def end(self, stream: _Http2Stream) -> None:
        """End a body."""
        self._http2.end_stream(stream.number)
        self.flush()

    def passed_on(self, stream: _Http2Stream, data: DataReceived) -> None:
        """Let the other side send more: a piece of a body has left."""
        if not self.closed:
            with suppress(ProtocolError):  # the stream is over, and so is its window
                self._http2.acknowledge_received_data(data.flow_controlled_length, stream.number)
            self.flush()

    def reset(self, stream: _Http2Stream) -> None:
        """Give a stream up."""
        if not self.closed:
            with suppress(ProtocolError):
                self._http2.reset_stream(stream.number, ErrorCodes.INTERNAL_ERROR)
            self.flush()

    def forget(self, stream: _Http2Stream) -> None:
        """Drop a stream that is over."""
        self._streams.pop(stream.number, None)

    def flush(self) -> None:
        """Write what is to be sent."""
        if data := self._http2.data_to_send():
            self._write(self._coding.encode(data))

    def _write(self, data: bytes) -> None:
        if data:
            self._count(len(data), 0)
            write_open(self._writer, data)

    async def _receive(self) -> bytes:
        data = await self._reader.read(_READ_BYTES)
        if not data:
            raise WireClosedError("the other side has closed the wire")
        self._count(0, len(data))
        return data

    def _take(self, plain: bytes, on_request: Callable[[_Http2Stream, Headers], None] | None) -> None:
        for event in self._http2.receive_data(plain) if plain else ():
            match event:
                case RequestReceived(stream_id=number, headers=headers) if on_request is not None:
                    stream = self._streams[number] = _Http2Stream(number)
                    on_request(stream, list(headers))
                case (
                    DataReceived(stream_id=number)
                    | ResponseReceived(stream_id=number)
                    | StreamEnded(stream_id=number)
                    | StreamReset(stream_id=number)
                ):
                    self._pass_on(number, event)
                case WindowUpdated():
                    for stream in self._streams.values():
                        stream.window.set()
                case ConnectionTerminated():
                    self.closed = True
                case _:
                    pass  # settings and pings are answered by the library

    def _pass_on(self, number: int, event: Event) -> None:
        if (stream := self._streams.get(number)) is not None:
            stream.events.put_nowait(event)


@asynccontextmanager
async def http2_wire(
    host: str, port: int, *, tls: bool = True, profile: LinkProfile | None = None
) -> AsyncIterator[CodedWire]:
    """Lead from a free port to `host:port` around a block, over HTTP/2."""
    contexts = tls_contexts(protocols=("h2",)) if tls else None
    carried = CarriedBytes()

    def coding(*, server_side: bool) -> Coding:
        if contexts is None:
            return PlainCoding()
        return TlsCoding(contexts.server if server_side else contexts.client, server_side=server_side)

    async with AsyncExitStack() as stack:
        far = _FarHttp2((host, port), lambda: coding(server_side=True))
        target = await stack.enter_async_context(listening(far.serve))
        if profile is not None:
            link = await stack.enter_async_context(linked(*target, profile))
            target = (link.host, link.port)
        near = await stack.enter_async_context(_near(target, lambda: coding(server_side=False), carried))
        yield CodedWire(*await stack.enter_async_context(listening(near.serve)), carried)


# --- the near end ----------------------------------------------------------------------------------------------------


@asynccontextmanager
async def _near(
    target: tuple[str, int], coding: Callable[[], Coding], carried: CarriedBytes
) -> AsyncIterator[_NearHttp2]:
    near = _NearHttp2(target, coding, carried)
    try:
        yield near
    finally:
        await near.aclose()


class _NearHttp2:
    """Takes the agent's requests; the first one opens the connection of the wire."""

    def __init__(self, target: tuple[str, int], coding: Callable[[], Coding], carried: CarriedBytes) -> None:
        self._target = target
        self._coding = coding
        self._carried = carried
        self._opening = asyncio.Lock()
        self._side: _Http2Side | None = None
        self._running: asyncio.Task[None] | None = None

    async def serve(self, agent: asyncio.StreamReader, to_agent: asyncio.StreamWriter) -> None:
        """Carry the requests of one connection of the agent, one after the other."""
        http1 = h11.Connection(h11.SERVER)
        while isinstance(request := await next_event(http1, agent), h11.Request):
            side = await self._wire()
            stream = side.open(_to_http2(request))
            try:
                await self._carry(http1, agent, to_agent, side, stream)
            except BaseException:
                side.reset(stream)
                raise
            finally:
                side.forget(stream)
            if http1.our_state is not h11.DONE or http1.their_state is not h11.DONE:
                return
            http1.start_next_cycle()

    async def aclose(self) -> None:
        """Close the wire."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)

    async def _carry(
        self,
        http1: h11.Connection,
        agent: asyncio.StreamReader,
        to_agent: asyncio.StreamWriter,
        side: _Http2Side,
        stream: _Http2Stream,
    ) -> None:
        while isinstance(piece := await next_event(http1, agent), h11.Data):
            await side.send(stream, bytes(piece.data))
        side.end(stream)
        head = await stream.take()
        assert isinstance(head, ResponseReceived), "a reply begins with its head"
        write_open(to_agent, http1.send(_response(head.headers or [])) or b"")
        while isinstance(data := await stream.take(), DataReceived):
            write_open(to_agent, http1.send(h11.Data(data=data.data)) or b"")
            await to_agent.drain()
            side.passed_on(stream, data)
        write_open(to_agent, http1.send(h11.EndOfMessage()) or b"")
        await to_agent.drain()

    async def _wire(self) -> _Http2Side:
        """Return the connection of the wire; open it if there is none."""
        async with self._opening:
            if self._side is None or self._side.closed:
                opened: asyncio.Future[_Http2Side] = asyncio.get_running_loop().create_future()
                self._running = asyncio.create_task(self._run(opened))
                self._side = await opened
            return self._side

    async def _run(self, opened: asyncio.Future[_Http2Side]) -> None:
        begun_at = time.perf_counter()
        up_bytes = down_bytes = 0
        over = False

        def count(up: int, down: int) -> None:
            nonlocal up_bytes, down_bytes
            if over:
                self._carried.up(up)
                self._carried.down(down)
            else:
                up_bytes, down_bytes = up_bytes + up, down_bytes + down

        try:
            async with connected(self._target) as (reader, writer):
                side = _Http2Side(self._coding(), reader, writer, client_side=True, count=count)
                await side.shake()
                over = True
                self._carried.set_ups.append(SetUp(up_bytes, down_bytes, time.perf_counter() - begun_at))
                opened.set_result(side)
                await side.read()
        except OSError as error:
            if not opened.done():
                opened.set_exception(error)


# --- the far end -----------------------------------------------------------------------------------------------------


class _FarHttp2:
    """Takes the streams of the wire, and asks the server for each of them over connections that it keeps."""

    def __init__(self, target: tuple[str, int], coding: Callable[[], Coding]) -> None:
        self._target = target
        self._coding = coding
        self._idle: list[_KeptConnection] = []

    async def serve(self, wire: asyncio.StreamReader, to_wire: asyncio.StreamWriter) -> None:
        """Carry the streams of one connection of the wire."""
        side = _Http2Side(self._coding(), wire, to_wire, client_side=False)
        running: set[asyncio.Task[None]] = set()

        def begin(stream: _Http2Stream, headers: Headers) -> None:
            task = asyncio.get_running_loop().create_task(self._carry(side, stream, headers))
            running.add(task)
            task.add_done_callback(running.discard)

        try:
            await side.shake()
            await side.read(begin)
        finally:
            for task in tuple(running):
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
            for kept in self._idle:
                kept.writer.transport.abort()

    async def _carry(self, side: _Http2Side, stream: _Http2Stream, headers: Headers) -> None:
        kept: _KeptConnection | None = None
        try:
            kept = self._idle.pop() if self._idle else await _KeptConnection.open(self._target)
            await self._ask(kept, side, stream, headers)
            self._keep(kept)
        except (OSError, h11.ProtocolError, ProtocolError):
            side.reset(stream)
            if kept is not None:
                kept.writer.transport.abort()
        finally:
            side.forget(stream)

    async def _ask(self, kept: _KeptConnection, side: _Http2Side, stream: _Http2Stream, headers: Headers) -> None:
        kept.send(_request(headers))
        while isinstance(piece := await stream.take(), DataReceived):
            kept.send(h11.Data(data=piece.data))
            await kept.writer.drain()
            side.passed_on(stream, piece)
        kept.send(h11.EndOfMessage())
        response = await next_event(kept.http1, kept.reader)
        if not isinstance(response, h11.Response):
            raise WireClosedError("the server gave no reply")
        lines = [(name, value) for name, value in response.headers if name not in _HOP_LINES]
        side.answer(stream, [(b":status", b"%d" % response.status_code), *lines])
        while isinstance(data := await next_event(kept.http1, kept.reader), h11.Data):
            await side.send(stream, bytes(data.data))
        side.end(stream)

    def _keep(self, kept: _KeptConnection) -> None:
        if kept.http1.our_state is h11.DONE and kept.http1.their_state is h11.DONE:
            kept.http1.start_next_cycle()
            self._idle.append(kept)
        else:
            kept.writer.close()


class _KeptConnection:
    """A connection to the server that can be used again."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.http1 = h11.Connection(h11.CLIENT)
        self.reader = reader
        self.writer = writer

    @classmethod
    async def open(cls, target: tuple[str, int]) -> _KeptConnection:
        """Connect."""
        return cls(*await asyncio.open_connection(*target, limit=_READ_BYTES))

    def send(self, event: h11.Event) -> None:
        """Write an event of HTTP/1.1."""
        write_open(self.writer, self.http1.send(event) or b"")


# --- between the two versions ----------------------------------------------------------------------------------------


async def next_event(http1: h11.Connection, reader: asyncio.StreamReader) -> h11.Event | type[h11.PAUSED]:
    """Return the next event of a connection of HTTP/1.1.

    Raises:
        WireClosedError: what came is no HTTP/1.1, or ends in the middle of a message.
    """
    try:
        while (event := http1.next_event()) is h11.NEED_DATA:
            http1.receive_data(await reader.read(_READ_BYTES))
    except h11.RemoteProtocolError as error:
        raise WireClosedError("what came is no whole message of HTTP/1.1") from error
    return event  # type: ignore[return-value]  # h11 says that it may be NEED_DATA, which the loop has ruled out


def _to_http2(request: h11.Request) -> Headers:
    """Write the head of a request for HTTP/2 (RFC 9113, 8.3.1)."""
    host = next((value for name, value in request.headers if name == b"host"), b"")
    lines = [(name, value) for name, value in request.headers if name not in _HOP_LINES and name != b"host"]
    named = [(b":method", request.method), (b":scheme", b"https"), (b":authority", host), (b":path", request.target)]
    return [*named, *lines]


def _request(headers: Iterable[tuple[bytes, bytes]]) -> h11.Request:
    """Write the head of a request for HTTP/1.1."""
    named = {name: value for name, value in headers if name.startswith(b":")}
    lines = [(name, value) for name, value in headers if not name.startswith(b":")]
    return h11.Request(
        method=named[b":method"], target=named[b":path"], headers=[(b"host", named[b":authority"]), *lines]
    )


def _response(headers: Iterable[tuple[bytes, bytes]]) -> h11.Response:
    """Write the head of a reply for HTTP/1.1."""
    status = next(value for name, value in headers if name == b":status")
    return h11.Response(status_code=int(status), headers=[line for line in headers if not line[0].startswith(b":")])
