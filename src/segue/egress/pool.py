"""The connection pool of one server: it bounds the connections in use, and keeps idle ones for later requests.

Not here: what is sent on them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import httpcore
import msgspec

from segue.egress.connection import HttpConnection
from segue.egress.limits import EgressLimits


class ConnectionPool:
    """The connections to the server called `name`, whose Host line is `authority`."""

    def __init__(
        self,
        connect: Callable[[], Awaitable[httpcore.AsyncNetworkStream]],
        *,
        name: str,
        authority: bytes,
        limits: EgressLimits,
    ) -> None:
        self.name = name
        self.authority = authority
        self._connect = connect
        self._limits = limits
        self._places = asyncio.Semaphore(limits.requests)
        self._idle: list[_IdleConnection] = []
        self._used: set[HttpConnection] = set()
        self._closed = False
        self._closing: set[asyncio.Task[None]] = set()

    async def take(self) -> HttpConnection:
        """Return a connection that nobody else uses: an idle one that is alive, or a new one.

        Raises:
            TimeoutError: too many are in use.
            httpcore.ConnectError, httpcore.ConnectTimeout: there is no connection.
        """
        if self._places.locked():
            async with asyncio.timeout(self._limits.connect_s):
                await self._places.acquire()
        else:
            await self._places.acquire()
        try:
            connection = await self._take_idle()
            if connection is None:
                connection = HttpConnection(await self._connect(), silence_s=self._limits.silence_s)
        except BaseException:
            self._places.release()
            raise
        self._used.add(connection)
        return connection

    async def give_back(self, connection: HttpConnection) -> None:
        """Take back a connection, once: keep it if its answer was read to the end, and close it otherwise."""
        self._used.discard(connection)
        self._places.release()
        if not await connection.finish():
            return
        if self._closed or len(self._idle) >= self._limits.idle_connections:
            await connection.aclose()
            return
        timer = asyncio.get_running_loop().call_later(self._limits.idle_s, self._expire, connection)
        self._idle.append(_IdleConnection(connection, timer))

    async def aclose(self) -> None:
        """Close all connections, also those in use."""
        self._closed = True
        while self._idle:
            idle = self._idle.pop()
            idle.timer.cancel()
            await idle.connection.aclose()
        for connection in list(self._used):
            await connection.aclose()
        await asyncio.gather(*self._closing)

    async def _take_idle(self) -> HttpConnection | None:
        """Return the connection that was used last, since it lives longest. Nothing awaits after `is_alive`."""
        while self._idle:
            idle = self._idle.pop()
            idle.timer.cancel()
            if idle.connection.is_alive():
                return idle.connection
            await idle.connection.aclose()
        return None

    def _expire(self, connection: HttpConnection) -> None:
        self._idle = [idle for idle in self._idle if idle.connection is not connection]
        task = asyncio.get_running_loop().create_task(connection.aclose())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


class _IdleConnection(msgspec.Struct, frozen=True):
    """A connection that nobody uses, and the timer that closes it."""

    connection: HttpConnection
    timer: asyncio.TimerHandle


class Lease:
    """The use of one connection of a pool."""

    def __init__(self, pool: ConnectionPool, connection: HttpConnection) -> None:
        self.name = pool.name
        self.connection = connection
        self._pool = pool
        self._closed = False

    async def aclose(self) -> None:
        """Give the connection back, once."""
        if not self._closed:
            self._closed = True
            await self._pool.give_back(self.connection)
