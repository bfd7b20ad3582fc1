"""What the requests under way hold in memory, and which of them have to wait for that.

Tenants share a budget. A tenant that has less than its even share is never stopped, whatever the others do; beyond the
budget, the requests of one that has more wait until some of its own have ended, and it may always have one. So a tenant
whose replies nobody reads waits for itself, and memory is bounded by the budget, once more for those below their share,
and one request for each tenant. Not here: bodies that are not whole yet (`tunnel.uploads`), and histories, which have
budgets of their own.
"""

from __future__ import annotations

import asyncio
import weakref
from collections import deque
from collections.abc import Sequence
from contextlib import suppress


class HeldRequest:
    """A request that counts until it is released."""

    __slots__ = ("_admitted", "_memory", "_owner", "counted", "size_bytes", "tenant")

    def __init__(self, memory: RequestMemory, tenant: str, size_bytes: int) -> None:
        self._memory = memory
        self._admitted: asyncio.Event | None = None
        self._owner: weakref.ref[object] | None = None
        self.tenant = tenant
        self.size_bytes = size_bytes
        self.counted = False

    async def admitted(self) -> None:
        """Wait until the request may go on."""
        if not self.counted:
            self._admitted = self._admitted or asyncio.Event()
            await self._admitted.wait()

    def admit(self) -> None:
        """Let it go on."""
        self.counted = True
        if self._admitted is not None:
            self._admitted.set()

    def release(self) -> None:
        """Count it no more, and let others go on; to do so again does nothing."""
        self._memory.release(self)

    def release_with(self, owner: object) -> None:
        """Release it when nothing refers to `owner` any more."""
        self._owner = weakref.ref(owner, self._owner_gone)
        self._memory.owned.add(self)

    def _owner_gone(self, _: weakref.ref[object]) -> None:
        self._memory.owned.discard(self)
        self._memory.release(self)


class RequestMemory:
    """The requests of all tenants."""

    def __init__(self, budget_bytes: int) -> None:
        self._budget_bytes = budget_bytes
        self._held: dict[str, int] = {}  # bytes, of the tenants that hold some
        self._waiting: dict[str, deque[HeldRequest]] = {}
        self.owned: set[HeldRequest] = set()
        """Those that are released with what they belong to. Without this, nothing might keep them until then."""
        self.size_bytes = 0
        """How much all of them hold."""

    def hold(self, tenant: str, size_bytes: int) -> HeldRequest:
        """Take a request in: it goes on at once, or after those of its tenant that wait already."""
        request = HeldRequest(self, tenant, max(1, size_bytes))
        is_small = not self._waiting and self.size_bytes + request.size_bytes <= self._budget_bytes  # nearly always
        if is_small or (tenant not in self._waiting and self._has_room(tenant, request.size_bytes)):
            self._count(request)
        else:
            self._waiting.setdefault(tenant, deque()).append(request)
        return request

    def keep(self, tenant: str, size_bytes: int) -> HeldRequest:
        """Count what outlives a request that was taken in."""
        request = HeldRequest(self, tenant, max(1, size_bytes))
        self._count(request)
        return request

    def waiting(self, tenant: str) -> Sequence[HeldRequest]:
        """Return the requests of a tenant that wait, the oldest first."""
        return self._waiting.get(tenant, ())

    def release(self, request: HeldRequest) -> None:
        """Count a request no more, or let it wait no more."""
        if request.counted:
            request.counted = False
            self.size_bytes -= request.size_bytes
            left = self._held[request.tenant] - request.size_bytes
            if left:
                self._held[request.tenant] = left
            else:
                del self._held[request.tenant]
        else:
            with suppress(KeyError, ValueError):  # it was released before
                self._waiting[request.tenant].remove(request)
        if self._waiting:
            for tenant in list(self._waiting):
                self._admit(tenant, self._waiting[tenant])

    def _admit(self, tenant: str, waiting: deque[HeldRequest]) -> None:
        while waiting and self._has_room(tenant, waiting[0].size_bytes):
            request = waiting.popleft()
            self._count(request)
            request.admit()
        if not waiting:
            del self._waiting[tenant]

    def _has_room(self, tenant: str, size_bytes: int) -> bool:
        held = self._held.get(tenant)
        return (
            held is None
            or self.size_bytes + size_bytes <= self._budget_bytes
            or (held + size_bytes) * len(self._held) <= self._budget_bytes
        )

    def _count(self, request: HeldRequest) -> None:
        request.counted = True
        self.size_bytes += request.size_bytes
        self._held[request.tenant] = self._held.get(request.tenant, 0) + request.size_bytes
