"""Fair queueing: a pure scheduler that shares a limited number of permits between tenants.

A *ticket* stands for one turn. It runs at once while a permit is free, and otherwise waits in its tenant's own queue.
When a turn ends, its permit goes to the waiting tenant that runs the fewest turns. Among equals it goes to the tenant
that was served the longest ago. A tenant that joins counts as served just before the tenant that was served last.
So a tenant that sends a hundred turns delays another tenant by one of them at most, and tenants that keep arriving
cannot starve the ones that wait. Within a tenant, turns start in the order they came.

A turn that hangs holds its permit, and nobody can take it away. So as soon as there is a second tenant, none may hold
all permits: an eighth of them is left to the others, and one of at least four. Or it is said how many one may hold.

The number of waiting tickets is bounded, for all tenants together. At the bound, a new ticket displaces the newest one
of the longest queue, provided that this queue is then no shorter than that of the new ticket's tenant. Not here: the
waiting itself, which is asynchronous (`admission`).
"""

from __future__ import annotations

from collections import deque
from typing import Generic, Literal, NamedTuple, TypeVar

Ticket = TypeVar("Ticket")


#: One of so many permits is left to other tenants.
_PART_FOR_OTHERS = 8
#: Of fewer permits, none is left idle.
_FEW = 4


class Admitted(NamedTuple, Generic[Ticket]):
    """What `enter` did with a ticket; `displaced` is the waiting ticket that it pushed out of a full queue."""

    state: Literal["runs", "waits", "refused"]
    displaced: Ticket | None = None


class FairQueue(Generic[Ticket]):
    """At most `limit` tickets run and at most `max_waiting` wait, all tenants together; `most_of_one` run of each."""

    def __init__(self, limit: int, max_waiting: int, most_of_one: int | None = None) -> None:
        self._limit = limit
        self._most_alone = most_of_one or limit
        self._most_of_one = most_of_one or limit - (max(1, limit // _PART_FOR_OTHERS) if limit >= _FEW else 0)
        self._known: set[str] = set()  # as many as the configuration has tenants
        self._max_waiting = max_waiting
        self._running: dict[str, int] = {}
        self._queues: dict[str, deque[Ticket]] = {}  # none is empty
        self._served: dict[str, int] = {}  # per tenant that runs or waits: twice the number of starts at its last start
        self._starts = 0
        self.running = 0
        self.waiting = 0

    def enter(self, tenant: str, ticket: Ticket) -> Admitted[Ticket]:
        """Run a ticket, queue it, or refuse it."""
        self._known.add(tenant)
        if tenant not in self._queues and self._may_start(tenant):
            self._start(tenant)
            return Admitted("runs")
        displaced = None
        if self.waiting >= self._max_waiting:
            displaced = self._displace(tenant)
            if displaced is None:
                return Admitted("refused")
        self._queues.setdefault(tenant, deque()).append(ticket)
        self._served.setdefault(tenant, 2 * self._starts - 1)
        self.waiting += 1
        return Admitted("waits", displaced)

    def refuses(self, tenant: str) -> bool:
        """Tell whether a ticket of the tenant would be refused now."""
        return self.waiting >= self._max_waiting and self._yielding(tenant) is None

    def leave(self, tenant: str) -> tuple[str, Ticket] | None:
        """End one running ticket of the tenant; return the tenant and the ticket that now have its permit, if any."""
        self._stop(tenant)
        may_start = [name for name in self._queues if self._may_start(name)]
        if not may_start:
            return None
        chosen = min(may_start, key=lambda name: (self._running.get(name, 0), self._served[name]))
        ticket = self._queues[chosen].popleft()
        self._start(chosen)
        self._dequeued(chosen)
        return chosen, ticket

    def withdraw(self, tenant: str, ticket: Ticket) -> bool:
        """Remove a ticket that waits; return False if it does not wait."""
        queue = self._queues.get(tenant)
        if queue is None or ticket not in queue:
            return False
        queue.remove(ticket)
        self._dequeued(tenant)
        return True

    def clear(self) -> list[Ticket]:
        """Remove all tickets that wait, and return them."""
        waiting = [(tenant, ticket) for tenant, queue in self._queues.items() for ticket in queue]
        for tenant, ticket in waiting:
            self.withdraw(tenant, ticket)
        return [ticket for _, ticket in waiting]

    def _may_start(self, tenant: str) -> bool:
        """Tell whether there is a permit for the tenant. If there is one, no turn waits that might have it."""
        most = self._most_alone if len(self._known) == 1 else self._most_of_one
        return self.running < self._limit and self._running.get(tenant, 0) < most

    def _displace(self, tenant: str) -> Ticket | None:
        """Remove the newest ticket of the queue that gives way to the tenant, if one does."""
        yielding = self._yielding(tenant)
        if yielding is None:
            return None
        ticket = self._queues[yielding].pop()
        self._dequeued(yielding)
        return ticket

    def _yielding(self, tenant: str) -> str | None:
        """Return whose queue is the longest, if it is then no shorter than the tenant's will be."""
        longest = max(self._queues, key=lambda name: len(self._queues[name]), default=None)
        if longest is None or len(self._queues[longest]) < len(self._queues.get(tenant, ())) + 2:
            return None  # else the two would displace each other for ever
        return longest

    def _dequeued(self, tenant: str) -> None:
        """Account for a ticket that has left its tenant's queue."""
        self.waiting -= 1
        if not self._queues[tenant]:
            del self._queues[tenant]
            self._forget(tenant)

    def _forget(self, tenant: str) -> None:
        if tenant not in self._running and tenant not in self._queues:
            self._served.pop(tenant, None)

    def _start(self, tenant: str) -> None:
        self.running += 1
        self._running[tenant] = self._running.get(tenant, 0) + 1
        self._starts += 1
        self._served[tenant] = 2 * self._starts

    def _stop(self, tenant: str) -> None:
        assert self._running.get(tenant), "a ticket leaves only if it runs"
        self.running -= 1
        left = self._running.pop(tenant) - 1
        if left:
            self._running[tenant] = left
        self._forget(tenant)
