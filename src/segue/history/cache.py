"""Which turns stay in memory: recent turns of all tenants under one byte budget, each shared prefix counted once.

The cache holds a turn through *entries* of two kinds. The entry of a **slot** is the latest response of one lane on one
connection: the fast path, and the only entry of a store=false turn, which is gone with its connection. A **shared**
entry can be found by every request of its tenant: together they are the process-wide cache of stored turns. A turn
stays in memory while an entry or a child of it does, so the bytes of a prefix count once, however many branches share
it.

Over budget, the tenant that holds most loses its least recently used entry, again and again; a tenant within its even
share of the budget never loses anything to another. Only *leaves* are evicted, entries whose turn has no child in
memory, since evicting anything else would free nothing.

Pure: it decides and counts. Not here: what an eviction means for a client (`previous_response_not_found`, or a look-up
in the store), which is the shells' business.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable

from segue.history.chains import Turn
from segue.protocol.ids import ResponseId

#: One lane of one connection: `(connection, lane)`.
Slot = tuple[Hashable, str]


class _CacheEntry:
    """One reason to keep a turn in memory: a slot, or with None the tenant's shared entries."""

    __slots__ = ("slot", "turn")

    def __init__(self, turn: Turn, slot: Slot | None) -> None:
        self.turn = turn
        self.slot = slot


class _TenantEntries:
    """The entries of one tenant; `leaves` is ordered, the least recently used first."""

    __slots__ = ("by_id", "leaves", "shared", "size_bytes")

    def __init__(self) -> None:
        self.size_bytes = 0
        self.shared: dict[ResponseId, _CacheEntry] = {}
        self.by_id: dict[ResponseId, list[_CacheEntry]] = {}  # all entries of a turn, those of slots included
        self.leaves: OrderedDict[_CacheEntry, None] = OrderedDict()


