"""A TCP forwarder that counts bytes: put it between a client and a server to see what their connections carry.

It counts the bytes of both TCP streams. Of an unencrypted connection that is everything but the headers of TCP and IP.
It forwards at once (TCP_NODELAY on both sides) and passes backpressure on: a reader that does not keep up stalls its
writer. An observer may read along. Connections of other users of this machine are cut, where the platform tells whose
they are: the server behind would take them for the meter's own. Not here: delay, loss and rate limits, which
`segue.testing.link` has.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Protocol, cast

import msgspec

from segue.listening import stop_listening
from segue.peer_credentials.lookup import PeerUsers, peer_users


class WireBytes(msgspec.Struct, frozen=True):
    """Bytes up (towards the server) and down."""

    up_bytes: int
    down_bytes: int


class ConnectionObserver(Protocol):
    """Sees what one connection carries, at the time (of the event loop's clock) when the meter forwards it."""

    def see_up(self, data: bytes, now: float) -> None:
        """Take note of bytes of the client."""

    def see_down(self, data: bytes, now: float) -> None:
        """Take note of bytes of the server."""

    def see_end(self, now: float) -> None:
        """Take note that the connection is over."""


class MeteredConnection:
    """One forwarded connection and what it has carried so far."""

    def __init__(self, observer: ConnectionObserver | None) -> None:
        self.up_bytes = 0
        self.down_bytes = 0
        self.observer = observer


class Meter:
    """The counts of all connections so far, and the address that clients connect to."""

    def __init__(self) -> None:
        self.url_host = "127.0.0.1"
        self.port = 0
        self.connections: list[MeteredConnection] = []
        self.observe: Callable[[], ConnectionObserver] | None = None
        """Makes the observer of each new connection."""
        self._taken = WireBytes(0, 0)

    @property
    def url(self) -> str:
        """The address as the beginning of an HTTP URL."""
        return f"http://{self.url_host}:{self.port}"

    @property
    def up_bytes(self) -> int:
        """Bytes that clients sent."""
        return sum(connection.up_bytes for connection in self.connections)

    @property
    def down_bytes(self) -> int:
        """Bytes that the server sent."""
        return sum(connection.down_bytes for connection in self.connections)

    def take(self) -> WireBytes:
        """Return what was carried since the last call: call it after each turn."""
        before, self._taken = self._taken, WireBytes(self.up_bytes, self.down_bytes)
        return WireBytes(self._taken.up_bytes - before.up_bytes, self._taken.down_bytes - before.down_bytes)


@asynccontextmanager
async def metered(target_host: str, target_port: int) -> AsyncIterator[Meter]:
    """Forward a free port of this machine to the target around a block."""
    meter, clients, users = Meter(), set[_DownstreamSocket](), peer_users()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: _Gate(users, lambda: _DownstreamSocket(meter, clients, target_host, target_port)),
        meter.url_host,
        0,
        backlog=1024,
    )
    meter.port = server.sockets[0].getsockname()[1]
    try:
        yield meter
    finally:
        await stop_listening(server)
        for client in tuple(clients):
            client.abort()
        while clients:
            await asyncio.gather(*(client.closed for client in tuple(clients)))
        await server.wait_closed()


class _Gate(asyncio.Protocol):
    """Lets connections of this user through, and cuts all others before anything of them is read."""

    def __init__(self, users: PeerUsers, make: Callable[[], asyncio.Protocol]) -> None:
        self._users = users
        self._make = make

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        stream = cast("asyncio.Transport", transport)
        if self._users.known and not self._users.is_own(transport.get_extra_info("socket")):
            stream.abort()
            return
        inner = self._make()
        stream.set_protocol(inner)
        inner.connection_made(transport)


class _ForwardedSocket(asyncio.Protocol, ABC):
    """One of the two sockets of a connection; what it receives is written to `other`."""

    transport: asyncio.Transport
    other: _ForwardedSocket | None = None
    ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's do not derive from it

    def data_received(self, data: bytes) -> None:
        self.count(data)
        assert self.other is not None, "a side reads only when the other is there"
        self.other.transport.write(data)

    def eof_received(self) -> bool:
        self.ended = True
        if self.other is None:
            return True
        if self.other.transport.is_closing():
            return False
        self.other.transport.write_eof()
        return not self.other.ended  # the other direction stays open until it ends too

    def pause_writing(self) -> None:
        if self.other is not None:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.other is not None and not self.other.transport.is_closing():
            self.other.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.other is None:
            return
        if exc is None:
            self.other.transport.close()
        else:
            self.other.transport.abort()

    @abstractmethod
    def count(self, data: bytes) -> None:
        """Count what this side received."""


class _DownstreamSocket(_ForwardedSocket):
    """The socket that a client connected to. Reading begins when the socket to the server is open."""

    def __init__(self, meter: Meter, clients: set[_DownstreamSocket], target_host: str, target_port: int) -> None:
        self.connection = MeteredConnection(None if meter.observe is None else meter.observe())
        self._meter = meter
        self._clients = clients
        self._target = (target_host, target_port)
        self._early: list[bytes] = []
        self._loop = asyncio.get_running_loop()
        self.closed: asyncio.Future[None] = self._loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._meter.connections.append(self.connection)
        self._clients.add(self)
        self.transport.pause_reading()  # uvloop reads once in spite of it: see `data_received`
        self._opening = self._loop.create_task(self._open())

    async def _open(self) -> None:
        try:
            await self._loop.create_connection(lambda: _UpstreamSocket(self), *self._target)
        except OSError:
            self.transport.abort()  # the client sees its connection end, as it would without a meter

    def opened(self, side: _UpstreamSocket) -> None:
        """Begin to forward: the server's socket is open."""
        if self.transport.is_closing():
            side.transport.abort()
            return
        self.other = side
        side.transport.writelines(self._early)
        self._early.clear()
        if self.ended:
            side.transport.write_eof()
        self.transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        if self.other is None:
            self.transport.pause_reading()
            self._early.append(data)
            self.count(data)
            return
        super().data_received(data)

    def count(self, data: bytes) -> None:
        self.connection.up_bytes += len(data)
        if self.connection.observer is not None:
            self.connection.observer.see_up(data, self._loop.time())

    def abort(self) -> None:
        """End the connection on both sides at once."""
        self._opening.cancel()
        self.transport.abort()
        if self.other is not None:
            self.other.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self.connection.observer is not None:
            self.connection.observer.see_end(self._loop.time())
        self._clients.discard(self)
        if not self.closed.done():
            self.closed.set_result(None)


class _UpstreamSocket(_ForwardedSocket):
    """The socket to the server."""

    def __init__(self, client: _DownstreamSocket) -> None:
        self.other: _DownstreamSocket = client

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.other.opened(self)

    def count(self, data: bytes) -> None:
        connection = self.other.connection
        connection.down_bytes += len(data)
        if connection.observer is not None:
            connection.observer.see_down(data, asyncio.get_running_loop().time())
