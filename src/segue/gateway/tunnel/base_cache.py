"""Bases: the bodies and folded replies of the last exchanges, by tenant, in memory only and bounded in bytes.

Losing one costs one full send and nothing else. A base is looked up under the tenant of the tunnel's key, so nobody can
find out what another tenant has sent. Large bodies are rebuilt in threads, where bases are looked up too. Not here:
what a base is for (`segue.tunnel.documents`).
"""

from __future__ import annotations

import threading
from collections import OrderedDict

from segue.tunnel.documents import Base


class Bases:
    """The bases of all tenants; each has the same budget, and its least recently used ones leave first."""

    def __init__(self, tenant_budget_bytes: int) -> None:
        self._budget_bytes = tenant_budget_bytes
        self._tenants: dict[str, _Held] = {}
        self._lock = threading.Lock()

    @property
    def size_bytes(self) -> int:
        """What all tenants' bases take."""
        with self._lock:
            return sum(held.size_bytes for held in self._tenants.values())

    def get(self, tenant: str, base_id: bytes) -> Base | None:
        """Return a base of this tenant, which makes it a recently used one."""
        with self._lock:
            held = self._tenants.get(tenant)
            return None if held is None else held.get(base_id)

    def add(self, tenant: str, base: Base) -> None:
        """Keep a base; one with the same body is replaced. What is larger than the budget is not kept."""
        with self._lock:
            self._tenants.setdefault(tenant, _Held()).add(base, self._budget_bytes)


class _Held:
    def __init__(self) -> None:
        self._bases: OrderedDict[bytes, Base] = OrderedDict()
        self.size_bytes = 0

    def get(self, base_id: bytes) -> Base | None:
        base = self._bases.get(base_id)
        if base is not None:
            self._bases.move_to_end(base_id)
        return base

    def add(self, base: Base, budget_bytes: int) -> None:
        before = self._bases.pop(base.id, None)
        if before is not None:
            self.size_bytes -= before.size
        if base.size > budget_bytes:
            return
        self._bases[base.id] = base
        self.size_bytes += base.size
        while self.size_bytes > budget_bytes:
            _, oldest = self._bases.popitem(last=False)
            self.size_bytes -= oldest.size