class TurnCache:
    """Turns in memory. A method costs O(what it adds or evicts); over budget, each eviction looks at every tenant."""

    def __init__(self, budget_bytes: int) -> None:
        self._budget_bytes = budget_bytes
        self._tenants: dict[str, _TenantEntries] = {}
        self._slots: dict[Slot, tuple[str, _CacheEntry]] = {}
        self.size_bytes = 0
        self.evictions = 0

    def tenant_bytes(self, tenant: str) -> int:
        """Return how many bytes a tenant's turns take."""
        entries = self._tenants.get(tenant)
        return 0 if entries is None else entries.size_bytes

    def find_in_slot(self, slot: Slot, response_id: str, now: float) -> Turn | None:
        """Return the turn in a slot if it is the one asked for and has not expired."""
        found = self._slots.get(slot)
        if found is None or found[1].turn.id != response_id:
            return None
        return self._touch(*found, now)

    def find_shared(self, tenant: str, response_id: ResponseId, now: float) -> Turn | None:
        """Return a tenant's stored turn, if it is in memory and has not expired."""
        entries = self._tenants.get(tenant)
        entry = None if entries is None else entries.shared.get(response_id)
        return None if entry is None else self._touch(tenant, entry, now)

    def peek_stored(self, tenant: str, response_id: ResponseId) -> Turn | None:
        """Return a tenant's stored turn from any entry, expired or not: a chain may be built upon it."""
        entries = self._tenants.get(tenant)
        same_id = () if entries is None else entries.by_id.get(response_id, ())
        return next((entry.turn for entry in same_id if entry.turn.stored), None)

    def peek_slot(self, slot: Slot) -> Turn | None:
        """Return whatever turn is in a slot. This does not count as use."""
        found = self._slots.get(slot)
        return None if found is None else found[1].turn

    def has_turn(self, tenant: str, response_id: ResponseId) -> bool:
        """Return whether any entry holds a tenant's turn."""
        entries = self._tenants.get(tenant)
        return entries is not None and response_id in entries.by_id

    def put_slot(self, tenant: str, slot: Slot, turn: Turn) -> None:
        """Make `turn` the latest response of a lane, in place of what the slot held before."""
        entry = _CacheEntry(turn, slot)
        self._add(tenant, entry)
        self.drop_slot(slot)
        self._slots[slot] = (tenant, entry)
        self._evict_to_budget(keep=entry)

    def put_shared(self, tenant: str, turn: Turn) -> None:
        """Let every request of the tenant find this stored turn."""
        entries = self._tenants.get(tenant)
        if entries is not None and turn.id in entries.shared:
            return
        entry = _CacheEntry(turn, None)
        self._add(tenant, entry)
        self._tenants[tenant].shared[turn.id] = entry
        self._evict_to_budget(keep=entry)

    def drop_slot(self, slot: Slot, response_id: str | None = None) -> None:
        """Empty a slot; with `response_id`, only if it holds that response."""
        found = self._slots.get(slot)
        if found is None or (response_id is not None and found[1].turn.id != response_id):
            return
        del self._slots[slot]
        self._remove(*found)

    def forget(self, tenant: str, response_id: ResponseId) -> None:
        """Make a response unresolvable in every entry; its descendants keep its items."""
        entries = self._tenants.get(tenant)
        for entry in list(entries.by_id.get(response_id, ())) if entries is not None else ():
            self._drop(tenant, entry)

    def drop_tenant(self, tenant: str) -> int:
        """Drop every entry of a tenant, also those of connections; return how many turns there were."""
        entries = self._tenants.get(tenant)
        if entries is None:
            return 0
        found = [entry for same_id in entries.by_id.values() for entry in same_id]
        turns = len(entries.by_id)
        for entry in found:
            self._drop(tenant, entry)
        return turns

    def drop_stored(self, tenant: str | None = None) -> None:
        """Drop every entry of a stored turn, of one tenant or of all: each is looked up in the store again."""
        names = list(self._tenants) if tenant is None else [tenant]
        for name in names:
            entries = self._tenants.get(name)
            if entries is None:
                continue
            found = [entry for same_id in entries.by_id.values() for entry in same_id if entry.turn.stored]
            for entry in found:
                self._drop(name, entry)

    # --- private: entries --------------------------------------------------------------------------------------------

    def _touch(self, tenant: str, entry: _CacheEntry, now: float) -> Turn | None:
        turn = entry.turn
        if turn.expires_at is not None and now >= turn.expires_at:
            self.forget(tenant, turn.id)
            return None
        leaves = self._tenants[tenant].leaves
        if entry in leaves:
            leaves.move_to_end(entry)
        return turn

    def _add(self, tenant: str, entry: _CacheEntry) -> None:
        entries = self._tenants.get(tenant)
        if entries is None:
            entries = self._tenants[tenant] = _TenantEntries()
        self._retain(entries, entry.turn)
        entries.by_id.setdefault(entry.turn.id, []).append(entry)
        if not self._has_children(entries, entry.turn):
            entries.leaves[entry] = None

    def _drop(self, tenant: str, entry: _CacheEntry) -> None:
        if entry.slot is not None:
            self.drop_slot(entry.slot)
            return
        del self._tenants[tenant].shared[entry.turn.id]
        self._remove(tenant, entry)

    def _remove(self, tenant: str, entry: _CacheEntry) -> None:
        entries = self._tenants[tenant]
        same_id = entries.by_id[entry.turn.id]
        same_id.remove(entry)
        if not same_id:
            del entries.by_id[entry.turn.id]
        entries.leaves.pop(entry, None)
        self._release(entries, entry.turn)
        if not entries.by_id:
            del self._tenants[tenant]

    def _evict_to_budget(self, keep: _CacheEntry) -> None:
        """Evict entries until the budget is met; never the one just put, or a large turn could not be continued."""
        while self.size_bytes > self._budget_bytes:
            share = self._budget_bytes / len(self._tenants)
            above = [
                (entries.size_bytes, name) for name, entries in self._tenants.items() if entries.size_bytes > share
            ]
            for _, tenant in sorted(above, reverse=True):
                victim = next((entry for entry in self._tenants[tenant].leaves if entry is not keep), None)
                if victim is not None:
                    break
            else:
                return
            self.evictions += 1
            self._drop(tenant, victim)

    # --- private: turns ----------------------------------------------------------------------------------------------

    @staticmethod
    def _entries_of(entries: _TenantEntries, turn: Turn) -> list[_CacheEntry]:
        """Return the entries of this very turn: one that was read from the store twice is two turns with one id."""
        return [entry for entry in entries.by_id.get(turn.id, ()) if entry.turn is turn]

    def _has_children(self, entries: _TenantEntries, turn: Turn) -> bool:
        return turn.references > len(self._entries_of(entries, turn))

    def _retain(self, entries: _TenantEntries, turn: Turn) -> None:
        """Count one more reference to a turn; a turn that comes into memory refers to its parent."""
        node: Turn | None = turn
        while node is not None:
            node.references += 1
            if node.references > 1:
                return
            self.size_bytes += node.size_bytes
            entries.size_bytes += node.size_bytes
            node = node.parent
            if node is not None:
                for entry in self._entries_of(entries, node):
                    entries.leaves.pop(entry, None)  # it has a child now

    def _release(self, entries: _TenantEntries, turn: Turn) -> None:
        """Count one reference less; a turn without any leaves memory, and with it its reference to its parent."""
        node: Turn | None = turn
        while node is not None:
            node.references -= 1
            if node.references:
                self._make_leaf(entries, node)
                return
            self.size_bytes -= node.size_bytes
            entries.size_bytes -= node.size_bytes
            node = node.parent

    def _make_leaf(self, entries: _TenantEntries, turn: Turn) -> None:
        """Let the entries of a turn that lost its last child be evicted, before all others: they are older."""
        if self._has_children(entries, turn):
            return
        for entry in self._entries_of(entries, turn):
            if entry not in entries.leaves:
                entries.leaves[entry] = None
                entries.leaves.move_to_end(entry, last=False)
