"""The events of one turn between the socket and whoever reads them: bounded in bytes.

The socket's reader puts events in, and waits while the queue is full, so that a slow reader slows its server. Not here:
which events are whose (`demultiplexer`).
"""

from __future__ import annotations

import asyncio
from collections import deque

from segue.client.recovery import TurnFault


class LaneQueue:
    """The events of one turn that have come and are not read yet; after them the fault, if it ended with one."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._events: deque[bytes] = deque()
        self._bytes = 0
        self._fault: TurnFault | None = None
        self._ended = False
        self._came = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()

    @property
    def full(self) -> bool:
        """True while no more should be put in."""
        return not self._room.is_set()

    def put(self, event: bytes) -> None:
        """Add an event. One that is larger than the bound is taken too: it is here already."""
        self._events.append(event)
        self._bytes += len(event)
        if self._bytes >= self._max_bytes:
            self._room.clear()
        self._came.set()

    def end(self, fault: TurnFault | None = None) -> None:
        """Say that nothing more comes; of two ends the first counts."""
        if not self._ended:
            self._ended, self._fault = True, fault
        self._room.set()
        self._came.set()

    def clear(self) -> None:
        """Drop everything, and end: nobody reads any more."""
        self._events.clear()
        self._ended, self._fault = True, None
        self.end()

    async def wait_for_room(self) -> None:
        """Wait until the queue is not full."""
        await self._room.wait()

    async def get(self) -> bytes | TurnFault | None:
        """Return the next event; at the end the fault, once, and then None."""
        while not self._events:
            if self._ended:
                fault, self._fault = self._fault, None
                return fault
            self._came.clear()
            await self._came.wait()
        event = self._events.popleft()
        self._bytes -= len(event)
        if self._bytes < self._max_bytes:
            self._room.set()
        return event
