"""Bases: the bodies and folded replies of the last exchanges, by tenant, in memory only and bounded in bytes.

Losing one costs one full send and nothing else. A base is looked up under the tenant of the tunnel's key, so no tenant
can find out what another one has sent. Threads that rebuild large bodies look bases up here too. Not here: what a base
is for (`segue.tunnel.documents`).
"""

from __future__ import annotations

import threading

from segue.byte_lru import ByteLru
from segue.tunnel.documents import Base


class Bases:
    """The bases of all tenants; each tenant has the same budget, and its least recently used bases leave first."""

    def __init__(self, tenant_budget_bytes: int) -> None:
        self._budget_bytes = tenant_budget_bytes
        self._tenants: dict[str, ByteLru[bytes, Base]] = {}
        self._lock = threading.Lock()

    @property
    def size_bytes(self) -> int:
        """The size of the bases of all tenants."""
        with self._lock:
            return sum(bases.size_bytes for bases in self._tenants.values())

    def get(self, tenant: str, base_id: bytes) -> Base | None:
        """Return a base of this tenant, which makes it a recently used one."""
        with self._lock:
            bases = self._tenants.get(tenant)
            return None if bases is None else bases.get(base_id)

    def add(self, tenant: str, base: Base) -> None:
        """Keep a base; it replaces one with the same body. A base that is larger than the budget is not kept."""
        with self._lock:
            self._of(tenant).put(base.id, base, size_bytes=base.size)

    def add_body(self, tenant: str, base: Base) -> None:
        """Keep a base whose reply has not come yet, unless there is one with the same body."""
        with self._lock:
            bases = self._of(tenant)
            if bases.get(base.id) is None:
                bases.put(base.id, base, size_bytes=base.size)

    def complete(self, tenant: str, base_id: bytes, reply: bytes) -> None:
        """Put the folded reply to its body, if it is still there. It replaces an earlier reply to the same body."""
        with self._lock:
            bases = self._of(tenant)
            base = bases.get(base_id)
            if base is not None:
                base = Base(base.body, reply, body_id=base_id)
                bases.put(base_id, base, size_bytes=base.size)

    def drop_tenant(self, tenant: str) -> int:
        """Drop the bases of a tenant; return how many there were."""
        with self._lock:
            return len(self._tenants.pop(tenant, ()))

    def _of(self, tenant: str) -> ByteLru[bytes, Base]:
        return self._tenants.setdefault(tenant, ByteLru(self._budget_bytes))
