"""Limits of what may be under way at once, `turns` and `connections`, over one gateway or several.

Where there are several, each has *places* under a limit, and begins only what it has a place for. It asks all others
for a place if it has none left, and gives back soon what it does not use. So what is begun never exceeds a limit.
A gateway may be refused a place that another one has and does not use: one of the last 100 ms, and of a large limit a
small part of what is free. While nothing is shared each gateway counts for itself alone. Not here: limits of a minute
(`shared_windows`), and what is said to who is over (`quotas`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final, Literal

from segue.gateway.principal import Principal
from segue.gateway.quotas.quotas import Quotas, Scope, connection_limit_reached, refuse, turn_limit_reached
from segue.stores.live.interface import HeldPlaces, LiveUnavailable, Places, WantedPlaces

#: How often a gateway gives back what it does not use.
INTERVAL_S: Final = 0.05
#: After so many intervals it says again what it has; for so many it keeps a reserve.
_REFRESH: Final = 40
_RESERVE: Final = 20
#: Of a limit that is at least so large, this part of what is free is taken as a reserve.
_LARGE: Final = 64
_RESERVED_PART: Final = 16

Kind = Literal["turns", "connections"]


class _SharedLimit:
    """What this gateway has of one limit. Of what is `asking`, it is not known yet whether it may begin."""

    __slots__ = ("age", "asking", "held", "kind", "name", "others", "scope", "tenant", "told", "unused")

    def __init__(self, tenant: str, name: str, scope: Scope, kind: Kind) -> None:
        self.tenant = tenant
        self.name = name
        self.scope = scope
        self.kind = kind
        self.asking = 0
        self.held = 0  # so many places are surely its own
        self.told = 0  # so many it has at most, as others see it
        self.others = 0
        self.unused = 0  # so many of its places were never used since the last interval
        self.age = 0  # intervals since the last call

    @property
    def most(self) -> int | None:
        return self.scope.limits.turns if self.kind == "turns" else self.scope.limits.connections

    @property
    def used(self) -> int:
        return self.scope.running if self.kind == "turns" else self.scope.connections

    @property
    def left(self) -> int:
        return self.held - self.used - self.asking

    def reserve(self) -> int:
        most = self.most
        return 0 if most is None or most < _LARGE else max(0, most - self.told - self.others) // _RESERVED_PART


class ConcurrencyLimiter:
    """Begins turns and connections as far as the limits of their principals let it. `clock` gives unix seconds."""

    def __init__(self, quotas: Quotas, places: Places | None, clock: Callable[[], float]) -> None:
        self.quotas = quotas
        self._places = places
        self._clock = clock
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
        for key, limit in list(self._limits.items()):
            limit.age += 1
            if limit.asking:
                continue
            limit.held -= max(0, limit.unused - (limit.reserve() if limit.age < _RESERVE else 0))
            limit.unused = max(0, limit.left)
            if max(limit.held, limit.used) != limit.told or (limit.told and limit.age >= _REFRESH):
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
        if all(limit.left > 0 for limit in limits):
            for limit in limits:
                limit.unused = min(limit.unused, limit.left - 1)
            return
        for limit in limits:
            limit.asking += 1
        needed = [limit.used + limit.asking for limit in limits]
        try:
            wanted = [max(limit.held, need + limit.reserve()) for need, limit in zip(needed, limits, strict=True)]
            answers = await self._hold(limits, wanted)
        except LiveUnavailable:
            return
        finally:
            for limit in limits:
                limit.asking -= 1
        for need, limit, answer in zip(needed, limits, answers, strict=True):
            if answer.held < need:
                refuse(
                    limit.scope,
                    turn_limit_reached(limit.scope) if kind == "turns" else connection_limit_reached(limit.scope),
                )

    async def _hold(self, limits: Sequence[_SharedLimit], wanted: Sequence[int]) -> Sequence[HeldPlaces]:
        """Ask for so many places, and for what is used in any case. What is given up must not be used any more."""
        if self._places is None or not limits:
            return ()
        asked = []
        for limit, count in zip(limits, wanted, strict=True):
            limit.told = max(count, limit.used)
            limit.age = 0
            most = limit.told if limit.most is None else limit.most
            asked.append(WantedPlaces(limit.name, limit.used, limit.told, most))
        try:
            answers = await self._places.hold(limits[0].tenant, asked)
        except LiveUnavailable:
            self.alone = True
            self.tell_again()
            raise
        self.alone = False
        for limit, answer in zip(limits, answers, strict=True):  # they come in the order of the calls
            limit.held, limit.others = answer.held, answer.others
        return answers

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
