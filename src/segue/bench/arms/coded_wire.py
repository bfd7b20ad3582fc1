"""A measured wire between an agent and its server: two forwarders, and a coding such as TLS between them.

    agent ── plain ──► near end ══ coded, over the link ══► far end ── plain ──► server

    async with coded_wire(host, port, tls=contexts, profile=link.profile) as wire:
        ...connect to wire.host, wire.port...
        wire.take()            what the coded sockets carried since the last call, without setting connections up
        wire.set_ups           what setting up each connection took: bytes each way, and time

Each connection of the agent is one connection of the wire. The bytes are counted at the near end, as they are written
and as they come: everything that TCP carries. Setting up is TCP, the handshake of TLS, and, if the connection begins
with an upgrade to WebSocket, that too. Not here: HTTP/2 (`http2`), and emulating the link (`segue.testing.link`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Protocol

import msgspec

from segue.bench.arms.tls_coding import Decoded, TlsCoding, TlsContexts
from segue.bench.meters.tcp import WireBytes
from segue.listening import stop_listening
from segue.testing.link import LinkProfile, linked

_HOST = "127.0.0.1"
_READ_BYTES = 256 * 1024
_MOST_HEAD_BYTES = 64 * 1024
_END_OF_HEAD = b"\r\n\r\n"


class Coding(Protocol):
    """How one side of a connection writes what it sends: sans-I/O."""

    ready: bool
    """Whether data can be encoded: the handshake is over."""
    ended: bool
    """Whether the other side has said that nothing more will come."""

    def open(self) -> bytes:
        """Return what is sent first."""
        ...

    def encode(self, plain: bytes) -> bytes:
        """Return data as it is sent."""
        ...

    def decode(self, data: bytes) -> Decoded:
        """Take what came."""
        ...

    def close(self) -> bytes:
        """Return what says that nothing more will be sent."""
        ...


class PlainCoding:
    """Sends everything as it is."""

    ready = True
    ended = False

    def open(self) -> bytes:
        """Nothing comes first."""
        return b""

    def encode(self, plain: bytes) -> bytes:
        """Return it."""
        return plain

    def decode(self, data: bytes) -> Decoded:
        """Return it."""
        return Decoded(data, b"")

    def close(self) -> bytes:
        """TCP says it."""
        return b""


class SetUp(msgspec.Struct, frozen=True):
    """What it took to set one connection up."""

    up_bytes: int
    down_bytes: int
    time_s: float


class CarriedBytes:
    """Counts what a wire carries. What belongs to setting a connection up is counted apart from the rest."""

    def __init__(self) -> None:
        self.set_ups: list[SetUp] = []
        self._up = self._down = 0
        self._taken = WireBytes(0, 0)

    def take(self) -> WireBytes:
        """Return what was carried since the last call, without setting connections up."""
        before, self._taken = self._taken, WireBytes(self._up, self._down)
        return WireBytes(self._up - before.up_bytes, self._down - before.down_bytes)

    @property
    def total_bytes(self) -> int:
        """All bytes so far but those of setting up, both ways."""
        return self._up + self._down

    def up(self, size: int) -> None:
        """Count bytes towards the server."""
        self._up += size

    def down(self, size: int) -> None:
        """Count bytes from the server."""
        self._down += size


class _SetUpWatch:
    """Counts one connection, and notices when it is set up: after the handshake, or after an upgrade that follows."""

    def __init__(self, carried: CarriedBytes) -> None:
        self._carried = carried
        self._begun_at = time.perf_counter()
        self._up = self._down = 0
        self._over = False
        self._head = bytearray()
        self._upgrading: bool | None = None  # None: the agent has not sent anything yet

    def up(self, size: int) -> None:
        """Count bytes that are sent."""
        if self._over:
            self._carried.up(size)
        else:
            self._up += size

    def down(self, size: int) -> None:
        """Count bytes that came."""
        if self._over:
            self._carried.down(size)
        else:
            self._down += size

    def shaken(self) -> None:
        """The handshake is over. Unless an upgrade follows, that is all: time stops here."""
        self._shaken_s = time.perf_counter() - self._begun_at

    def sending(self, plain: bytes) -> None:
        """The agent sends something: look whether a connection begins with an upgrade."""
        if self._upgrading is None:
            self._upgrading = plain.startswith(b"GET ") and b"\r\nupgrade: websocket\r\n" in plain.lower()
            if not self._upgrading:
                self._finish(self._shaken_s)

    def receiving(self, plain: bytes) -> None:
        """The server has answered something."""
        if self._over or not self._upgrading:
            return
        self._head += plain
        if _END_OF_HEAD in self._head or len(self._head) > _MOST_HEAD_BYTES:
            self._finish(time.perf_counter() - self._begun_at)

    def _finish(self, time_s: float) -> None:
        self._over = True
        self._carried.set_ups.append(SetUp(self._up, self._down, time_s))


class CodedWire(msgspec.Struct, frozen=True):
    """Where the near end listens, and what it has carried."""

    host: str
    port: int
    carried: CarriedBytes

    @property
    def url(self) -> str:
        """The near end as the beginning of an HTTP URL."""
        return f"http://{self.host}:{self.port}"


@asynccontextmanager
async def coded_wire(
    host: str, port: int, *, tls: TlsContexts | None = None, profile: LinkProfile | None = None
) -> AsyncIterator[CodedWire]:
    """Lead from a free port to `host:port` around a block: coded by TLS, or as it is, over a link if there is one."""
    carried = CarriedBytes()
    async with AsyncExitStack() as stack:
        far = _FarEnd((host, port), _coding_of(tls, server_side=True))
        target = await stack.enter_async_context(listening(far.serve))
        if profile is not None:
            link = await stack.enter_async_context(linked(*target, profile))
            target = (link.host, link.port)
        near = _NearEnd(target, _coding_of(tls, server_side=False), carried)
        yield CodedWire(*await stack.enter_async_context(listening(near.serve)), carried)


def _coding_of(tls: TlsContexts | None, *, server_side: bool) -> Callable[[], Coding]:
    if tls is None:
        return PlainCoding
    context = tls.server if server_side else tls.client
    return lambda: TlsCoding(context, server_side=server_side)


#: Serves one connection to its end.
ServeConnection = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[None, None, None]]


@asynccontextmanager
async def listening(serve: ServeConnection) -> AsyncIterator[tuple[str, int]]:
    """Listen on a free port around a block. At its end, connections that are still open are reset."""
    running: set[asyncio.Task[None]] = set()

    async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):  # it broke, and both sides of it have been told
            async with closing_orderly(writer):
                await serve(reader, writer)

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(served(reader, writer))
        running.add(task)
        task.add_done_callback(running.discard)

    server = await asyncio.start_server(accept, _HOST, 0, limit=_READ_BYTES)
    try:
        yield _HOST, server.sockets[0].getsockname()[1]
    finally:
        await stop_listening(server)
        for task in tuple(running):
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


class _NearEnd:
    """Takes the agent's connections, and codes what it sends."""

    def __init__(self, target: tuple[str, int], coding: Callable[[], Coding], carried: CarriedBytes) -> None:
        self._target = target
        self._coding = coding
        self._carried = carried

    async def serve(self, agent: asyncio.StreamReader, to_agent: asyncio.StreamWriter) -> None:
        """Carry one connection."""
        watch = _SetUpWatch(self._carried)
        async with connected(self._target) as (wire, to_wire):
            coding, early = self._coding(), b""
            _write(to_wire, coding.open(), watch.up)
            while not coding.ready and (data := await wire.read(_READ_BYTES)):
                watch.down(len(data))
                early, reply = coding.decode(data)
                _write(to_wire, reply, watch.up)
            watch.shaken()
            write_open(to_agent, early)

            async def up() -> None:
                while plain := await agent.read(_READ_BYTES):
                    watch.sending(plain)
                    _write(to_wire, coding.encode(plain), watch.up)
                    await to_wire.drain()
                _write(to_wire, coding.close(), watch.up)
                end_open(to_wire)

            async def down() -> None:
                while not coding.ended and (data := await wire.read(_READ_BYTES)):
                    watch.down(len(data))
                    plain, reply = coding.decode(data)
                    _write(to_wire, reply, watch.up)
                    watch.receiving(plain)
                    write_open(to_agent, plain)
                    await to_agent.drain()
                end_open(to_agent)

            await both(up(), down())


