"""The events of a compaction, and those of an answer that comes after one.

A compaction item is written whole: it has no text that a client could read while it grows. Not here: numbering across
a turn (`turns`), and what is in the item.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from segue.protocol.codec import encode, with_field
from segue.protocol.events import FIRST_SEQUENCE_NUMBER, Ended, Event
from segue.protocol.ids import ResponseId, derived_item_id
from segue.protocol.items import COMPACTION, Item

#: The place of the item in the output: it stands for what was before the answer.
_INDEX = 0


class _Indexed(msgspec.Struct):
    output_index: int | None = None


_placed = msgspec.json.Decoder(_Indexed)


class CompactionWriter:
    """Writes the events of the compaction item of one response."""

    def __init__(self, response_id: ResponseId) -> None:
        self._ident = derived_item_id(COMPACTION, response_id, _INDEX)
        self._number = FIRST_SEQUENCE_NUMBER
        self._added = False

    def progress(self) -> list[Event]:
        """Say that more of the summary was written; the first time, that there will be an item."""
        events = self._add()
        kind = "response.compaction.compacting"
        return [*events, self._event(kind, item_id=self._ident, output_index=_INDEX)]

    def finish(self, sealed: str) -> list[Event]:
        """Write the finished item."""
        events = self._add()
        number, item = self._next(), self._item(sealed)
        head = b'{"type":"response.output_item.done","output_index":%d,"item":' % _INDEX
        data = b'%b%b,"sequence_number":%d}' % (head, item, number)
        return [*events, Event("response.output_item.done", data, number, item)]

    def _add(self) -> list[Event]:
        if self._added:
            return []
        self._added = True
        item = msgspec.Raw(self._item(""))
        return [self._event("response.output_item.added", output_index=_INDEX, item=item)]

    def _item(self, sealed: str) -> Item:
        return encode({"id": self._ident, "type": COMPACTION, "encrypted_content": sealed})

    def _event(self, kind: str, **fields: object) -> Event:
        number = self._next()
        return Event(kind, encode({"type": kind, **fields, "sequence_number": number}), number)

    def _next(self) -> int:
        number = self._number
        self._number += 1
        return number


def behind_compaction(batch: Iterable[Event | Ended]) -> list[Event | Ended]:
    """Return the events of an answer whose items stand behind a compaction item in the output."""
    return [event if isinstance(event, Ended) else _move(event) for event in batch]


def _move(event: Event) -> Event:
    index = _placed.decode(event.data).output_index
    if index is None:
        return event
    return msgspec.structs.replace(event, data=with_field(event.data, "output_index", index + _INDEX + 1))
