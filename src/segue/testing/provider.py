"""A scripted model provider for tests and benchmarks. It answers as the script says and keeps each request's bytes.

    script = replying(session)                           the reply that belongs to the body; others get 400
    script = in_order(replies, streamed=True)            one reply after the other, whatever the request
    script = lambda request: Answer(status=401, pieces=(b'{"error":…}',))
    async with provided(script) as provider:
        ...send to provider.url...
        provider.requests[0].raw_head, .body             the bytes that came on the socket
        await provider.seen(3)                           wait until three whole requests have come
        await provider.abandoned(0)                      wait until the client of that request has hung up

An `Answer` has the pieces of the body, their pace and framing, gates to wait at (to hang, use an event that is never
set), and a cut after so many bytes. `msgspec.structs.replace(answer, cut_after=100)` changes one. A script answers
upgrades to WebSocket too: status 101 accepts, and then `message_script` answers each message. This module uses none of
segue's own HTTP and stream code, since that is the code under test; wsproto does the WebSocket framing.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import socket
import struct
import zlib
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from ssl import SSLContext
from typing import Literal, cast

import msgspec
from msgspec.structs import replace
from wsproto.connection import Connection as SocketConnection
from wsproto.connection import ConnectionState, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Message, Ping, TextMessage

from segue.http.heads import Line, values
from segue.listening import stop_listening
from segue.testing.recorded_session import RecordedSession
from segue.testing.replies import ProviderReply

_END_OF_HEAD = b"\r\n\r\n"
_ACCEPT = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, 1.3
_RESET = struct.pack("ii", 1, 0)
_SWITCHING = 101
_CHUNK_AND_END = 2

Framing = Literal["chunked", "length", "close"]


class ReceivedRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request as it came. `raw_head` includes the empty line at its end; `raw_body` includes the chunk framing."""

    number: int
    connection: int
    raw_head: bytes
    raw_body: bytes
    body: bytes | None

    @property
    def method(self) -> bytes:
        """The method."""
        return self.raw_head.split(b" ", 1)[0]

    @property
    def target(self) -> bytes:
        """The target, byte for byte."""
        return self.raw_head.split(b" ", 2)[1]

    @property
    def lines(self) -> tuple[Line, ...]:
        """All head lines, in order."""
        return tuple(_line(raw) for raw in self.raw_head[: -len(_END_OF_HEAD)].split(b"\r\n")[1:])

    @property
    def upgrades(self) -> bool:
        """Tell whether it asks for a WebSocket."""
        return any(value.lower() == b"websocket" for value in values(self.lines, b"upgrade"))


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """How to answer a request. The pieces are sent one by one and make up the body."""

    status: int = 200
    reason: bytes = b"OK"
    lines: tuple[Line, ...] = ()
    pieces: tuple[bytes, ...] = ()
    framing: Framing = "chunked"
    before: asyncio.Event | None = None
    """Wait for this event before sending the head."""
    gates: Mapping[int, asyncio.Event] = {}
    """Wait for an event before the piece with this number; with a number past the last piece, before the end."""
    delay_s: float = 0.0
    """Seconds before the head, as if a model were thinking."""
    pace_s: float = 0.0
    """Seconds between pieces; 0 joins pieces into one write where no gate is between them."""
    cut_after: int | None = None
    """Reset the connection after so many bytes of the body (0: after the head)."""
    cut_before_head: bool = False
    """Reset the connection instead of answering."""
    keeps_alive: bool = True


class SocketMessage(msgspec.Struct, frozen=True, kw_only=True):
    """A WebSocket message as it came; `request` is the number of the upgrade."""

    number: int
    request: int
    data: bytes
    text: bool


class SocketAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """How to answer a message: with text messages, then a close if there is a code, or a reset after so many."""

    messages: tuple[bytes, ...] = ()
    pace_s: float = 0.0
    gates: Mapping[int, asyncio.Event] = {}
    close_code: int | None = None
    close_reason: str = ""
    cut_after: int | None = None


Script = Callable[[ReceivedRequest], Answer]
MessageScript = Callable[[SocketMessage], SocketAnswer]


