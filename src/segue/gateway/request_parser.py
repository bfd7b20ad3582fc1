"""Reads requests as their protocol says, large ones in another thread, so that they hold up nobody.

One thread at a time reads large requests of a tenant, in slices of time, and two threads those of all, for tenants in
turn. More would only take the interpreter from the event loop more often. Not here: what a request says
(`segue.protocol.requests`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

import msgspec

from segue.dialects.doors import Door, DoorRequest, Speaks
from segue.dialects.messages.threads import may_have_thread, previous_message
from segue.http.client_frames import TextPieces
from segue.protocol.codec import is_utf8
from segue.protocol.problems import Problem
from segue.protocol.request_size import RequestLimits, go_on
from segue.protocol.requests import ClientMessage, Create, parse_create, parse_message
from segue.upstreams.admission import AdmissionQueue
from segue.upstreams.time_slices import TimeAccounts, TimeSlices

T = TypeVar("T")

#: A smaller request is read within some milliseconds.
LARGE_BYTES = 128 * 1024
_MOST_WAITING = 4096
_THREADS = 2


class RequestParser:
    """What all connections of a gateway read requests with."""

    def __init__(self, limits: RequestLimits, accounts: TimeAccounts | None = None) -> None:
        self.limits = limits
        self._accounts = accounts or TimeAccounts()
        self._queue = AdmissionQueue(
            "large requests", limit=_THREADS, max_waiting=_MOST_WAITING, timeout_s=None, most_of_one=1
        )

    async def create(self, body: bytes, tenant: str) -> Create | Problem:
        """Read the body of a create over HTTP."""
        if len(body) < LARGE_BYTES:
            return parse_create(body, "http", self.limits)
        return await self._in_thread(lambda limits: parse_create(body, "http", limits), tenant)

    async def message(self, text: bytes, tenant: str) -> ClientMessage | None:
        """Read a message of WebSocket mode; None if it is no text."""
        if len(text) < LARGE_BYTES:
            return _read_message(text, self.limits)
        return await self._in_thread(lambda limits: _read_message(text, limits), tenant)

    async def whole(self, text: TextPieces, tenant: str) -> bytes:
        """Return a text that came in pieces."""
        if text.size_bytes < LARGE_BYTES:
            return text.join(go_on)
        return await self._in_thread(lambda limits: text.join(limits.pause), tenant)

    async def door(self, door: Door, body: bytes, tenant: str, *, speaks: Speaks) -> DoorRequest | Problem:
        """Read the body of a request that came through the door of another API."""
        if len(body) < LARGE_BYTES:
            return door.read(body, speaks=speaks, limits=self.limits)
        return await self._in_thread(lambda limits: door.read(body, speaks=speaks, limits=limits), tenant)

    async def previous_message(self, body: bytes, tenant: str) -> str | None:
        """Return the id of the message that a request of a thread goes on from."""
        if not may_have_thread(body):
            return None
        if len(body) < LARGE_BYTES:
            return previous_message(body, self.limits)
        return await self._in_thread(lambda limits: previous_message(body, limits), tenant)

    async def _in_thread(self, read: Callable[[RequestLimits], T], tenant: str) -> T:
        slices = TimeSlices(asyncio.get_running_loop(), self._accounts, tenant)
        limits = msgspec.structs.replace(self.limits, pause=slices.pause)

        def read_in_slices() -> T:
            with slices:
                return read(limits)

        return await self._queue.run_in_thread(tenant, read_in_slices)


def _read_message(text: bytes, limits: RequestLimits) -> ClientMessage | None:
    return parse_message(text, limits) if text.isascii() or is_utf8(text) else None
