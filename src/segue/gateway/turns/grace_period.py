"""Unstored turns that outlive their connection for a while, so that their tenant can continue them from another one.

They count into the memory budget like every turn, in a slot of their own, and are nowhere else. Not here: when a turn's
grace period begins, which its connection decides.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Sequence
from math import inf

from segue.history.cache import Slot, TurnCache
from segue.history.chains import Turn
from segue.protocol.ids import ResponseId

#: Notes that unstored responses of a tenant are not held here any more.
Release = Callable[[str, Sequence[ResponseId]], None]


class GracePeriod:
    """The turns of all tenants that are in their grace period. `clock` gives unix seconds."""

    def __init__(self, cache: TurnCache, clock: Callable[[], float], release: Release) -> None:
        self._cache = cache
        self._clock = clock
        self._release = release
        self._until: dict[tuple[str, str], float] = {}  # by tenant and response
        self._queue: list[tuple[float, str, str]] = []  # a heap of the same; what was held for longer meanwhile too
        self._timer: asyncio.TimerHandle | None = None

    @staticmethod
    def slot(tenant: str, response_id: str) -> Slot:
        """Return the slot that holds a turn during its grace period."""
        return (("grace period", tenant), response_id)

    def retain(self, tenant: str, turn: Turn, expires_at: float) -> None:
        """Hold a turn until then, or longer if it is held for longer already."""
        name, slot = (tenant, turn.id), self.slot(tenant, turn.id)
        if self._cache.peek_slot(slot) is not turn:
            self._cache.put_slot(tenant, slot, turn)
        if expires_at <= self._until.get(name, -inf):
            return
        self._until[name] = expires_at
        heapq.heappush(self._queue, (expires_at, *name))
        self._arm(expires_at)

    def holds(self, tenant: str, response_id: str) -> bool:
        """Tell whether the grace period of a turn goes on."""
        return self._until.get((tenant, response_id), 0.0) > self._clock()

    def drop(self, tenant: str, response_id: str) -> None:
        """Hold a turn no longer, whether it was held or not."""
        self._until.pop((tenant, response_id), None)
        self._cache.drop_slot(self.slot(tenant, response_id))

    def drop_tenant(self, tenant: str) -> None:
        """Hold no turn of a tenant any longer."""
        for owner, response_id in [name for name in self._until if name[0] == tenant]:
            self.drop(owner, response_id)

    def purge(self) -> None:
        """Drop and release the turns whose grace period is over."""
        now, queue = self._clock(), self._queue
        while queue and queue[0][0] <= now:
            expires_at, tenant, response_id = heapq.heappop(queue)
            if self._until.get((tenant, response_id)) == expires_at:
                self.drop(tenant, response_id)
                self._release(tenant, [ResponseId(response_id)])

    def close(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()

    def _arm(self, expires_at: float) -> None:
        """Set the timer, unless it is set for an earlier time."""
        loop = asyncio.get_running_loop()
        when = loop.time() + max(0.0, expires_at - self._clock())
        if self._timer is None or self._timer.when() > when:
            self.close()
            self._timer = loop.call_at(when, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self.purge()
        if self._queue:
            self._arm(self._queue[0][0])
