"""A fake provider that knows no HTTP library: it keeps the exact bytes it was sent, and plays answers as raw bytes.

    async with Provider([answer(b"hello")]) as provider:
        ...                                   # send requests to provider.url (http://127.0.0.1:PORT)
        provider.requests[0].head             # the raw bytes up to the empty line, and .body with chunks put together
        provider.connections[0].received      # every byte of the first connection

The script is a list of answers, one for each request in the order they came, over all connections; a request too many
fails the test at the end of the `async with`. Instead of a list it may be a function from a request to its answer.
An answer is `bytes`, or a list of steps that are played one after the other:

    b"..."          written to the connection
    asyncio.Event   waited for
    HANG            waits until the other side closes the connection
    CLOSE, RESET    closes the connection at once; with RESET the other side gets a reset instead of an end
    a function      awaited with the `Connection`: it may talk through `connection.reader` and `connection.writer`

`answer`, `chunked`, `sse` and `upgrade` write the bytes of answers, and `cut` shortens them. Without a step that
closes it, a connection is kept for the next request.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable, Iterable, Sequence
from enum import Enum
from types import TracebackType
from typing import NamedTuple, Self, TypeAlias


class Step(Enum):
    """What an answer does beside writing."""

    HANG = "hang"
    CLOSE = "close"
    RESET = "reset"


HANG, CLOSE, RESET = Step.HANG, Step.CLOSE, Step.RESET

Play: TypeAlias = "bytes | Step | asyncio.Event | Callable[[Connection], Awaitable[object]]"
Answer: TypeAlias = bytes | Sequence[Play]


class Request(NamedTuple):
    """One request as it was received. `body` is None if it has neither Content-Length nor Transfer-Encoding."""

    head: bytes
    body: bytes | None

    @property
    def method(self) -> bytes:
        return self.head.split(b" ", 1)[0]

    @property
    def target(self) -> bytes:
        return self.head.split(b"\r\n", 1)[0].split(b" ", 1)[1].rpartition(b" ")[0]

    @property
    def lines(self) -> list[bytes]:
        """The header lines, raw and in order."""
        return self.head.removesuffix(b"\r\n\r\n").split(b"\r\n")[1:]

    def values(self, name: bytes) -> list[bytes]:
        """The values of the lines with this name (lower case)."""
        pairs = (line.partition(b":") for line in self.lines)
        return [value.strip() for key, _, value in pairs if key.lower() == name]


class Connection:
    """One connection, with all that was received on it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.received = bytearray()
        self.sent_bytes = 0
        self.closed = asyncio.Event()
        """Set when the other side has closed it, or it was closed here."""

    async def read_until(self, end: bytes) -> bytes:
        data = await self.reader.readuntil(end)
        self.received += data
        return data

    async def read_exactly(self, count: int) -> bytes:
        data = await self.reader.readexactly(count)
        self.received += data
        return data

    async def write(self, data: bytes) -> None:
        """Write, and wait until the other side keeps up."""
        for start in range(0, len(data), 65536):
            self.writer.write(data[start : start + 65536])
            await self.writer.drain()
            self.sent_bytes += len(data[start : start + 65536])


class Provider:
    """See above. `tls` makes it speak TLS."""

    def __init__(
        self, script: Sequence[Answer] | Callable[[Request], Answer] = (), *, tls: ssl.SSLContext | None = None
    ) -> None:
        self.requests: list[Request] = []
        self.connections: list[Connection] = []
        self.problems: list[str] = []
        self.asked = asyncio.Event()
        """Set at the first request; may be cleared to wait for the next."""
        self.port = 0
        self._script = script
        self._tls = tls
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        return f"http{'s' if self._tls else ''}://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=self._tls, limit=1 << 20)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()
        assert not self.problems, self.problems

    async def stop(self) -> None:
        """Close everything; a connection to the port is refused from now on."""
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for connection in self.connections:
            connection.writer.transport.abort()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(Connection(reader, writer)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, connection: Connection) -> None:
        self.connections.append(connection)
        try:
            while not connection.closed.is_set():
                request = await read_request(connection)
                self.requests.append(request)
                self.asked.set()
                await self._play(connection, self._answer(request))
        except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
            pass  # the other side has closed
        finally:
            connection.closed.set()
            connection.writer.close()

    def _answer(self, request: Request) -> Answer:
        if callable(self._script):
            return self._script(request)
        if len(self.requests) > len(self._script):
            self.problems.append(f"request {len(self.requests)} was not expected: {request.head!r}")
            return [CLOSE]
        return self._script[len(self.requests) - 1]

    async def _play(self, connection: Connection, answer: Answer) -> None:
        for step in [answer] if isinstance(answer, bytes) else answer:
            match step:
                case bytes():
                    await connection.write(step)
                case asyncio.Event():
                    await step.wait()
                case Step.HANG:
                    while data := await connection.reader.read(65536):
                        connection.received += data
                    connection.closed.set()
                case Step.CLOSE:
                    connection.closed.set()
                    connection.writer.close()
                case Step.RESET:
                    connection.closed.set()
                    reset(connection.writer)
                case _:
                    await step(connection)


