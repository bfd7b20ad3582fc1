"""Event logs: the events of turns whose streams can be resumed. The interface, and its form in memory.

The interface is asynchronous and every call is atomic, so that a store that several gateways share can implement it. A
log is opened before its turn begins, gets batches while the turn runs, and is ended; `end` sets when it expires. A
follower gets each event after a given number once, in order, then the live ones, until the end. In memory, a full log
applies backpressure: its writer waits for its slowest follower. Without followers the oldest events are dropped. Not
here: records (`interface`), and what a turn is.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator, Sequence
from typing import Protocol

from segue.protocol.event_log import EventLog
from segue.protocol.events import Event
from segue.protocol.ids import ResponseId

#: How many bytes of events a follower gets at once.
PAGE_BYTES = 256 * 1024


class EventsGone(Exception):
    """The tenant has no such log, or the log no longer has the events that a follower asks for.

    `held_at` is the address of another gateway that has them in its memory, if there is one and it has an address.
    """

    def __init__(self, held_at: str = "") -> None:
        super().__init__()
        self.held_at = held_at


class OwnerGone(Exception):
    """The gateway whose turn writes a log is gone, so that there will be no end of it, unless `fail` makes one.

    `latest` is the latest event that carries the response object, `number` that of the event to come.
    """

    def __init__(self, latest: Event | None, number: int) -> None:
        super().__init__()
        self.latest = latest
        self.number = number


class LogTaken(Exception):
    """Another gateway took this one for dead and has ended its log: clients were told that the turn has failed."""


class EventLogs(Protocol):
    """Keeps the events of turns. Another tenant's log is answered like one that does not exist."""

    async def open(self, tenant: str, response_id: ResponseId, *, shared: bool) -> None:
        """Begin an empty log. Unless its events are `shared`, they stay in the memory of this process."""

    async def wait_for_room(self, tenant: str, response_id: ResponseId) -> None:
        """Drop old events, or wait for followers, until the log may grow. It may return at once. Raises `LogTaken`."""

    async def append(self, tenant: str, response_id: ResponseId, events: Sequence[Event]) -> None:
        """Add events at once, whether there is room or not. For a log that is gone, do nothing."""

    async def end(self, tenant: str, response_id: ResponseId, expires_at: float) -> None:
        """Mark the log as complete, and set when it expires (unix seconds)."""

    async def fail(self, tenant: str, response_id: ResponseId, event: Event, *, keep_s: float) -> None:
        """End the log of a gateway that is gone with this event, unless somebody has; it expires after a while."""

    async def drop(self, tenant: str, response_id: ResponseId) -> None:
        """Drop the log; its followers get `EventsGone`."""

    async def drop_tenant(self, tenant: str, *, everywhere: bool = True) -> int:
        """Drop all logs of a tenant, those of other gateways too unless told; return how many there were."""

    async def latest(self, tenant: str, response_id: ResponseId) -> Event | None:
        """Return the latest event that carries the response object; None if there is none. Raises `OwnerGone`."""

    def holds(self, tenant: str, response_id: ResponseId) -> bool:
        """Tell whether a log is in the memory of this process."""

    async def distrust(self) -> None:
        """Drop from memory what has ended and others have too: this process may not know that it was deleted."""

    async def begun(self, tenant: str, response_id: ResponseId) -> bool:
        """Wait until a log of another gateway has an event; False if it is dropped before, or there is none."""

    async def runs_elsewhere(self, tenant: str, response_id: ResponseId) -> bool:
        """Say whether the turn of a log runs at another gateway."""

    async def published(self, tenant: str, response_id: ResponseId) -> bool:
        """Wait until every gateway can see the events that a log has; False if they cannot be told of them now."""

    async def settled(self, tenant: str, response_id: ResponseId) -> None:
        """Wait until all gateways can see the end of a log that has ended."""

    def follow(self, tenant: str, response_id: ResponseId, after: int) -> AsyncGenerator[Sequence[Event], None]:
        """Yield the events with a number above `after`, also those to come, until the end.

        Raises `EventsGone` and `OwnerGone`.
        """

    async def purge(self, now: float) -> None:
        """Drop the logs that have expired."""


class _Follower:
    __slots__ = ("next",)

    def __init__(self, number: int) -> None:
        self.next = number


class _Log:
    __slots__ = ("changed", "dropped", "ended", "events", "followers")

    def __init__(self) -> None:
        self.events = EventLog()
        self.ended = False
        self.dropped = False
        self.followers: set[_Follower] = set()
        self.changed = asyncio.Event()

    def wake(self) -> None:
        """Wake everything that waits for a change of this log."""
        self.changed.set()
        self.changed = asyncio.Event()


_Key = tuple[str, ResponseId]


class _SharedEcho:
    """An echo that several logs end in: the turns of a session have the same instructions and tools."""

    __slots__ = ("data", "logs")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.logs = 0


