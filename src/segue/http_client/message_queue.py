"""The messages of one turn between a WebSocket and whoever reads them: bounded in bytes, and so in number.

The socket's reader puts messages in, and waits while the queue is full, so that a slow reader slows its server. Not
here: which messages are whose.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Generic, TypeVar

F = TypeVar("F")

#: What a message counts beside its bytes, so that many tiny ones are not few.
EACH_BYTES = 64


class MessageQueue(Generic[F]):
    """The messages of one turn that have come and are not read yet; after them the fault, if it ended with one."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._messages: deque[bytes] = deque()
        self._bytes = 0
        self._fault: F | None = None
        self._ended = False
        self._came = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()

    @property
    def full(self) -> bool:
        """True while no more should be put in."""
        return not self._room.is_set()

    @property
    def size_bytes(self) -> int:
        """What the messages that wait count."""
        return self._bytes

    def put(self, message: bytes) -> None:
        """Add a message. One that is larger than the bound is taken too: it is here already."""
        self._messages.append(message)
        self._bytes += len(message) + EACH_BYTES
        if self._bytes >= self._max_bytes:
            self._room.clear()
        self._came.set()

    def end(self, fault: F | None = None) -> None:
        """Say that nothing more comes; of two ends the first counts."""
        if not self._ended:
            self._ended, self._fault = True, fault
        self._room.set()
        self._came.set()

    def clear(self, fault: F | None = None) -> None:
        """Drop everything, and end, with a fault if somebody still reads."""
        self._messages.clear()
        self._bytes = 0
        self._ended, self._fault = True, fault
        self.end()

    async def wait_for_room(self) -> None:
        """Wait until the queue is not full."""
        await self._room.wait()

    async def get(self) -> bytes | F | None:
        """Return the next message; at the end the fault, once, and then None."""
        while not self._messages:
            if self._ended:
                fault, self._fault = self._fault, None
                return fault
            self._came.clear()
            await self._came.wait()
        message = self._messages.popleft()
        self._bytes -= len(message) + EACH_BYTES
        if self._bytes < self._max_bytes:
            self._room.set()
        return message

    async def get_some(self, max_bytes: int) -> list[bytes] | F | None:
        """Return messages that are here, up to one more than `max_bytes`; wait for the first; at the end as `get`."""
        first = await self.get()
        if not isinstance(first, bytes):
            return first
        messages, size = [first], len(first) + EACH_BYTES
        while self._messages and size < max_bytes:
            messages.append(self._messages.popleft())
            size += len(messages[-1]) + EACH_BYTES
        self._bytes -= size - len(first) - EACH_BYTES
        if self._bytes < self._max_bytes:
            self._room.set()
        return messages
