"""Advisory locks in Redis: of several nodes one has a lock, as long as it lives.

The lock of a node that lives no more is taken over. A node whose lease has ended in between asks whether a lock is
still its own before it relies on it. While Redis is away each node locks alone: what must hold then too, the store
makes sure of. Not here: what is locked.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from typing import Final

import msgspec

from segue.stores.live.interface import LiveUnavailable
from segue.stores.live.owed_work import OwedWork
from segue.stores.live.redis_link import RedisLink, load_script
from segue.stores.live.redis_nodes import RedisNodes
from segue.stores.live.tenant_keys import tenant_tag

#: How long a lock is kept at most: longer than any turn runs.
_KEPT_MS: Final = 24 * 3600 * 1000

#: A fencing token, and what names the data in Redis: a lock that was taken under another pair may be lost.
_Lease = tuple[int, bytes]


class _HeldLock(msgspec.Struct):
    """A lock of this node, and the lease under which all nodes know of it; None if they may not."""

    holder: str
    lease: _Lease | None = None


class RedisLocks:
    """The locks of all nodes."""

    def __init__(self, link: RedisLink, nodes: RedisNodes) -> None:
        self._link = link
        self._nodes = nodes
        self._held: dict[tuple[str, str], _HeldLock] = {}
        self.owed = OwedWork(self._release)
        self._take, self._drop = load_script("take_lock"), load_script("release_lock")

    async def take(self, tenant: str, name: str, holder: str) -> bool:
        """Take a lock; False if another one has it, at whatever node that lives."""
        held = self._held.setdefault((tenant, name), _HeldLock(holder))
        if held.holder != holder:
            return False
        try:
            return await self._share(tenant, name, held)
        except asyncio.CancelledError:
            self._forget(tenant, name, holder)
            self.owed.owe((tenant, name, holder))  # it may have been taken
            raise

    async def keeps(self, tenant: str, name: str, holder: str) -> bool:
        """Say whether a holder has its lock still. Redis is asked only if the lease was another one in between."""
        held = self._held.get((tenant, name))
        if held is None or held.holder != holder:
            return False
        if self._nodes.held and held.lease == self._lease:
            return True
        return await self._share(tenant, name, held)

    async def release(self, tenant: str, name: str, holder: str) -> None:
        """Let others take a lock; if Redis is away, as soon as it is back."""
        self._forget(tenant, name, holder)
        await self.owed.do_or_owe((tenant, name, holder))

    async def renew(self) -> None:
        """Take the locks of this node again, after the data in Redis was lost."""
        held = list(self._held.items())
        await asyncio.gather(*(self._ask(tenant, name, one) for (tenant, name), one in held), return_exceptions=True)

    async def aclose(self) -> None:
        """Leave the locks to who finds that this node is gone."""
        await self.owed.aclose()

    @property
    def _lease(self) -> _Lease:
        return self._nodes.token, self._nodes.epoch

    async def _share(self, tenant: str, name: str, held: _HeldLock) -> bool:
        """Take a lock that this node has, for all nodes; if they cannot be asked, it is its own alone."""
        try:
            taken = await self._ask(tenant, name, held)
        except LiveUnavailable:
            return True
        if not taken:
            self._forget(tenant, name, held.holder)
        return taken

    async def _ask(self, tenant: str, name: str, held: _HeldLock) -> bool:
        lease = self._lease
        found = await self._try(tenant, name, held.holder)
        node = found[1].decode() if found else ""
        if found and (node == self._nodes.id or await self._nodes.is_gone(node)):  # its own: the release is still owed
            found = await self._try(tenant, name, held.holder, replaced=found[0].decode())
        if not found:
            held.lease = lease
        return not found

    async def _try(self, tenant: str, name: str, holder: str, *, replaced: str = "") -> Sequence[bytes]:
        keys = [self._key(tenant, name)]
        found: Sequence[bytes] = await self._link.run(self._take, keys, holder, self._nodes.id, _KEPT_MS, replaced)
        return found

    async def _release(self, lock: tuple[str, str, str]) -> None:
        tenant, name, holder = lock
        await self._link.run(self._drop, [self._key(tenant, name)], holder)

    def _forget(self, tenant: str, name: str, holder: str) -> None:
        held = self._held.get((tenant, name))
        if held is not None and held.holder == holder:
            del self._held[tenant, name]

    def _key(self, tenant: str, name: str) -> str:
        return f"{tenant_tag(self._link.prefix, tenant)}:lock:{hashlib.sha256(name.encode()).hexdigest()[:32]}"