def reset(writer: asyncio.StreamWriter) -> None:
    """Close a connection so that the other side gets a reset (plain TCP only)."""
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def read_request(connection: Connection) -> Request:
    """Read one request, by nothing but the two rules of framing."""
    head = await connection.read_until(b"\r\n\r\n")
    request = Request(head, None)
    if request.values(b"transfer-encoding") == [b"chunked"]:
        body = b""
        while size := int(await connection.read_until(b"\r\n"), 16):
            body += await connection.read_exactly(size)
            assert await connection.read_exactly(2) == b"\r\n"
        assert await connection.read_exactly(2) == b"\r\n"
        return Request(head, body)
    if lengths := request.values(b"content-length"):
        assert len(lengths) == 1, head
        return Request(head, await connection.read_exactly(int(lengths[0])))
    return request


# --- answers ----------------------------------------------------------------------------------------------------------


def head(status: int, lines: Iterable[bytes] = (), reason: bytes = b"OK") -> bytes:
    """Write the head of an answer."""
    return b"\r\n".join([b"HTTP/1.1 %d %s" % (status, reason), *lines, b"", b""])


def answer(body: bytes = b"", *, status: int = 200, lines: Iterable[bytes] = (), reason: bytes = b"OK") -> bytes:
    """Write an answer with a Content-Length."""
    return head(status, [*lines, b"Content-Length: %d" % len(body)], reason) + body


def chunk(data: bytes) -> bytes:
    """Write one chunk."""
    return b"%x\r\n%s\r\n" % (len(data), data)


def chunked(pieces: Iterable[bytes], *, status: int = 200, lines: Iterable[bytes] = ()) -> bytes:
    """Write an answer in chunks."""
    return head(status, [*lines, b"Transfer-Encoding: chunked"]) + b"".join(map(chunk, pieces)) + b"0\r\n\r\n"


def sse(events: Iterable[bytes], *, lines: Iterable[bytes] = ()) -> list[bytes]:
    """Write a stream of events, each in a step and a chunk of its own."""
    begin = head(200, [b"Content-Type: text/event-stream", *lines, b"Transfer-Encoding: chunked"])
    return [begin, *(chunk(b"data: %s\n\n" % event) for event in events), b"0\r\n\r\n"]


def cut(raw: bytes, at: int, how: Step = CLOSE) -> list[Play]:
    """Send only the first bytes of an answer; then close the connection."""
    return [raw[:at], how]


def upgrade(request: Request, lines: Iterable[bytes] = ()) -> bytes:
    """Write the 101 that accepts a WebSocket (RFC 6455, 4.2.2)."""
    (key,) = request.values(b"sec-websocket-key")
    digest = hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11", usedforsecurity=False).digest()
    accept = b"Sec-WebSocket-Accept: " + base64.b64encode(digest)
    return head(101, [b"Upgrade: websocket", b"Connection: Upgrade", accept, *lines], b"Switching Protocols")


# --- WebSocket frames, as RFC 6455, 5.2 draws them --------------------------------------------------------------------


class Frame(NamedTuple):
    """One frame as it was received, unmasked."""

    opcode: int
    data: bytes
    is_last: bool


def frame(opcode: int, data: bytes = b"", *, is_last: bool = True) -> bytes:
    """Write a frame of a server. Opcodes: 0 continuation, 1 text, 2 binary, 8 close, 9 ping, 10 pong."""
    first = opcode | (0x80 if is_last else 0)
    if len(data) < 126:
        return bytes([first, len(data)]) + data
    if len(data) < 1 << 16:
        return struct.pack("!BBH", first, 126, len(data)) + data
    return struct.pack("!BBQ", first, 127, len(data)) + data


async def read_frame(connection: Connection) -> Frame:
    """Read a frame of a client, which must be masked."""
    first, second = await connection.read_exactly(2)
    assert first & 0x70 == 0, "no extension was agreed on"
    assert second & 0x80, "a client masks"
    size = second & 0x7F
    if size == 126:
        (size,) = struct.unpack("!H", await connection.read_exactly(2))
    elif size == 127:
        (size,) = struct.unpack("!Q", await connection.read_exactly(8))
    mask = await connection.read_exactly(4)
    masked = await connection.read_exactly(size)
    whole = (mask * (size // 4 + 1))[:size]
    data = (int.from_bytes(masked, "big") ^ int.from_bytes(whole, "big")).to_bytes(size, "big")
    return Frame(first & 0x0F, data, bool(first & 0x80))
