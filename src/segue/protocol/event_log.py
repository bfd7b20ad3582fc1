"""The events of one response, for a client that lost its stream and wants the rest. The oldest are dropped first.

`sequence_number` counts from 0 without a gap, so a number is a position. The latest event that carries the response
object is kept apart, so that the state of the response is known whatever else was dropped. Three events of a turn end
in the same echo of its instructions and tools, which may have far more bytes than all that the model said. It is kept
once, and joined to them again when they are read. Not here: waiting, clocks, and which log belongs to whom (stores).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from segue.protocol.events import Event

#: What an event costs beside its bytes. Rounded up.
EVENT_OVERHEAD_BYTES = 256

_CARRIERS = frozenset({f"response.{what}" for what in ("created", "in_progress", "completed", "incomplete", "failed")})

#: Stands in a response object of ours before its output, after which comes the echo (`responses.encode_response`). No
#: string holds it, since the quotation marks of a string are escaped; and the first event has no output yet.
_OUTPUT = b',"output":['


class EventLog:
    """One response's events; every method costs O(what it adds, drops or returns)."""

    __slots__ = ("_events", "_latest", "_shortened", "echo", "first", "size_bytes")

    def __init__(self) -> None:
        self._events: deque[Event] = deque()
        self._shortened: set[int] = set()  # the numbers of the events that are kept without the echo
        self._latest: Event | None = None
        #: How several events end. Whoever keeps many logs may put an equal object in its place. Not in `size_bytes`.
        self.echo = b""
        self.first = 0  # the number of the oldest event that is kept
        self.size_bytes = 0

    @property
    def next(self) -> int:
        """The number of the event to come."""
        return self.first + len(self._events)

    @property
    def latest(self) -> Event | None:
        """The latest event that carries the response object."""
        return None if self._latest is None else self._whole(self._latest)

    def append(self, events: Sequence[Event]) -> None:
        """Add events; their numbers must go on from the last one."""
        for event in events:
            assert event.sequence_number == self.next, f"event {event.sequence_number} in the place of {self.next}"
            kept = event
            if event.type in _CARRIERS:
                kept = self._latest = self._shorten(event)
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
        events, shortened = self._events, self._shortened
        for index in range(
            start, len(events)
        ):  # near the ends of a deque, where readers are, an index is found at once
            event = events[index]
            if event.sequence_number in shortened:
                event = self._whole(event)
            size += len(event.data)
            if page and size > page_bytes:
                break
            page.append(event)
        return page

    def _shorten(self, event: Event) -> Event:
        """Return an event without the echo that it ends in; the first such event says what the echo is."""
        if not self.echo:
            self.echo = event.data.partition(_OUTPUT)[2]
        if not self.echo or not event.data.endswith(self.echo):
            return event
        self._shortened.add(event.sequence_number)
        return Event(event.type, event.data[: -len(self.echo)], event.sequence_number, event.item)

    def _whole(self, kept: Event) -> Event:
        """Return an event as it was added."""
        if kept.sequence_number not in self._shortened:
            return kept
        return Event(kept.type, kept.data + self.echo, kept.sequence_number, kept.item)
