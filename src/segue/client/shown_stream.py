"""What a turn has shown of its stream, so that there is one stream whatever happens below.

After a repeat or a resume the server may send events again: what was shown is left out. When a response was retrieved
in place of the rest of its stream, the rest is made from it. Not here: when a stream is repeated (`recovery`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from segue.client.recovery import Progress
from segue.client.stream_events import (
    ClientEvent,
    FunctionCallArgumentsDelta,
    OutputItemAdded,
    OutputItemDone,
    OutputTextDelta,
    ResponseCreated,
    ResponseEnd,
    UnknownEvent,
    call_arguments,
    read_event,
    text_parts,
)
from segue.protocol.codec import encode

#: The most that the finished items of one turn may hold. A server that sends more is not believed.
MOST_OUTPUT_BYTES = 256 * 1024 * 1024

_OPENING = frozenset({"response.in_progress", "response.queued"})


class ShownStream:
    """The events of one turn that its caller has got."""

    def __init__(self) -> None:
        self.response_id: str | None = None
        self.last_number = -1
        #: Whether the numbers of the events rise, so that events that come again can be told.
        self.numbered = True
        self.output_shown = False
        self._items: dict[int, bytes] = {}
        self._begun: set[int] = set()
        self._size_bytes = 0
        self._texts: dict[tuple[int, int], list[str]] = {}
        self._floor = -1

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
    def has_open_item(self) -> bool:
        """Whether an item has begun that is not finished."""
        return not self._begun <= self._items.keys()

    @property
    def too_large(self) -> bool:
        """Whether the output is larger than any answer may be."""
        return self._size_bytes > MOST_OUTPUT_BYTES

    def come_again(self) -> None:
        """Note that the stream begins anew: what was shown may come again."""
        self._floor = self.last_number

    def is_new(self, event: ClientEvent | ResponseEnd) -> bool:
        """Return whether an event has not been shown yet."""
        return event.sequence_number is None or event.sequence_number > self._floor

    def note(self, event: ClientEvent) -> None:
        """Note that an event is shown."""
        self._note_number(event.sequence_number)
        match event:
            case ResponseCreated(response_id=response_id):
                self.response_id = response_id
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

    def rest_of(self, response: ResponseEnd) -> list[ClientEvent] | None:
        """Return the events that show the rest of a whole response; None if what was shown is not its beginning."""
        rest: list[ClientEvent] = []
        if self.last_number < 0:
            rest.append(self._made("response.created", response=msgspec.Raw(response.document)))
        for index, item in enumerate(response.output):
            if index in self._items:
                continue
            deltas = self._missing_deltas(index, item)
            if deltas is None:
                return None
            rest += deltas
            rest.append(self._made("response.output_item.done", output_index=index, item=msgspec.Raw(item)))
        return rest

    def next_number(self) -> int:
        """Return the number of an event that is made here."""
        self.last_number += 1
        return self.last_number

    def _missing_deltas(self, index: int, item: bytes) -> list[ClientEvent] | None:
        made: list[ClientEvent] = []
        for (place, whole), kind in _texts_of(item):
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

    def _note_number(self, number: int | None) -> None:
        if number is None or number <= self.last_number:
            self.numbered = False
            return
        self.last_number = number

    def _add_text(self, place: tuple[int, int], delta: str) -> None:
        self._texts.setdefault(place, []).append(delta)
        self._size_bytes += len(delta)


def _texts_of(item: bytes) -> Iterator[tuple[tuple[int, str], str]]:
    for place, text in text_parts(item):
        yield (place, text), "response.output_text.delta"
    arguments = call_arguments(item)
    if arguments is not None:
        yield (-1, arguments), "response.function_call_arguments.delta"
