"""What is kept in memory: recent turns of all tenants under one byte budget, each shared prefix counted once.

Two kinds of *place* hold a turn. A **slot** is one lane's latest response on one connection: the fast path, and the
only place of a store=false turn, which is gone with its connection. A **shared** place is found by every request of
its tenant: the process-wide cache of stored turns. A turn stays in memory while a place or a child of it does, so the
bytes of a prefix are counted once, however many branches share it.

When the budget is passed, the tenant that holds most loses the place used least recently, again and again: a tenant
within its even share of the budget never loses anything to another. Only *tips* are dropped, places whose turn has no
child in memory, since dropping anything else would free nothing.

Pure: it decides and counts. What a dropped place means for a client is the shells' business (`previous_response_not_
found`, or a look-up in the store).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable

from segue.history.chains import Turn
from segue.protocol.ids import ResponseId

#: Where a turn is held: `(connection, lane)`, or None for the tenant's shared places.
Slot = tuple[Hashable, str]


class _Place:
    """One holder of a turn."""

    __slots__ = ("slot", "turn")

    def __init__(self, turn: Turn, slot: Slot | None) -> None:
        self.turn = turn
        self.slot = slot


class _Tenant:
    """The places of one tenant. `tips` is ordered: the place used least recently comes first."""

    __slots__ = ("at", "shared", "size_bytes", "tips")

    def __init__(self) -> None:
        self.size_bytes = 0
        self.shared: dict[ResponseId, _Place] = {}
        self.at: dict[ResponseId, list[_Place]] = {}  # every place of a turn, slots included
        self.tips: OrderedDict[_Place, None] = OrderedDict()


class TurnCache:
    """Turns in memory. Every method costs O(what it adds or drops), and over budget a look at each tenant per drop."""

    def __init__(self, budget_bytes: int) -> None:
        self._budget_bytes = budget_bytes
        self._tenants: dict[str, _Tenant] = {}
        self._slots: dict[Slot, tuple[str, _Place]] = {}
        self.size_bytes = 0
        self.evictions = 0

    def tenant_bytes(self, tenant: str) -> int:
        """Return what a tenant holds."""
        held = self._tenants.get(tenant)
        return 0 if held is None else held.size_bytes

    def slot(self, slot: Slot, response_id: str, now: float) -> Turn | None:
        """Return the turn in a lane's slot if it is the one asked for."""
        entry = self._slots.get(slot)
        if entry is None or entry[1].turn.id != response_id:
            return None
        return self._touch(*entry, now)

    def shared(self, tenant: str, response_id: ResponseId, now: float) -> Turn | None:
        """Return a tenant's stored turn, if it is in memory and has not expired."""
        held = self._tenants.get(tenant)
        place = None if held is None else held.shared.get(response_id)
        return None if place is None else self._touch(tenant, place, now)

    def peek(self, tenant: str, response_id: ResponseId) -> Turn | None:
        """Return a tenant's stored turn if any place holds it, expired or not: a chain may be built upon it."""
        held = self._tenants.get(tenant)
        places = () if held is None else held.at.get(response_id, ())
        return next((place.turn for place in places if place.turn.stored), None)

    def held(self, slot: Slot) -> Turn | None:
        """Return whatever a slot holds, without using it."""
        entry = self._slots.get(slot)
        return None if entry is None else entry[1].turn

    def holds(self, tenant: str, response_id: ResponseId) -> bool:
        """Tell whether any place holds a tenant's turn."""
        held = self._tenants.get(tenant)
        return held is not None and response_id in held.at

    def put_slot(self, tenant: str, slot: Slot, turn: Turn) -> None:
        """Make `turn` the latest response of a lane; what the slot held before is superseded."""
        place = _Place(turn, slot)
        self._hold(tenant, place)
        self.drop_slot(slot)
        self._slots[slot] = (tenant, place)
        self._shrink(keep=place)

    def put_shared(self, tenant: str, turn: Turn) -> None:
        """Let every request of the tenant find this stored turn."""
        held = self._tenants.get(tenant)
        if held is not None and turn.id in held.shared:
            return
        place = _Place(turn, None)
        self._hold(tenant, place)
        self._tenants[tenant].shared[turn.id] = place
        self._shrink(keep=place)

    def drop_slot(self, slot: Slot, response_id: str | None = None) -> None:
        """Empty a slot; with `response_id`, only if it holds that response."""
        entry = self._slots.get(slot)
        if entry is None or (response_id is not None and entry[1].turn.id != response_id):
            return
        del self._slots[slot]
        self._release(*entry)

    def forget(self, tenant: str, response_id: ResponseId) -> None:
        """Make a response unresolvable wherever it is held; its descendants keep its items."""
        held = self._tenants.get(tenant)
        for place in list(held.at.get(response_id, ())) if held is not None else ():
            self._drop(tenant, place)

    # --- private: places ---------------------------------------------------------------------------------------------

    def _touch(self, tenant: str, place: _Place, now: float) -> Turn | None:
        turn = place.turn
        if turn.expires_at is not None and now >= turn.expires_at:
            self.forget(tenant, turn.id)
            return None
        tips = self._tenants[tenant].tips
        if place in tips:
            tips.move_to_end(place)
        return turn

    def _hold(self, tenant: str, place: _Place) -> None:
        held = self._tenants.setdefault(tenant, _Tenant())
        self._retain(held, place.turn)
        held.at.setdefault(place.turn.id, []).append(place)
        if not self._has_children(held, place.turn):
            held.tips[place] = None

    def _drop(self, tenant: str, place: _Place) -> None:
        if place.slot is not None:
            self.drop_slot(place.slot)
            return
        del self._tenants[tenant].shared[place.turn.id]
        self._release(tenant, place)

    def _release(self, tenant: str, place: _Place) -> None:
        held = self._tenants[tenant]
        places = held.at[place.turn.id]
        places.remove(place)
        if not places:
            del held.at[place.turn.id]
        held.tips.pop(place, None)
        self._let_go(held, place.turn)
        if not held.at:
            del self._tenants[tenant]

    def _shrink(self, keep: _Place) -> None:
        """Drop places until the budget is met; never the one just put, or a large turn could not be continued."""
        while self.size_bytes > self._budget_bytes:
            share = self._budget_bytes / len(self._tenants)
            above = [(held.size_bytes, name) for name, held in self._tenants.items() if held.size_bytes > share]
            for _, tenant in sorted(above, reverse=True):
                victim = next((place for place in self._tenants[tenant].tips if place is not keep), None)
                if victim is not None:
                    break
            else:
                return
            self.evictions += 1
            self._drop(tenant, victim)

    # --- private: turns ----------------------------------------------------------------------------------------------

    @staticmethod
    def _places(held: _Tenant, turn: Turn) -> list[_Place]:
        """Return the places of this very turn: one that was read from the store twice is two turns with one id."""
        return [place for place in held.at.get(turn.id, ()) if place.turn is turn]

    def _has_children(self, held: _Tenant, turn: Turn) -> bool:
        return turn.holders > len(self._places(held, turn))

    def _retain(self, held: _Tenant, turn: Turn) -> None:
        """Count one more holder; a turn that comes into memory holds its parent."""
        node: Turn | None = turn
        while node is not None:
            node.holders += 1
            if node.holders > 1:
                return
            self.size_bytes += node.size_bytes
            held.size_bytes += node.size_bytes
            node = node.parent
            if node is not None:
                for place in self._places(held, node):
                    held.tips.pop(place, None)  # it has a child now

    def _let_go(self, held: _Tenant, turn: Turn) -> None:
        """Count one holder less; a turn that nobody holds leaves memory and lets go of its parent."""
        node: Turn | None = turn
        while node is not None:
            node.holders -= 1
            if node.holders:
                self._expose(held, node)
                return
            self.size_bytes -= node.size_bytes
            held.size_bytes -= node.size_bytes
            node = node.parent

    def _expose(self, held: _Tenant, turn: Turn) -> None:
        """Make the places of a turn that lost its last child droppable, before all others: they are older."""
        if self._has_children(held, turn):
            return
        for place in self._places(held, turn):
            if place not in held.tips:
                held.tips[place] = None
                held.tips.move_to_end(place, last=False)