class UnexpectedError(RuntimeError):
    """The script has no answer to a request."""


# --- scripts ---------------------------------------------------------------------------------------------------------


def answer_with(reply: ProviderReply, *, streamed: bool) -> Answer:
    """Answer with a reply: event by event, or whole with a Content-Length."""
    lines = reply.head_lines(streamed=streamed)
    if streamed:
        return Answer(lines=lines, pieces=reply.events)
    return Answer(lines=lines, pieces=(reply.whole,), framing="length")


def replying(*sessions: RecordedSession, pace_s: float = 0.0) -> Script:
    """Answer each request of the sessions with its reply, found by the body; upgrades are accepted."""
    known: dict[bytes, Answer] = {}
    for session in sessions:
        for turn in session.turns:
            answer = answer_with(turn.reply, streamed=session.streamed)
            known[turn.body] = replace(answer, pace_s=pace_s)

    def script(request: ReceivedRequest) -> Answer:
        if request.upgrades:
            return ACCEPTED
        answer = known.get(request.body or b"")
        if answer is None:
            return Answer(status=400, reason=b"Bad Request", pieces=(b'{"error":"not in the session"}',))
        return answer

    return script


def replying_to_messages(*sessions: RecordedSession, pace_s: float = 0.0) -> MessageScript:
    """Answer each message of WebSocket sessions with the events of its reply."""
    known = {turn.body: turn.reply for session in sessions for turn in session.turns}

    def script(message: SocketMessage) -> SocketAnswer:
        reply = known.get(message.data)
        if reply is None:
            return SocketAnswer(messages=(b'{"type":"error","error":{"code":"not_in_the_session"}}',))
        return SocketAnswer(messages=reply.messages, pace_s=pace_s)

    return script


def in_order(replies: Iterable[ProviderReply], *, streamed: bool) -> Script:
    """Answer with one reply after the other."""
    left = iter(tuple(replies))

    def script(request: ReceivedRequest) -> Answer:
        reply = next(left, None)
        if reply is None:
            raise UnexpectedError(f"request {request.number} is one too many: {request.raw_head!r}")
        return answer_with(reply, streamed=streamed)

    return script


def gzipped(answer: Answer) -> Answer:
    """Encode an answer with gzip and flush after each piece, as providers do for a client that accepts gzip."""
    packer = zlib.compressobj(wbits=31)
    packed = [packer.compress(piece) + packer.flush(zlib.Z_SYNC_FLUSH) for piece in answer.pieces]
    encoded = Line(b"Content-Encoding", b"gzip")
    return replace(answer, lines=(*answer.lines, encoded), pieces=(*packed, packer.flush()))


#: Accepts an upgrade.
ACCEPTED = Answer(status=_SWITCHING, reason=b"Switching Protocols")

_NO_MESSAGES = SocketAnswer()


# --- the provider ----------------------------------------------------------------------------------------------------


class ScriptedProvider:
    """The running provider: its address, and what has come in, in order."""

    def __init__(self, script: Script, message_script: MessageScript | None) -> None:
        self.script = script
        self.message_script = message_script
        self.host = "127.0.0.1"
        self.port = 0
        self.requests: list[ReceivedRequest] = []
        self.messages: list[SocketMessage] = []
        self.connections = 0
        self.hung_up: set[int] = set()
        """Numbers of the requests whose client hung up before the answer was complete."""
        self.spoken: set[int] = set()
        """Numbers of the requests whose answer was written to its last piece: only the end of the body may follow."""
        self.answered: set[int] = set()
        """Numbers of the requests whose answer was written to the end."""
        self.failures: list[BaseException] = []
        """The exceptions that the scripts raised."""
        self._changed = asyncio.Condition()

    @property
    def url(self) -> str:
        """The address as the beginning of an HTTP URL."""
        return f"http://{self.host}:{self.port}"

    async def seen(self, count: int) -> None:
        """Wait until so many requests have come in whole."""
        await self._until(lambda: len(self.requests) >= count)

    async def seen_messages(self, count: int) -> None:
        """Wait until so many WebSocket messages have come in."""
        await self._until(lambda: len(self.messages) >= count)

    async def abandoned(self, number: int) -> None:
        """Wait until the client of this request has hung up before the end of the answer."""
        await self._until(lambda: number in self.hung_up)

    async def _until(self, reached: Callable[[], bool]) -> None:
        async with self._changed:
            await self._changed.wait_for(reached)

    async def changed(self) -> None:
        """Wake the callers that wait for something to come in."""
        async with self._changed:
            self._changed.notify_all()