class MemoryEventLogs:
    """Event logs in this process, under one budget. Running logs share it evenly; ended ones are evicted first."""

    def __init__(self, budget_bytes: int, log_bytes: int) -> None:
        self._budget_bytes = budget_bytes
        self._log_bytes = log_bytes
        self._logs: dict[_Key, _Log] = {}
        self._ended: OrderedDict[_Key, float] = OrderedDict()
        self._echoes: dict[tuple[str, bytes], _SharedEcho] = {}
        self.size_bytes = 0

    async def open(self, tenant: str, response_id: ResponseId, *, shared: bool) -> None:  # noqa: ARG002 - all stay here
        """Begin an empty log."""
        assert (tenant, response_id) not in self._logs, "a response has one log"
        self._logs[tenant, response_id] = _Log()

    async def wait_for_room(self, tenant: str, response_id: ResponseId) -> None:
        """Wait for the slowest follower of a full log; without followers, drop the oldest events."""
        log = self._logs.get((tenant, response_id))
        while log is not None and not log.dropped:
            running = len(self._logs) - len(self._ended)
            limit = min(self._log_bytes, self._budget_bytes // max(1, running))
            size = log.events.size_bytes
            if size <= limit:
                return
            log.events.trim(limit, min((one.next for one in log.followers), default=log.events.next))
            self.size_bytes += log.events.size_bytes - size
            if log.events.size_bytes <= limit:
                return
            await log.changed.wait()

    async def append(self, tenant: str, response_id: ResponseId, events: Sequence[Event]) -> None:
        """Add events and wake the followers."""
        log = self._logs.get((tenant, response_id))
        if log is None:
            return
        if not log.events.echo:
            echo = next((event.echo for event in events if event.echo), b"")
            log.events.echo = self._share(tenant, echo) if echo else b""
        size = log.events.size_bytes
        log.events.append(events)
        self.size_bytes += log.events.size_bytes - size
        log.wake()
        if self.size_bytes > self._budget_bytes:
            self._evict()

    async def end(self, tenant: str, response_id: ResponseId, expires_at: float) -> None:
        """Mark the log as complete."""
        log = self._logs.get((tenant, response_id))
        if log is not None:
            log.ended = True
            self._ended[tenant, response_id] = expires_at
            log.wake()

    async def fail(self, tenant: str, response_id: ResponseId, event: Event, *, keep_s: float) -> None:
        """No other gateway has a log."""

    async def drop(self, tenant: str, response_id: ResponseId) -> None:
        """Drop the log."""
        self._drop((tenant, response_id))

    async def drop_tenant(self, tenant: str, *, everywhere: bool = True) -> int:  # noqa: ARG002 - all are here
        """Drop all logs of a tenant."""
        keys = [key for key in self._logs if key[0] == tenant]
        for key in keys:
            self._drop(key)
        return len(keys)

    async def latest(self, tenant: str, response_id: ResponseId) -> Event | None:
        """Return the latest event that carries the response object."""
        log = self._logs.get((tenant, response_id))
        return None if log is None else log.events.latest

    def holds(self, tenant: str, response_id: ResponseId) -> bool:
        """Tell whether there is such a log."""
        return (tenant, response_id) in self._logs

    def first_kept(self, tenant: str, response_id: ResponseId) -> int:
        """Return the number of the oldest event of a log; 0 if there is no such log."""
        log = self._logs.get((tenant, response_id))
        return 0 if log is None else log.events.first

    async def distrust(self) -> None:
        """Nobody else has anything."""

    async def begun(self, tenant: str, response_id: ResponseId) -> bool:  # noqa: ARG002 - whoever runs it is here
        """No other gateway has a log."""
        return True

    async def runs_elsewhere(self, tenant: str, response_id: ResponseId) -> bool:  # noqa: ARG002 - as above
        """No other gateway runs a turn."""
        return False

    async def published(self, tenant: str, response_id: ResponseId) -> bool:  # noqa: ARG002 - no other asks
        """There is no other gateway."""
        return True

    async def settled(self, tenant: str, response_id: ResponseId) -> None:
        """Nobody else has to see it."""

    async def follow(self, tenant: str, response_id: ResponseId, after: int) -> AsyncGenerator[Sequence[Event], None]:
        """Yield what follows `after`. A page counts as read when the next one is asked for."""
        log = self._logs.get((tenant, response_id))
        if log is None or after >= log.events.next:
            raise EventsGone
        follower = _Follower(after + 1)
        log.followers.add(follower)
        try:
            while True:
                changed = log.changed
                page = log.events.after(follower.next - 1, PAGE_BYTES)
                if page is None or log.dropped:
                    raise EventsGone
                if page:
                    yield page
                    follower.next += len(page)
                    log.wake()
                elif log.ended:
                    return
                else:
                    await changed.wait()
        finally:
            log.followers.discard(follower)
            log.wake()

    async def purge(self, now: float) -> None:
        """Drop the logs that have expired."""
        for key in [key for key, expires_at in self._ended.items() if expires_at <= now]:
            self._drop(key)

    def _evict(self) -> None:
        """Evict ended logs, the oldest first, but none that has a follower."""
        for key in [key for key in self._ended if not self._logs[key].followers]:
            if self.size_bytes <= self._budget_bytes:
                return
            self._drop(key)

    def _drop(self, key: _Key) -> None:
        log = self._logs.pop(key, None)
        self._ended.pop(key, None)
        if log is not None:
            self.size_bytes -= log.events.size_bytes
            if log.events.echo:
                self._release(key[0], log.events.echo)
            log.dropped = True
            log.wake()

    def _share(self, tenant: str, echo: bytes) -> bytes:
        """Return the echo of an earlier log of the tenant if it is the same, so that it is in memory once."""
        shared = self._echoes.get((tenant, echo))
        if shared is None:
            shared = self._echoes[tenant, echo] = _SharedEcho(echo)
            self.size_bytes += len(echo)
        shared.logs += 1
        return shared.data

    def _release(self, tenant: str, echo: bytes) -> None:
        shared = self._echoes[tenant, echo]
        shared.logs -= 1
        if not shared.logs:
            del self._echoes[tenant, echo]
            self.size_bytes -= len(echo)
