"""How many bytes may wait to be written at once. Not here: what is written (`group_commit`, `postgres.appends`)."""

from __future__ import annotations

import asyncio


class QueueAdmission:
    """How many bytes may be queued at once. Who finds no room waits, in the order they came."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self.queued_bytes = 0  # admitted and not yet committed
        self.order = asyncio.Lock()
        self._waiting = 0  # how many have the lock, or wait for it
        self._room = asyncio.Event()

    async def admit(self, size: int) -> None:
        """Wait until the queue has room. An operation larger than the whole queue waits until the queue is empty."""
        if self._waiting or not self._has_room(size):
            self._waiting += 1
            try:
                async with self.order:
                    while not self._has_room(size):
                        self._room.clear()
                        await self._room.wait()
            finally:
                self._waiting -= 1
        self.queued_bytes += size

    def release(self, size: int) -> None:
        """Give the room of an operation back."""
        self.queued_bytes -= size
        self._room.set()

    def _has_room(self, size: int) -> bool:
        return not self.queued_bytes or self.queued_bytes + size <= self._most_bytes