@asynccontextmanager
async def provided(
    script: Script, message_script: MessageScript | None = None, *, ssl: SSLContext | None = None
) -> AsyncIterator[ScriptedProvider]:
    """Run a provider around a block. If a script raised an exception, it is raised again at the end of the block."""
    provider = ScriptedProvider(script, message_script)
    loop = asyncio.get_running_loop()
    wires: dict[_ServerConnection, asyncio.Task[None]] = {}

    def connected(wire: _ServerConnection) -> None:
        number, provider.connections = provider.connections, provider.connections + 1
        task = wires[wire] = loop.create_task(_serve(provider, wire, number))
        task.add_done_callback(lambda _: wires.pop(wire, None))

    server = await loop.create_server(lambda: _ServerConnection(connected), provider.host, 0, ssl=ssl, backlog=1024)
    provider.port = server.sockets[0].getsockname()[1]
    try:
        yield provider
    finally:
        await stop_listening(server)
        for wire, task in tuple(wires.items()):
            wire.reset()
            task.cancel()
        await asyncio.gather(*wires.values(), return_exceptions=True)
        await server.wait_closed()
    if provider.failures:
        raise provider.failures[0]


async def _serve(provider: ScriptedProvider, wire: _ServerConnection, connection: int) -> None:
    try:
        while await _exchange(provider, wire, connection):
            pass
    except ConnectionError:
        pass  # the client has left, as clients may
    except Exception as error:  # noqa: BLE001 - a script may raise anything; it is raised again at the end
        provider.failures.append(error)
    finally:
        wire.close()
        await wire.lost.wait()


