"""The connections to one server: how many are in use at once, and which are kept for the next request.

Not here: what is said on them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import NamedTuple

import httpcore

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
        self._kept: list[_IdleConnection] = []
        self._used: set[HttpConnection] = set()
        self._is_closed = False
        self._closing: set[asyncio.Task[None]] = set()

    async def take(self) -> HttpConnection:
        """Return a connection that nobody else uses: one that was kept and is alive, else a new one.

        Raises:
            TimeoutError: too many are in use.
            httpcore.ConnectError, httpcore.ConnectTimeout: no connection comes about.
        """
        async with asyncio.timeout(self._limits.connect_s):
            await self._places.acquire()
        try:
            connection = await self._kept_one()
            if connection is None:
                connection = HttpConnection(await self._connect(), silence_s=self._limits.silence_s)
        except BaseException:
            self._places.release()
            raise
        self._used.add(connection)
        return connection

    async def give_back(self, connection: HttpConnection) -> None:
        """Take back a connection, once: it is kept if its answer was read to the end, else closed."""
        self._used.discard(connection)
        self._places.release()
        if not await connection.finish():
            return
        if self._is_closed or len(self._kept) >= self._limits.idle_connections:
            await connection.aclose()
            return
        timer = asyncio.get_running_loop().call_later(self._limits.idle_s, self._expire, connection)
        self._kept.append(_IdleConnection(connection, timer))

    async def aclose(self) -> None:
        """Close all connections, also those in use."""
        self._is_closed = True
        while self._kept:
            kept = self._kept.pop()
            kept.timer.cancel()
            await kept.connection.aclose()
        for connection in list(self._used):
            await connection.aclose()
        await asyncio.gather(*self._closing)

    async def _kept_one(self) -> HttpConnection | None:
        """The one that was used last, since it will live longest. There is no wait after `is_alive` said so."""
        while self._kept:
            kept = self._kept.pop()
            kept.timer.cancel()
            if kept.connection.is_alive():
                return kept.connection
            await kept.connection.aclose()
        return None

    def _expire(self, connection: HttpConnection) -> None:
        self._kept = [kept for kept in self._kept if kept.connection is not connection]
        task = asyncio.get_running_loop().create_task(connection.aclose())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


class _IdleConnection(NamedTuple):
    """A connection that nobody uses, and when it is closed."""

    connection: HttpConnection
    timer: asyncio.TimerHandle


class Lease:
    """The use of one connection of a pool."""

    def __init__(self, pool: ConnectionPool, connection: HttpConnection) -> None:
        self.name = pool.name
        self.connection = connection
        self._pool = pool
        self._is_over = False

    async def aclose(self) -> None:
        """Give it back, once."""
        if not self._is_over:
            self._is_over = True
            await self._pool.give_back(self.connection)
