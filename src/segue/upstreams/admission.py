"""Waiting for a place at an upstream: the shell around `fairness`.

A turn enters with `async with admission.place(tenant)`; it is refused when too many wait already, when it is displaced
by a tenant that has less waiting, or when its patience is over. One that is cancelled while it waits leaves no trace.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from segue.protocol.problems import Problem, Refused
from segue.upstreams.fair_queue import FairQueue

#: When a client that found no place may try again, in seconds.
_RETRY_AFTER_S = 1.0


class AdmissionQueue:
    """The places of one upstream: `limit` turns run, `max_waiting` wait for at most `patience_s` each."""

    def __init__(self, name: str, *, limit: int, max_waiting: int, patience_s: float) -> None:
        self._name = name
        self._queue: FairQueue[asyncio.Future[None]] = FairQueue(limit, max_waiting)
        self._patience_s = patience_s

    @property
    def running(self) -> int:
        """How many turns have a place."""
        return self._queue.running

    @property
    def waiting(self) -> int:
        """How many turns wait for one."""
        return self._queue.waiting

    @asynccontextmanager
    async def place(self, tenant: str) -> AsyncIterator[None]:
        """Hold a place around a block; raises `Refused` if there is none."""
        await self._enter(tenant)
        try:
            yield
        finally:
            self._leave(tenant)

    async def _enter(self, tenant: str) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entered = self._queue.enter(tenant, turn)
        if entered.displaced is not None:
            entered.displaced.set_exception(Refused(self._full()))
        if entered.state == "refused":
            raise Refused(self._full())
        if entered.state == "waits":
            await self._wait(tenant, turn)

    async def _wait(self, tenant: str, turn: asyncio.Future[None]) -> None:
        """Wait until the ticket runs. Whatever ends the waiting, a place that was given is kept or passed on."""
        try:
            async with asyncio.timeout(self._patience_s):
                await asyncio.shield(turn)
        except TimeoutError:
            if self._was_given(tenant, turn):
                return  # in the same moment
            raise Refused(self._busy()) from None
        except asyncio.CancelledError:
            if self._was_given(tenant, turn):
                self._leave(tenant)
            raise

    def _was_given(self, tenant: str, turn: asyncio.Future[None]) -> bool:
        if self._queue.withdraw(tenant, turn):
            return False
        return turn.done() and turn.exception() is None

    def _leave(self, tenant: str) -> None:
        following = self._queue.leave(tenant)
        if following is not None:
            following[1].set_result(None)

    def _full(self) -> Problem:
        message = f"Too many turns wait for the upstream {self._name!r}. Try again later."
        return Problem("server_overloaded", message, retry_after_s=_RETRY_AFTER_S)

    def _busy(self) -> Problem:
        message = (
            f"The upstream {self._name!r} had no place for this turn within {self._patience_s:g} s. Try again later."
        )
        return Problem("server_overloaded", message, retry_after_s=_RETRY_AFTER_S)
