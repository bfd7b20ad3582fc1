"""The events of one response, for a client that lost its stream and wants the rest. The oldest are dropped first.

`sequence_number` counts from 0 without a gap, so a number is a position. The latest event that carries the response
object is kept apart, so that the state of the response is known whatever else was dropped. Three events of a turn end
in the same echo of its instructions and tools, which may have far more bytes than all that the model said. It is kept
once, and not copied when they are read. Not here: waiting, clocks, and which log belongs to whom (stores).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import msgspec

from segue.protocol.events import Event

#: What an event costs beside its bytes. Rounded up.
EVENT_OVERHEAD_BYTES = 256

_CARRIERS = frozenset({f"response.{what}" for what in ("created", "in_progress", "completed", "incomplete", "failed")})


class EventLog:
    """One response's events; every method costs O(what it adds, drops or returns)."""

    __slots__ = ("_events", "echo", "first", "latest", "size_bytes")

    def __init__(self) -> None:
        self._events: deque[Event] = deque()
        #: The latest event that carries the response object.
        self.latest: Event | None = None
        #: How several events end. Whoever keeps many logs may put an equal object here before. Not in `size_bytes`.
        self.echo = b""
        self.first = 0  # the number of the oldest event that is kept
        self.size_bytes = 0

    @property
    def next(self) -> int:
        """The number of the event to come."""
        return self.first + len(self._events)

    def append(self, events: Sequence[Event]) -> None:
        """Add events; their numbers must go on from the last one."""
        for event in events:
            assert event.sequence_number == self.next, f"event {event.sequence_number} in the place of {self.next}"
            kept = self._share(event) if event.echo else event
            if event.type in _CARRIERS:
                self.latest = kept
            self._events.append(kept)
            self.size_bytes += len(kept.data) + EVENT_OVERHEAD_BYTES

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
        events = self._events
        for index in range(
            start, len(events)
        ):  # near the ends of a deque, where readers are, an index is found at once
            event = events[index]
            size += event.size_bytes
            if page and size > page_bytes:
                break
            page.append(event)
        return page

    def _share(self, event: Event) -> Event:
        """Return an event with the echo that the log has already, if they are equal."""
        self.echo = self.echo or event.echo
        if event.echo is self.echo or event.echo != self.echo:
            return event
        return msgspec.structs.replace(event, echo=self.echo)
