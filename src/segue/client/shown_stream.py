"""What a turn has shown of its stream, so that there is one stream whatever happens below.

After a repeat or a resume the server may send events again: what was shown is left out. When a response was retrieved
in place of the rest of its stream, the rest is made from it. Not here: when a stream is repeated (`recovery`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from segue.client.function_calls import read_call
from segue.client.recovery import Progress
from segue.client.stream_events import (
    WHOLE_RESPONSE,
    ClientEvent,
    FunctionCallArgumentsDelta,
    OutputItemAdded,
    OutputItemDone,
    OutputTextDelta,
    ResponseCreated,
    ResponseEnd,
    UnknownEvent,
    read_event,
    text_parts,
)
from segue.protocol.codec import encode

#: The most that the finished items of one turn may hold. A server that sends more is not believed.
MOST_OUTPUT_BYTES = 256 * 1024 * 1024
#: The most that all events of one turn may hold: a stream without an end is given up there.
MOST_STREAM_BYTES = 4 * MOST_OUTPUT_BYTES
#: So many events back, one that comes twice is told.
_MOST_RECENT = 1024

_OPENING = frozenset({"response.in_progress", "response.queued"})


class ShownStream:
    """The events of one turn that its caller has got."""

    def __init__(self) -> None:
        self.response_id: str | None = None
        self.last_number = -1
        #: Whether the numbers of the events rise, so that events that come again can be told.
        self.numbered = True
        self.begun = False
        self.output_shown = False
        self._items: dict[int, bytes] = {}
        self._begun: set[int] = set()
        self._size_bytes = 0
        self._texts: dict[tuple[int, int], list[str]] = {}
        self._stream_bytes = 0
        self._floor: int | None = None
        self._recent: dict[int, int] = {}  # numbers of events, and hashes of their bytes

    @property
    def progress(self) -> Progress:
        """How far the stream has come."""
        if self.output_shown:
            return "output"
        return "sent" if self.response_id is None else "started"

    @property
    def items(self) -> tuple[bytes, ...]:
        """The finished items, in their order."""
        return tuple(item for _, item in sorted(self._items.items()))

    @property
    def has_gap(self) -> bool:
        """Whether an item is missing: it has begun and is not finished, or only later ones are here."""
        return not self._begun <= self._items.keys() or any(index >= len(self._items) for index in self._items)

    @property
    def too_large(self) -> bool:
        """Whether the output, or the whole stream, is larger than any answer may be."""
        return self._size_bytes > MOST_OUTPUT_BYTES or self._stream_bytes > MOST_STREAM_BYTES

    def come_again(self) -> None:
        """Note that the stream begins anew: what was shown may come again."""
        self._floor = self.last_number

    def is_new(self, event: ClientEvent | ResponseEnd) -> bool:
        """Return whether an event has not been shown yet: no server sends one twice, but some proxies do."""
        number = event.sequence_number
        if self.begun and isinstance(event, ResponseCreated):
            return False
        if number is None:
            return True
        if self._floor is not None and number <= self._floor:
            return False
        return not self.numbered or self._recent.get(number) != hash(event.raw)

    def is_stray(self, event: ClientEvent | ResponseEnd, before: str | None) -> bool:
        """Return whether an event that comes before its response has begun is one of the response before.

        A response begins with `response.created`; vendors may send events of their own before it.
        """
        if self.begun or isinstance(event, ResponseCreated):
            return False
        if isinstance(event, ResponseEnd):
            return event.type != WHOLE_RESPONSE and event.response_id == before
        return not isinstance(event, UnknownEvent) or event.type.startswith("response.")

    def note(self, event: ClientEvent) -> None:
        """Note that an event is shown."""
        self._stream_bytes += len(event.raw)
        self._note_number(event)
        match event:
            case ResponseCreated(response_id=response_id):
                self.response_id, self.begun = response_id, True
                return
            case UnknownEvent(type=kind) if kind in _OPENING:
                return
            case OutputItemDone(output_index=index, item=item):
                self._items.setdefault(index, item)
                self._size_bytes += len(item)
            case OutputTextDelta(output_index=index, content_index=place, delta=delta):
                self._add_text((index, place), delta)
            case FunctionCallArgumentsDelta(output_index=index, delta=delta):
                self._add_text((index, -1), delta)
            case OutputItemAdded(output_index=index):
                self._begun.add(index)
            case _:
                pass
        self.output_shown = True

    def missing_before(self, event: ClientEvent) -> list[ClientEvent] | None:
        """Return the events that show what a stream that came again has left out of the texts of a finished item.

        None if what was shown is not its beginning. A stream in one piece says its texts as its server likes.
        """
        if self._floor is None or not isinstance(event, OutputItemDone):
            return []
        return self._missing_deltas(event.output_index, event.item, calls=False)

    def rest_of(self, response: ResponseEnd) -> list[ClientEvent] | None:
        """Return the events that show the rest of a whole response; None if what was shown is not its beginning."""
        rest: list[ClientEvent] = []
        if not self.begun:
            rest.append(self._made("response.created", response=msgspec.Raw(response.document)))
        for index, item in enumerate(response.output):
            if index in self._items:
                continue
            deltas = self._missing_deltas(index, item, calls=True)
            if deltas is None:
                return None
            rest += deltas
            rest.append(self._made("response.output_item.done", output_index=index, item=msgspec.Raw(item)))
        return rest

    def next_number(self) -> int:
        """Return the number of an event that is made here."""
        self.last_number += 1
        return self.last_number

    def _missing_deltas(self, index: int, item: bytes, *, calls: bool) -> list[ClientEvent] | None:
        """Return the deltas that are missing of an item; without `calls`, only of calls that were shown in deltas."""
        made: list[ClientEvent] = []
        for (place, whole), kind in _texts_of(item):
            if place < 0 and not calls and (index, place) not in self._texts:
                continue
            shown = "".join(self._texts.get((index, place), ()))
            if not whole.startswith(shown):
                return None
            if len(whole) > len(shown):
                where: dict[str, Any] = {"output_index": index, "item_id": ""}
                where |= {"content_index": place} if place >= 0 else {}
                made.append(self._made(kind, delta=whole[len(shown) :], **where))
        return made

    def _made(self, kind: str, **members: object) -> ClientEvent:
        data = encode({"type": kind, "sequence_number": self.next_number(), **members})
        event = read_event(data)
        assert event is not None
        assert not isinstance(event, ResponseEnd), "only events of a running response are made here"
        return event

    def _note_number(self, event: ClientEvent) -> None:
        number = event.sequence_number
        if number is None or number <= self.last_number:
            self.numbered = False
            return
        self.last_number = number
        self._recent[number] = hash(event.raw)
        if len(self._recent) > _MOST_RECENT:
            del self._recent[next(iter(self._recent))]

    def _add_text(self, place: tuple[int, int], delta: str) -> None:
        self._texts.setdefault(place, []).append(delta)
        self._size_bytes += len(delta)


def _texts_of(item: bytes) -> Iterator[tuple[tuple[int, str], str]]:
    for place, text in text_parts(item):
        yield (place, text), "response.output_text.delta"
    if (call := read_call(item)) is not None:
        yield (-1, call.arguments), "response.function_call_arguments.delta"