async def _exchange(provider: ScriptedProvider, wire: _ServerConnection, connection: int) -> bool:
    """Read one request and answer it; return whether the connection stays open."""
    request = replace(await _read_request(wire, connection), number=len(provider.requests))
    provider.requests.append(request)
    await provider.changed()
    answering = asyncio.ensure_future(_answer(provider, wire, request))
    answering.add_done_callback(_heard)
    losing = asyncio.ensure_future(wire.lost.wait())
    try:
        await asyncio.wait({answering, losing}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        losing.cancel()
        if not answering.done():
            answering.cancel()
    try:
        goes_on = await answering
    except (ConnectionError, asyncio.CancelledError):
        if not wire.lost.is_set():
            raise
        provider.hung_up.add(request.number)
        await provider.changed()
        return False
    provider.answered.add(request.number)
    return goes_on


def _heard(answering: asyncio.Future[bool]) -> None:
    """Retrieve an exception that no caller awaits any more, as when the provider was closed."""
    if not answering.cancelled():
        answering.exception()


async def _answer(provider: ScriptedProvider, wire: _ServerConnection, request: ReceivedRequest) -> bool:
    answer = provider.script(request)
    if answer.before is not None:
        await answer.before.wait()
    if answer.delay_s:
        await asyncio.sleep(answer.delay_s)
    if answer.cut_before_head:
        wire.reset()
        return False
    if answer.status == _SWITCHING:
        await wire.write(_handshake(request, answer))
        await _talk(provider, wire, request)
        return False
    await wire.write(_head(answer))
    spoken = partial(provider.spoken.add, request.number)
    if request.method != b"HEAD" and not await _write_body(wire, answer, spoken):
        return False
    asked_to_close = any(value.lower() == b"close" for value in values(request.lines, b"connection"))
    return answer.keeps_alive and answer.framing != "close" and not asked_to_close


def _head(answer: Answer) -> bytes:
    lines = list(answer.lines)
    if answer.framing == "length":
        lines.append(Line(b"Content-Length", str(sum(map(len, answer.pieces))).encode()))
    elif answer.framing == "chunked":
        lines.append(Line(b"Transfer-Encoding", b"chunked"))
    if not answer.keeps_alive or answer.framing == "close":
        lines.append(Line(b"Connection", b"close"))
    return _rendered(answer, lines)


def _rendered(answer: Answer, lines: Iterable[Line]) -> bytes:
    start = b"HTTP/1.1 %d %b\r\n" % (answer.status, answer.reason)
    return start + b"".join(b"%b: %b\r\n" % line for line in lines) + b"\r\n"


async def _write_body(wire: _ServerConnection, answer: Answer, spoken: Callable[[], None]) -> bool:
    """Write the pieces, and call `spoken` after the last; return False if the answer cut the connection."""
    left = answer.cut_after
    waiting = bytearray()
    for number, piece in enumerate(answer.pieces):
        gate = answer.gates.get(number)
        if gate is not None:
            await wire.write(bytes(waiting))
            waiting.clear()
            await gate.wait()
        if left is not None and left <= len(piece):
            await wire.write(bytes(waiting) + _framed(answer, piece[:left], whole=len(piece)))
            wire.reset()
            return False
        left = None if left is None else left - len(piece)
        waiting += _framed(answer, piece)
        if answer.pace_s:
            await wire.write(bytes(waiting))
            waiting.clear()
            if number + 1 == len(answer.pieces):
                spoken()
            await asyncio.sleep(answer.pace_s)
    await wire.write(bytes(waiting))
    spoken()
    for number in sorted(number for number in answer.gates if number >= len(answer.pieces)):
        await answer.gates[number].wait()
    if answer.framing == "chunked":
        await wire.write(b"0\r\n\r\n")
    return True


def _framed(answer: Answer, piece: bytes, whole: int | None = None) -> bytes:
    """Frame a piece as a chunk; a chunk that will be cut announces its whole size."""
    if answer.framing != "chunked" or not piece:
        return piece
    return b"%x\r\n%b%b" % (len(piece) if whole is None else whole, piece, b"\r\n" if whole is None else b"")


# --- WebSocket -------------------------------------------------------------------------------------------------------


def _handshake(request: ReceivedRequest, answer: Answer) -> bytes:
    (key,) = values(request.lines, b"sec-websocket-key")
    accept = base64.b64encode(hashlib.sha1(key + _ACCEPT, usedforsecurity=False).digest())
    start = (Line(b"Upgrade", b"websocket"), Line(b"Connection", b"Upgrade"), Line(b"Sec-WebSocket-Accept", accept))
    return _rendered(answer, (*start, *answer.lines))


async def _talk(provider: ScriptedProvider, wire: _ServerConnection, request: ReceivedRequest) -> None:
    """Answer messages until either side closes."""
    connection = SocketConnection(ConnectionType.SERVER)
    parts: list[bytes] = []
    while True:
        connection.receive_data(await wire.read_some())
        for event in connection.events():
            match event:
                case TextMessage() | BytesMessage():
                    parts.append(event.data.encode() if isinstance(event.data, str) else bytes(event.data))
                    if event.message_finished:
                        text = isinstance(event, TextMessage)
                        data = b"".join(parts)
                        parts.clear()
                        if not await _take(provider, wire, connection, request=request, data=data, text=text):
                            return
                case Ping():
                    await wire.write(connection.send(event.response()))
                case CloseConnection():
                    if connection.state is ConnectionState.REMOTE_CLOSING:
                        await wire.write(connection.send(event.response()))
                    return
                case _:
                    pass  # a pong


async def _take(
    provider: ScriptedProvider,
    wire: _ServerConnection,
    connection: SocketConnection,
    *,
    request: ReceivedRequest,
    data: bytes,
    text: bool,
) -> bool:
    """Record a message and answer it; return False if the answer cut the connection."""
    message = SocketMessage(number=len(provider.messages), request=request.number, data=data, text=text)
    provider.messages.append(message)
    await provider.changed()
    answer = _NO_MESSAGES if provider.message_script is None else provider.message_script(message)
    for number, said in enumerate(answer.messages):
        gate = answer.gates.get(number)
        if gate is not None:
            await gate.wait()
        if answer.cut_after == number:
            wire.reset()
            return False
        await wire.write(connection.send(Message(data=said.decode())))
        if answer.pace_s:
            await asyncio.sleep(answer.pace_s)
    if answer.close_code is not None:
        await wire.write(connection.send(CloseConnection(code=answer.close_code, reason=answer.close_reason)))
    return True


# --- the socket ------------------------------------------------------------------------------------------------------


async def _read_request(wire: _ServerConnection, connection: int) -> ReceivedRequest:
    head = await wire.read_until(_END_OF_HEAD)
    request = ReceivedRequest(number=-1, connection=connection, raw_head=head, raw_body=b"", body=None)
    if any(value.lower() == b"100-continue" for value in values(request.lines, b"expect")):
        await wire.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    if values(request.lines, b"transfer-encoding"):
        raw, body = await _read_chunks(wire)
        return replace(request, raw_body=raw, body=body)
    lengths = values(request.lines, b"content-length")
    if lengths:
        body = await wire.read_exactly(int(lengths[0]))
        return replace(request, raw_body=body, body=body)
    return request


async def _read_chunks(wire: _ServerConnection) -> tuple[bytes, bytes]:
    raw, body = bytearray(), bytearray()
    while True:
        line = await wire.read_until(b"\r\n")
        size = int(line.partition(b";")[0], 16)
        raw += line
        if not size:
            while (line := await wire.read_until(b"\r\n")) != b"\r\n":
                raw += line
            return bytes(raw + line), bytes(body)
        chunk = await wire.read_exactly(size + _CHUNK_AND_END)
        raw += chunk
        body += chunk[:-_CHUNK_AND_END]


def _line(raw: bytes) -> Line:
    name, _, value = raw.partition(b":")
    return Line(name, value.strip(b" \t"))


class _ServerConnection(asyncio.Protocol):
    """One connection: the bytes that came in, and whether it is lost, which it notices even while nobody reads."""

    transport: asyncio.Transport

    def __init__(self, connected: Callable[[_ServerConnection], None]) -> None:
        self.lost = asyncio.Event()
        self._connected = connected
        self._buffer = bytearray()
        self._ended = False
        self._came = asyncio.Event()
        self._free = asyncio.Event()
        self._free.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's do not derive from it
        self._connected(self)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        self._came.set()

    def eof_received(self) -> bool:
        self._ended = True
        self._came.set()
        return False

    def connection_lost(self, _: Exception | None) -> None:
        self._ended = True
        self._came.set()
        self._free.set()
        self.lost.set()

    def pause_writing(self) -> None:
        self._free.clear()

    def resume_writing(self) -> None:
        self._free.set()

    async def read_some(self) -> bytes:
        """Return the bytes that are there, or wait for some."""
        while not self._buffer:
            await self._more()
        return self._take(len(self._buffer))

    async def read_exactly(self, size: int) -> bytes:
        """Return so many bytes."""
        while len(self._buffer) < size:
            await self._more()
        return self._take(size)

    async def read_until(self, end: bytes) -> bytes:
        """Return the bytes up to and with `end`."""
        while (at := self._buffer.find(end)) < 0:
            await self._more()
        return self._take(at + len(end))

    async def write(self, data: bytes) -> None:
        """Write, and wait while the reader is slow (backpressure)."""
        if self.transport.is_closing():
            raise ConnectionResetError
        if data:
            self.transport.write(data)
        await self._free.wait()

    def close(self) -> None:
        """Close after everything is written."""
        self.transport.close()

    def reset(self) -> None:
        """Close with RST. The kernel sends what was written before, if the socket's buffer has room for it."""
        if not self.transport.is_closing() and self.transport.get_extra_info("sslcontext") is None:
            self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.transport.abort()

    async def _more(self) -> None:
        self._came.clear()
        if self._ended:
            raise ConnectionResetError
        await self._came.wait()

    def _take(self, size: int) -> bytes:
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken
