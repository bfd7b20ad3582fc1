"""The events of one response, for a client that lost its stream and wants the rest. The oldest are dropped first.

`sequence_number` counts from 0 without a gap, so a number is a position. The latest event that carries the response
object is kept apart, so that the state of the response is known whatever else was dropped. Not here: waiting, clocks,
and which log belongs to whom (stores).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import islice

from segue.protocol.events import Event

#: What an event costs beside its bytes. Rounded up.
EVENT_OVERHEAD_BYTES = 256

_CARRIERS = frozenset({f"response.{what}" for what in ("created", "in_progress", "completed", "incomplete", "failed")})


class EventLog:
    """One response's events; every method costs O(what it adds, drops or returns)."""

    __slots__ = ("_events", "first", "latest", "size_bytes")

    def __init__(self) -> None:
        self._events: deque[Event] = deque()
        self.first = 0  # the number of the oldest event that is kept
        self.latest: Event | None = None  # the latest one that carries the response object
        self.size_bytes = 0

    @property
    def next(self) -> int:
        """The number of the event to come."""
        return self.first + len(self._events)

    def append(self, events: Sequence[Event]) -> None:
        """Add events; their numbers must go on from the last one."""
        for event in events:
            assert event.sequence_number == self.next, f"event {event.sequence_number} in the place of {self.next}"
            self._events.append(event)
            self.size_bytes += len(event.data) + EVENT_OVERHEAD_BYTES
            if event.type in _CARRIERS:
                self.latest = event

    def trim(self, limit_bytes: int, floor: int) -> None:
        """Drop the oldest events until the rest fits, but keep those from the number `floor` on."""
        while self.size_bytes > limit_bytes and self._events and self.first < floor:
            self.size_bytes -= len(self._events.popleft().data) + EVENT_OVERHEAD_BYTES
            self.first += 1

    def after(self, number: int, page_bytes: int) -> Sequence[Event] | None:
        """Return the events after `number`, as many as fit a page (at least one); None if some of them were dropped."""
        start = number + 1 - self.first
        if start < 0:
            return None
        page: list[Event] = []
        size = 0
        for event in islice(self._events, start, None):
            size += len(event.data)
            if page and size > page_bytes:
                break
            page.append(event)
        return page
