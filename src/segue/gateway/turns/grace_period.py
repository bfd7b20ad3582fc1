"""Unstored turns that outlive their connection for a while, so that the same tenant can go on from another one.

They stay in the memory budget like every turn, under a slot of their own, and nowhere else. Not here: when a turn is
parked, which its connection decides.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from segue.history.cache import Slot, TurnCache
from segue.history.chains import Turn
from segue.protocol.ids import ResponseId

#: Takes note that some unstored responses of a tenant are let go of.
Release = Callable[[str, Sequence[ResponseId]], None]


class Parking:
    """The parked turns of all tenants; `clock` gives unix seconds, `release` is told of those whose time has come."""

    def __init__(self, cache: TurnCache, clock: Callable[[], float], release: Release) -> None:
        self._cache = cache
        self._clock = clock
        self._release = release
        self._until: dict[tuple[str, str], float] = {}  # by tenant and response
        self._timer: asyncio.TimerHandle | None = None

    @staticmethod
    def slot(tenant: str, response_id: str) -> Slot:
        """Return where a turn is when it is parked."""
        return (("parked", tenant), response_id)

    def park(self, tenant: str, turn: Turn, expires_at: float) -> None:
        """Keep a turn until then, or longer if it is already parked for longer."""
        name, slot = (tenant, turn.id), self.slot(tenant, turn.id)
        if self._cache.peek_slot(slot) is not turn:
            self._cache.put_slot(tenant, slot, turn)
        self._until[name] = max(expires_at, self._until.get(name, expires_at))
        self._arm(expires_at)

    def drop(self, tenant: str, response_id: str) -> None:
        """Forget a turn, parked or not."""
        self._until.pop((tenant, response_id), None)
        self._cache.drop_slot(self.slot(tenant, response_id))

    def purge(self) -> None:
        """Forget the turns whose time has come."""
        now = self._clock()
        for tenant, response_id in [name for name, expires_at in self._until.items() if expires_at <= now]:
            self.drop(tenant, response_id)
            self._release(tenant, [ResponseId(response_id)])

    def close(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()

    def _arm(self, expires_at: float) -> None:
        """See to it that nothing stays much longer than it may."""
        loop = asyncio.get_running_loop()
        when = loop.time() + max(0.0, expires_at - self._clock())
        if self._timer is None or self._timer.when() > when:
            self.close()
            self._timer = loop.call_at(when, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self.purge()
        if self._until:
            self._arm(min(self._until.values()))
