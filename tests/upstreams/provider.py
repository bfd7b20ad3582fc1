"""A provider on a loopback socket that does to each request what the test says, byte by byte, and keeps what it was
sent. Whatever the HTTP is, well-formed or not, cut or hanging, is the test's business: nothing here repairs it.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, NamedTuple

import msgspec

#: How long anything may take that takes milliseconds. Only a failing test waits that long.
PATIENCE_S = 20.0


class Got(NamedTuple):
    """One request, and which connection it came on (counted from 0)."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    connection: int
    names: tuple[str, ...] = ()

    def count(self, name: str) -> int:
        """How often a header line of this name, in lower case, was sent."""
        return self.names.count(name)

    @property
    def json(self) -> Any:  # noqa: ANN401 - any JSON value
        """The body, decoded."""
        return msgspec.json.decode(self.body)


class Exchange:
    """One request while it is answered."""

    def __init__(self, got: Got, writer: asyncio.StreamWriter, gone: asyncio.Event) -> None:
        self.got = got
        self.gone = gone  # set when the client has closed the connection, or broken it
        self._writer = writer

    async def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self._writer.write(data)
        await self._writer.drain()

    async def head(self, status: int = 200, **headers: str) -> None:
        """Send the head of a stream (or of what the headers say); its body comes in chunks."""
        lines = {"content-type": "text/event-stream", "transfer-encoding": "chunked"}
        lines |= {name.replace("_", "-"): value for name, value in headers.items()}
        written = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        await self.send(f"HTTP/1.1 {status} Something\r\n{written}\r\n".encode())

    async def chunk(self, data: bytes) -> None:
        """Send one chunk of the body."""
        await self.send(b"%x\r\n%b\r\n" % (len(data), data))

    async def end(self) -> None:
        """End the body."""
        await self.send(b"0\r\n\r\n")

    def close(self) -> None:
        """Close the connection."""
        self._writer.close()

    def reset(self) -> None:
        """Break the connection."""
        self._writer.transport.abort()


Play = Callable[[Exchange], Awaitable[None]]


def streams(*chunks: bytes) -> Play:
    """Answer with a stream of these chunks."""

    async def play(exchange: Exchange) -> None:
        await exchange.head()
        for chunk in chunks:
            await exchange.chunk(chunk)
        await exchange.end()

    return play


def refuses(status: int, body: object = b"", **headers: str) -> Play:
    """Answer with a status and a body that is no stream."""
    raw = body if isinstance(body, bytes) else msgspec.json.encode(body)

    async def play(exchange: Exchange) -> None:
        await exchange.head(status, content_type="application/json", **headers)
        if raw:
            await exchange.chunk(raw)
        await exchange.end()

    return play


async def hangs(exchange: Exchange) -> None:
    """Read the request and say nothing, until the client is gone."""
    await exchange.gone.wait()


async def resets(exchange: Exchange) -> None:
    """Break the connection instead of answering."""
    exchange.reset()


class Provider:
    """The server: `plays` are used up in order, the last one again and again."""

    def __init__(self, *plays: Play) -> None:
        self.got: list[Got] = []
        self.gone = 0  # connections that clients have closed
        self.url = ""
        self.connections = 0
        self._plays = deque(plays)
        self._changed = asyncio.Condition()
        self._tasks: set[asyncio.Task[None]] = set()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something about this server is true."""
        async with asyncio.timeout(PATIENCE_S), self._changed:
            await self._changed.wait_for(condition)

    async def seen(self, count: int) -> None:
        """Wait until so many requests have come."""
        await self.until(lambda: len(self.got) >= count)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        number = self.connections
        self.connections += 1
        try:
            while (got := await _read_request(reader, number)) is not None:
                await self._answer(got, reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self.gone += 1
            await self._note()
            writer.close()
            self._tasks.discard(task)

    async def close(self) -> None:
        """Stop everything that is still answered."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _answer(self, got: Got, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.got.append(got)
        await self._note()
        play = self._plays.popleft() if len(self._plays) > 1 else self._plays[0]
        gone = asyncio.Event()
        watch = asyncio.create_task(_watch(reader, gone))
        try:
            await play(Exchange(got, writer, gone))
        finally:
            if not gone.is_set():
                watch.cancel()
            await asyncio.wait([watch])
        if gone.is_set():
            raise ConnectionResetError

    async def _note(self) -> None:
        async with self._changed:
            self._changed.notify_all()


async def _watch(reader: asyncio.StreamReader, gone: asyncio.Event) -> None:
    """Notice that the client hangs up; it says nothing more before it is answered."""
    with suppress(ConnectionError):
        data = await reader.read(1)
        assert not data, "a client that waits for its answer says nothing"
    gone.set()


async def _read_request(reader: asyncio.StreamReader, connection: int) -> Got | None:
    try:
        raw = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = raw.decode("latin-1").split("\r\n")[:-2]
    method, target, _ = first.split(" ")
    pairs = [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]
    headers = dict(pairs)
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Got(method, target, headers, body, connection, tuple(name for name, _ in pairs))


@asynccontextmanager
async def providing(*plays: Play, tls: ssl.SSLContext | None = None) -> AsyncIterator[Provider]:
    """Run a provider for the length of a block."""
    provider = Provider(*plays)
    server = await asyncio.start_server(provider.serve, "127.0.0.1", 0, ssl=tls)
    provider.url = f"{'http' if tls is None else 'https'}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield provider
    finally:
        server.close()
        await provider.close()
        await server.wait_closed()
