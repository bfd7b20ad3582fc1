"""The admission queue of an upstream: it limits how many turns run at once and lets the others wait, fairly.

A turn holds a permit for as long as `async with queue.permit(tenant)` lasts. A turn without one is refused when the
queue is full, when a tenant with a shorter queue displaces it, or when it has waited for the time-out. If its task is
cancelled while it waits, it leaves the queue. Not here: who gets the next permit (`fair_queue`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from segue.protocol.problems import Problem, Refused
from segue.upstreams.fair_queue import FairQueue

T = TypeVar("T")

#: The `Retry-After` of a refusal, in seconds.
_RETRY_AFTER_S = 1.0


class AdmissionQueue:
    """The permits of one upstream: `limit` turns run, `max_waiting` wait, each `timeout_s` at most (None: for ever).

    `most_of_one` run of each tenant; without that, all but some of them.
    """

    def __init__(
        self, name: str, *, limit: int, max_waiting: int, timeout_s: float | None, most_of_one: int | None = None
    ) -> None:
        self._name = name
        self._queue: FairQueue[asyncio.Future[None]] = FairQueue(limit, max_waiting, most_of_one)
        self._timeout_s = timeout_s

    @property
    def running(self) -> int:
        """How many turns hold a permit."""
        return self._queue.running

    @property
    def waiting(self) -> int:
        """How many turns wait for a permit."""
        return self._queue.waiting

    @asynccontextmanager
    async def permit(self, tenant: str) -> AsyncIterator[None]:
        """Hold a permit for the length of a block. Raises `Refused` if the turn does not get one."""
        await self._enter(tenant)
        try:
            yield
        finally:
            self._leave(tenant)

    async def run_in_thread(self, tenant: str, work: Callable[[], T]) -> T:
        """Do something in a thread, with a permit. Raises `Refused` if there is none.

        Nobody can stop a thread. Who is cancelled waits for its end, so that the next one does not begin beside it.
        """
        async with self.permit(tenant):
            running = asyncio.ensure_future(asyncio.to_thread(work))
            try:
                return await asyncio.shield(running)
            except asyncio.CancelledError:
                await asyncio.gather(running, return_exceptions=True)
                raise

    async def _enter(self, tenant: str) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        admitted = self._queue.enter(tenant, turn)
        if admitted.displaced is not None:
            admitted.displaced.set_exception(Refused(self._full()))
        if admitted.state == "refused":
            raise Refused(self._full())
        if admitted.state == "waits":
            await self._wait(tenant, turn)

    async def _wait(self, tenant: str, turn: asyncio.Future[None]) -> None:
        """Wait for a permit. One that was granted just as the waiting ended is used, or passed on to the next turn."""
        try:
            async with asyncio.timeout(self._timeout_s):
                await asyncio.shield(turn)
        except TimeoutError:
            if self._was_granted(tenant, turn):
                return  # at the same moment as the time-out
            raise Refused(self._busy()) from None
        except asyncio.CancelledError:
            if self._was_granted(tenant, turn):
                self._leave(tenant)
            raise

    def _was_granted(self, tenant: str, turn: asyncio.Future[None]) -> bool:
        if self._queue.withdraw(tenant, turn):
            return False
        return turn.done() and turn.exception() is None

    def _leave(self, tenant: str) -> None:
        successor = self._queue.leave(tenant)
        if successor is not None:
            successor[1].set_result(None)

    def _full(self) -> Problem:
        message = f"Too many turns wait for the upstream {self._name!r}. Try again later."
        return Problem("server_overloaded", message, retry_after_s=_RETRY_AFTER_S)

    def _busy(self) -> Problem:
        message = f"The upstream {self._name!r} had no place for this turn in {self._timeout_s} s. Try again later."
        return Problem("server_overloaded", message, retry_after_s=_RETRY_AFTER_S)