class _FarEnd:
    """Takes the connections of the wire, and gives the server what the agent sent."""

    def __init__(self, target: tuple[str, int], coding: Callable[[], Coding]) -> None:
        self._target = target
        self._coding = coding

    async def serve(self, wire: asyncio.StreamReader, to_wire: asyncio.StreamWriter) -> None:
        """Carry one connection."""
        async with connected(self._target) as (server, to_server):
            coding = self._coding()
            write_open(to_wire, coding.open())

            async def up() -> None:
                while not coding.ended and (data := await wire.read(_READ_BYTES)):
                    plain, reply = coding.decode(data)
                    if reply:
                        write_open(to_wire, reply)
                    if coding.ready:
                        shaken.set()
                    write_open(to_server, plain)
                    await to_server.drain()
                end_open(to_server)

            async def down() -> None:
                await shaken.wait()
                while plain := await server.read(_READ_BYTES):
                    write_open(to_wire, coding.encode(plain))
                    await to_wire.drain()
                write_open(to_wire, coding.close())
                end_open(to_wire)

            shaken = asyncio.Event()
            if coding.ready:
                shaken.set()
            await both(up(), down())


def _write(writer: asyncio.StreamWriter, data: bytes, count: Callable[[int], None]) -> None:
    if data:
        count(len(data))
        write_open(writer, data)


def write_open(writer: asyncio.StreamWriter, data: bytes) -> None:
    """Write to a connection that is open; of one that was lost asyncio says nothing, and uvloop a RuntimeError.

    Raises:
        ConnectionResetError: it is not.
    """
    _check_open(writer)
    writer.write(data)


def end_open(writer: asyncio.StreamWriter) -> None:
    """Say that nothing more will be written, in the same way."""
    _check_open(writer)
    writer.write_eof()


def _check_open(writer: asyncio.StreamWriter) -> None:
    if writer.transport.is_closing():
        raise ConnectionResetError("the connection is closed")


@asynccontextmanager
async def connected(target: tuple[str, int]) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Connect around a block."""
    reader, writer = await asyncio.open_connection(*target, limit=_READ_BYTES)
    async with closing_orderly(writer):
        yield reader, writer


@asynccontextmanager
async def closing_orderly(writer: asyncio.StreamWriter) -> AsyncIterator[None]:
    """Close a connection after a block, or reset it if the block fails."""
    try:
        yield
    except BaseException:
        writer.transport.abort()
        raise
    writer.close()
    await writer.wait_closed()


async def both(up: Coroutine[None, None, None], down: Coroutine[None, None, None]) -> None:
    """Carry both ways until both have ended, or until one breaks: the connection is over then.

    Raises:
        ConnectionError: it broke.
    """
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(up)
            group.create_task(down)
    except* OSError as broken:
        raise ConnectionAbortedError("the connection broke") from broken.exceptions[0]
