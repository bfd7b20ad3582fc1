"""Who may use an upstream next: a pure scheduler that shares a bounded number of places between tenants.

A *ticket* stands for one turn. It runs at once while a place is free; else it waits, in its tenant's own line. A place
that becomes free goes to the waiting tenant that runs fewest turns, and among equals to the one served longest ago,
where a newcomer counts as served just before the last that was: so a tenant that sends a hundred turns holds up nobody
for longer than one of them, and newcomers hold up nobody for ever. The waiting room is bounded too: when it is full, a
tenant that has less in it than the longest line takes the last place of that line. Within a tenant, turns start in the
order they came. Not here: waiting, which is the shell's (`admission`).
"""

from __future__ import annotations

from collections import deque
from typing import Generic, Literal, NamedTuple, TypeVar

Ticket = TypeVar("Ticket")


class Entered(NamedTuple, Generic[Ticket]):
    """What became of a ticket; `displaced` is another one that lost its place in the waiting room to it."""

    state: Literal["runs", "waits", "refused"]
    displaced: Ticket | None = None


class FairQueue(Generic[Ticket]):
    """At most `limit` tickets run and at most `max_waiting` wait, all tenants together."""

    def __init__(self, limit: int, max_waiting: int) -> None:
        self._limit = limit
        self._max_waiting = max_waiting
        self._running: dict[str, int] = {}
        self._lines: dict[str, deque[Ticket]] = {}  # none is empty
        self._served: dict[str, int] = {}  # of tenants that run or wait: twice the count of starts at their last one
        self._starts = 0
        self.running = 0
        self.waiting = 0

    def enter(self, tenant: str, ticket: Ticket) -> Entered[Ticket]:
        """Take in a ticket: it runs, waits or is refused."""
        if self.running < self._limit and not self.waiting:
            self._start(tenant)
            return Entered("runs")
        displaced = None
        if self.waiting >= self._max_waiting:
            displaced = self._displace(tenant)
            if displaced is None:
                return Entered("refused")
        self._lines.setdefault(tenant, deque()).append(ticket)
        self._served.setdefault(tenant, 2 * self._starts - 1)
        self.waiting += 1
        return Entered("waits", displaced)

    def leave(self, tenant: str) -> tuple[str, Ticket] | None:
        """Note that a running ticket of the tenant is done; return the tenant and ticket that run in its place."""
        self._stop(tenant)
        if not self.waiting:
            return None
        chosen = min(self._lines, key=lambda name: (self._running.get(name, 0), self._served[name]))
        ticket = self._lines[chosen].popleft()
        self._start(chosen)
        self._shorten(chosen)
        return chosen, ticket

    def withdraw(self, tenant: str, ticket: Ticket) -> bool:
        """Take back a ticket that waits; False if it does not."""
        line = self._lines.get(tenant)
        if line is None or ticket not in line:
            return False
        line.remove(ticket)
        self._shorten(tenant)
        return True

    def clear(self) -> list[Ticket]:
        """Take back all tickets that wait, and return them."""
        waiting = [(tenant, ticket) for tenant, line in self._lines.items() for ticket in line]
        for tenant, ticket in waiting:
            self.withdraw(tenant, ticket)
        return [ticket for _, ticket in waiting]

    def _displace(self, tenant: str) -> Ticket | None:
        """Make room for the tenant by the newest ticket of the longest line, if that line stays as long as its own."""
        if not self._lines:
            return None
        longest = max(self._lines, key=lambda name: len(self._lines[name]))
        line = self._lines[longest]
        if len(line) < len(self._lines.get(tenant, ())) + 2:  # both would be as long again, the other way round
            return None
        ticket = line.pop()
        self._shorten(longest)
        return ticket

    def _shorten(self, tenant: str) -> None:
        """Note that a line has lost one ticket."""
        self.waiting -= 1
        if not self._lines[tenant]:
            del self._lines[tenant]
            self._forget(tenant)

    def _forget(self, tenant: str) -> None:
        if tenant not in self._running and tenant not in self._lines:
            self._served.pop(tenant, None)

    def _start(self, tenant: str) -> None:
        self.running += 1
        self._running[tenant] = self._running.get(tenant, 0) + 1
        self._starts += 1
        self._served[tenant] = 2 * self._starts

    def _stop(self, tenant: str) -> None:
        assert self._running.get(tenant), "only what runs can leave"
        self.running -= 1
        left = self._running.pop(tenant) - 1
        if left:
            self._running[tenant] = left
        self._forget(tenant)
