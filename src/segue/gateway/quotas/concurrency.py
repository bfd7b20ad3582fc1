"""Limits of what may be under way at once, `turns` and `connections`, over one gateway or several.

Where there are several, each has *places* under a limit, and begins only what it has a place for. It asks all others
for a place if it has none left, and gives back soon what it does not use. So what is begun never exceeds a limit.
A gateway may be refused a place that another one has and does not use: one of the last 100 ms, and of a large limit a
small part of what is free. Places are leased: a gateway that stood still has none any more. What it ran then goes on
and is counted, but others may have begun as much beside it; so when it ends, nothing begins in its place. While nothing
is shared each gateway counts for itself alone. Not here: limits of a minute (`shared_windows`), and what is said to who
is over (`quotas`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final, Literal

from segue.gateway.principal import Principal
from segue.gateway.quotas.quotas import Quotas, Scope, connection_limit_reached, refuse, turn_limit_reached
from segue.stores.live.interface import HeldPlaces, LiveUnavailable, Places, WantedPlaces
from segue.stores.live.lease_clock import TRUSTED_SHARE, boot_time

#: How often a gateway gives back what it does not use.
INTERVAL_S: Final = 0.05
#: After this part of the lease of its places it says again what it has.
_RENEWED_SHARE: Final = 0.2
#: For so many intervals it keeps a reserve.
_RESERVE: Final = 20
#: Of a limit that is at least so large, this part of what is free is taken as a reserve.
_LARGE: Final = 64
_RESERVED_PART: Final = 16

Kind = Literal["turns", "connections"]


class _SharedLimit:
    """What this gateway has of one limit. Of what is `asking`, it is not known yet whether it may begin."""

    __slots__ = (
        *("age", "asking", "held", "kind", "lapses_at", "name", "others", "renew_at", "scope", "tenant", "told"),
        "unused",
    )

    def __init__(self, tenant: str, name: str, scope: Scope, kind: Kind) -> None:
        self.tenant = tenant
        self.name = name
        self.scope = scope
        self.kind = kind
        self.asking = 0
        self.held = 0  # so many places are surely its own, until `lapses_at`
        self.told = 0  # so many it has at most, as others see it
        self.others = 0
        self.unused = 0  # so many of its places were never used since the last interval
        self.age = 0  # intervals since the last call
        self.lapses_at = self.renew_at = 0.0

    @property
    def most(self) -> int | None:
        return self.scope.limits.turns if self.kind == "turns" else self.scope.limits.connections

    @property
    def used(self) -> int:
        return self.scope.running if self.kind == "turns" else self.scope.connections

    @property
    def left(self) -> int:
        return self.held - self.used - self.asking

    def take(self, answer: HeldPlaces, lapses_at: float) -> int:
        """Take an answer; return how many places are surely its own: perhaps fewer than are used."""
        most = self.most
        self.held = answer.held if most is None else min(answer.held, max(0, most - answer.others))
        self.others, self.lapses_at = answer.others, lapses_at
        return self.held

    def drop_lapsed(self, now: float) -> None:
        """Have no place any more if nothing was said for too long, as when the process was stopped."""
        if now >= self.lapses_at:
            self.held = self.unused = 0

    def reserve(self) -> int:
        most = self.most
        return 0 if most is None or most < _LARGE else max(0, most - self.told - self.others) // _RESERVED_PART


class ConcurrencyLimiter:
    """Begins turns and connections as far as the limits of their principals let it.

    `clock` gives unix seconds, and `monotonic` those that go on while the process is stopped.
    """

    def __init__(
        self,
        quotas: Quotas,
        places: Places | None,
        clock: Callable[[], float],
        monotonic: Callable[[], float] = boot_time,
    ) -> None:
        self.quotas = quotas
        self._places = places
        self._clock = clock
        self._monotonic = monotonic
        self._limits: dict[tuple[str, str], _SharedLimit] = {}
        self.alone = False
        """Whether others could not be asked the last time, so that this gateway counts for itself."""

    async def begin(self, principal: Principal) -> Sequence[Scope]:
        """Begin a turn; `Quotas.end` gets what is returned.

        Raises:
            Refused: the principal is over a limit; nothing was taken.
        """
        await self._make_room(principal, "turns")
        return self.quotas.begin(principal, self._clock())

    @asynccontextmanager
    async def connected(self, principal: Principal) -> AsyncIterator[None]:
        """Count a connection around a block.

        Raises:
            Refused: the principal has as many as it may have.
        """
        await self._make_room(principal, "connections")
        with self.quotas.connected(principal):
            yield

    async def run(self) -> None:
        """Give back what is not used, and say what is, at an interval."""
        while True:
            await asyncio.sleep(INTERVAL_S)
            await self.settle()

    async def settle(self) -> None:
        """Give back what was not used since the last time, and say again what is used."""
        due: dict[str, list[_SharedLimit]] = {}
        now = self._monotonic()
        for key, limit in list(self._limits.items()):
            limit.age += 1
            if limit.asking:
                continue
            limit.drop_lapsed(now)
            limit.held -= max(0, limit.unused - (limit.reserve() if limit.age < _RESERVE else 0))
            limit.unused = max(0, limit.left)
            if max(limit.held, limit.used) != limit.told or (limit.told and now >= limit.renew_at):
                due.setdefault(limit.tenant, []).append(limit)
            elif not limit.told:
                del self._limits[key]
        for limits in due.values():
            settled = [limit for limit in limits if not limit.asking]  # since it was looked at
            try:
                await self._hold(settled, [limit.held for limit in settled])
            except LiveUnavailable:
                return

    def tell_again(self) -> None:
        """Say what is used as soon as possible: what was said may be lost."""
        for limit in self._limits.values():
            limit.told = -1

    # --- private -----------------------------------------------------------------------------------------------------

    async def _make_room(self, principal: Principal, kind: Kind) -> None:
        """See to it that there is a place under each limit; whoever uses it must not await anything before."""
        if self._places is None:
            return
        limits = self._limits_of(principal, kind)
        now = self._monotonic()
        for limit in limits:
            limit.drop_lapsed(now)
        if all(limit.left > 0 for limit in limits):
            for limit in limits:
                limit.unused = min(limit.unused, limit.left - 1)
            return
        over = await self._ask_for_one(limits)
        if over is not None:
            refuse(
                over.scope, turn_limit_reached(over.scope) if kind == "turns" else connection_limit_reached(over.scope)
            )

    async def _ask_for_one(self, limits: Sequence[_SharedLimit]) -> _SharedLimit | None:
        """Ask for a place under each limit; return the one that has none, if others can be asked."""
        for limit in limits:
            limit.asking += 1
        try:
            while True:
                needed = [limit.used + limit.asking for limit in limits]
                wanted = [max(limit.held, need + limit.reserve()) for need, limit in zip(needed, limits, strict=True)]
                held = await self._hold(limits, wanted)
                if all(self._monotonic() < limit.lapses_at for limit in limits):
                    break  # otherwise it stood still meanwhile, and others may have what it was given
        except LiveUnavailable:
            return None
        finally:
            for limit in limits:
                limit.asking -= 1
        return next((limit for need, limit, own in zip(needed, limits, held, strict=True) if own < need), None)

    async def _hold(self, limits: Sequence[_SharedLimit], wanted: Sequence[int]) -> Sequence[int]:
        """Ask for so many places, and for what is used in any case; return how many are surely this gateway's.

        What is given up must not be used any more.
        """
        if self._places is None or not limits:
            return ()
        asked_at, lease_s = self._monotonic(), self._places.lease_s
        asked = []
        for limit, count in zip(limits, wanted, strict=True):
            limit.told = max(count, limit.used)
            limit.age, limit.renew_at = 0, asked_at + lease_s * _RENEWED_SHARE
            most = limit.told if limit.most is None else limit.most
            asked.append(WantedPlaces(limit.name, limit.used, limit.told, most))
        try:
            answers = await self._places.hold(limits[0].tenant, asked)
        except LiveUnavailable:
            self.alone = True
            self.tell_again()
            raise
        self.alone = False
        lapses_at = asked_at + lease_s * TRUSTED_SHARE  # answers come in the order of the calls
        return [limit.take(answer, lapses_at) for limit, answer in zip(limits, answers, strict=True)]

    def _limits_of(self, principal: Principal, kind: Kind) -> Sequence[_SharedLimit]:
        """Return the limits of this kind that hold for a principal: of its key, and of its tenant."""
        scopes = self.quotas.scopes(principal)
        names = (kind,) if len(scopes) == 1 else (f"key:{principal.key}:{kind}", kind)
        found = []
        for name, scope in zip(names, scopes, strict=True):
            limit = self._limits.get((principal.tenant, name))
            if limit is None:
                limit = _SharedLimit(principal.tenant, name, scope, kind)
            if limit.most is not None:
                self._limits[principal.tenant, name] = limit
                found.append(limit)
        return found
