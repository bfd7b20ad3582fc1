"""What a shutdown must know and wait for: whether the gateway is draining, its open connections, its running turns.

Not here: who asks for a shutdown, and how long it may take (`app`).
"""

from __future__ import annotations

import asyncio
from contextlib import AbstractContextManager
from typing import Protocol

from segue.protocol.problems import Problem


def takes_no_connection() -> Problem:
    """Return why a gateway that drains takes no new connection."""
    return Problem("server_overloaded", "The gateway is shutting down. Try again.")


def takes_no_turn() -> Problem:
    """Return why a gateway that drains begins no turn."""
    return Problem("server_overloaded", "The gateway is shutting down. Send the request again.")


class Drainable(Protocol):
    """A connection that can be asked to end between its turns."""

    async def drain(self) -> None:
        """Let the running turns end, then close."""


class _OpenConnection(AbstractContextManager[None]):
    """Counts one connection. Thousands live at once; each is 500 bytes smaller than a `@contextmanager`."""

    __slots__ = ("_changed", "_connection", "_connections")

    def __init__(self, connections: set[Drainable], connection: Drainable, changed: asyncio.Event) -> None:
        self._connections = connections
        self._connection = connection
        self._changed = changed

    def __enter__(self) -> None:
        self._connections.add(self._connection)

    def __exit__(self, *_: object) -> None:
        self._connections.discard(self._connection)
        self._changed.set()


class _RunningTurns(AbstractContextManager[None]):
    """Counts the detached turns of one gateway: one object for all, since each turn enters it."""

    __slots__ = ("_changed", "running")

    def __init__(self, changed: asyncio.Event) -> None:
        self._changed = changed
        self.running = 0

    def __enter__(self) -> None:
        self.running += 1

    def __exit__(self, *_: object) -> None:
        self.running -= 1
        self._changed.set()


class DrainState:
    """The connections and turns of one gateway. Once `draining` is set, no new ones may begin.

    Requests are still answered then. Their handlers refuse what would begin something, and let clients have the rest of
    what runs. Before that it may be `leaving`: everything goes on, while balancers find out that they shall ask others.
    """

    def __init__(self) -> None:
        self.leaving = False
        self.draining = False
        self._connections: set[Drainable] = set()
        self._changed = asyncio.Event()
        self._detached_turns = _RunningTurns(self._changed)

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._connections)

    @property
    def busy(self) -> int:
        """How many connections and detached turns a shutdown still waits for."""
        return len(self._connections) + self._detached_turns.running

    def connection_open(self, connection: Drainable) -> AbstractContextManager[None]:
        """Count a connection around a block."""
        return _OpenConnection(self._connections, connection, self._changed)

    def turn_running(self) -> AbstractContextManager[None]:
        """Count a detached turn around a block: one of an HTTP request, or a kept one. Connections count theirs."""
        return self._detached_turns

    async def drain_connections(self) -> None:
        """Ask every connection to end."""
        await asyncio.gather(*(connection.drain() for connection in self._connections), return_exceptions=True)

    async def wait_until_idle(self) -> None:
        """Wait until no connection is open and no detached turn runs."""
        while self.busy:
            self._changed.clear()
            await self._changed.wait()
