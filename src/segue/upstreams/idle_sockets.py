"""Which WebSockets of an upstream wait for a turn, and which of them a turn gets. Pure.

A socket has an owner: the tenant, the model and the header lines that it was opened with. Nobody else gets it. The
provider keeps the latest response of a socket in that connection's memory alone, so that the turn that continues it
goes to that socket and to no other; a socket without such a response is free for any turn of its owner. Over the limit,
the tenant that has most loses the one that has waited longest. A socket that has waited or lived too long is closed:
providers end connections after a time of their own, which should not hit a turn. Not here: the sockets themselves
(`provider_sockets`).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from segue.protocol.ids import ResponseId


class SocketOwner(NamedTuple):
    """Whose a socket is; `opened_for` is a digest of the model and the header lines."""

    tenant: str
    opened_for: bytes


class IdleLimits(msgspec.Struct, frozen=True, kw_only=True):
    """How many sockets of an upstream may wait for a turn, for how long, and how old one may be."""

    max_idle: int = 256
    idle_s: float = 600.0
    age_s: float = 3300.0


class _IdleSocket(NamedTuple):
    owner: SocketOwner
    head: ResponseId | None
    opened_at: float
    since: float


class IdleSockets:
    """The sockets that wait, by their numbers. Every `now` is of the same monotonic clock."""

    def __init__(self, limits: IdleLimits) -> None:
        self._limits = limits
        self._by_tenant: dict[str, OrderedDict[int, _IdleSocket]] = {}  # the one that has waited longest first
        self._tenant_of: dict[int, str] = {}
        self._free: dict[SocketOwner, OrderedDict[int, None]] = {}
        self._heads: dict[tuple[str, ResponseId], int] = {}

    def __len__(self) -> int:
        return len(self._tenant_of)

    def put(
        self, number: int, owner: SocketOwner, head: ResponseId | None, *, opened_at: float, now: float
    ) -> list[int]:
        """Let a socket wait, which holds the response `head` or none; return the sockets that must be closed."""
        assert number not in self._tenant_of, "it waits already"
        if self._is_old(opened_at, now):
            return [number]
        self._by_tenant.setdefault(owner.tenant, OrderedDict())[number] = _IdleSocket(owner, head, opened_at, now)
        self._tenant_of[number] = owner.tenant
        if head is None:
            self._free.setdefault(owner, OrderedDict())[number] = None
        else:
            self._heads[owner.tenant, head] = number
        evicted = []
        while len(self) > self._limits.max_idle:
            most = max(self._by_tenant.values(), key=len)
            evicted.append(next(iter(most)))
            self.remove(evicted[-1])
        return evicted

    def holder_of(self, tenant: str, response_id: ResponseId) -> int | None:
        """Return the socket that holds a response."""
        return self._heads.get((tenant, response_id))

    def take(self, number: int, owner: SocketOwner, now: float) -> bool:
        """Take a socket for a turn of this owner; return whether that could be done."""
        socket = self._find(number)
        if socket is None or socket.owner != owner or self._is_old(socket.opened_at, now):
            return False
        self.remove(number)
        return True

    def take_free(self, owner: SocketOwner, now: float) -> int | None:
        """Take a free socket of this owner, the one that was used last.

        If no more may wait, one that is not free does as well: another one would have to be closed for a new one.
        """
        numbers = [*reversed(self._free.get(owner, {}))]
        if len(self) >= self._limits.max_idle:
            numbers += self._by_tenant.get(owner.tenant, ())
        return next((number for number in numbers if self.take(number, owner, now)), None)

    def remove(self, number: int) -> None:
        """Forget a socket; one that does not wait is fine."""
        tenant = self._tenant_of.pop(number, None)
        if tenant is None:
            return
        sockets = self._by_tenant[tenant]
        socket = sockets.pop(number)
        if not sockets:
            del self._by_tenant[tenant]
        if socket.head is not None:
            del self._heads[tenant, socket.head]
            return
        free = self._free[socket.owner]
        del free[number]
        if not free:
            del self._free[socket.owner]

    def of_tenant(self, tenant: str) -> Sequence[int]:
        """Return the sockets of a tenant that wait."""
        return tuple(self._by_tenant.get(tenant, ()))

    def overdue(self, now: float) -> list[int]:
        """Return the sockets that have waited or lived too long. O(sockets)."""
        return [
            number
            for sockets in self._by_tenant.values()
            for number, one in sockets.items()
            if now - one.since >= self._limits.idle_s or self._is_old(one.opened_at, now)
        ]

    def _find(self, number: int) -> _IdleSocket | None:
        tenant = self._tenant_of.get(number)
        return None if tenant is None else self._by_tenant[tenant][number]

    def _is_old(self, opened_at: float, now: float) -> bool:
        return now - opened_at >= self._limits.age_s
