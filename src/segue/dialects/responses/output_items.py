"""The items of one output: which of the upstream's events belong to which, and what its terminal event adds to them.

An upstream names the item of an event by `output_index` and by id. Our clients get indexes from 0 without gaps, so an
upstream that counts from 1, repeats an index or leaves it out is counted anew. `match` finds for each streamed item the
one of the terminal event. Not here: writing events (`item_events`), and reading them (`stream`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from segue.dialects.responses.item_events import NAMES, TEXTS, UnannouncedItem, is_call, text_of
from segue.protocol.codec import UNREADABLE

Json = dict[str, Any]

#: How much is kept of the events of an item that is open.
MAX_PASSED_BYTES = 1024 * 1024


class OutputItem:
    """One item: its place in our output, and how far it is.

    `raw` is the item as the upstream ended it. `unannounced` writes its events if the upstream sent no `added` event.
    `last` is the type of the last event that came between `added` and `done`, "" if none has. `passed` are those
    events, up to `MAX_PASSED_BYTES`: an upstream that does not end the item may show it whole in its terminal event.
    `passes` is true while the events that name the item by its index may pass as they are.
    """

    __slots__ = ("ident", "index", "kind", "last", "passed", "passed_bytes", "passes", "raw", "unannounced")

    def __init__(self, index: int, kind: str, ident: str, *, passes: bool) -> None:
        self.index = index
        self.kind = kind
        self.ident = ident
        self.raw: bytes | None = None
        self.unannounced: UnannouncedItem | None = None
        self.last = ""
        self.passed: list[bytes] = []
        self.passed_bytes = 0
        self.passes = passes

    @property
    def open(self) -> bool:
        """Whether the upstream has not ended it."""
        return self.raw is None

    def write_anew(self, writer: UnannouncedItem) -> UnannouncedItem:
        """Let nothing of the item pass from here on: `writer` writes its events."""
        self.unannounced, self.passes = writer, False
        return writer

    def end(self, raw: bytes) -> None:
        """Note how the upstream ended the item."""
        self.raw, self.passes, self.passed = raw, False, []

    def keep(self, kind: str, data: bytes) -> None:
        """Note an event that was passed on, and keep it while there is room. Without room it is not kept at all."""
        self.last = kind
        self.passed_bytes += len(data)
        if self.passed_bytes <= MAX_PASSED_BYTES:
            self.passed.append(data)
        else:
            self.passed.clear()


class OutputItems:
    """All items of an output, in order; `at` are the latest by the upstream's index, and none has the index None."""

    def __init__(self) -> None:
        self._items: list[OutputItem] = []
        self.at: dict[int | None, OutputItem] = {}
        self._by_id: dict[str, OutputItem] = {}
        self._shared = False  # two items that were open at the same time had the same index

    def __len__(self) -> int:
        return len(self._items)

    @property
    def all(self) -> Sequence[OutputItem]:
        """The items, in order."""
        return self._items

    def begin(self, index: int | None, kind: str, ident: str) -> OutputItem:
        """Add an item, which the upstream knows by an index, by an id, or by neither."""
        earlier = self.at.get(index)
        if earlier is not None and earlier.open and not self._shared:
            self._shared = True
            for one in self._items:
                one.passes = False
        number = len(self._items)
        item = OutputItem(number, kind, ident, passes=index == number and not self._shared)
        self._items.append(item)
        if ident:
            self._by_id[ident] = item
        if index is not None:
            self.at[index] = item
        return item

    def has(self, ident: str) -> bool:
        """Whether an item has this id."""
        return ident in self._by_id

    def find(self, index: int | None, ident: str) -> OutputItem | None:
        """Find the item of an event: by its id if its index says nothing or too little, else by its index."""
        by_index = self.at.get(index)
        if by_index is not None and not self._shared:
            return by_index
        found = self._by_id.get(ident) or by_index
        if found is not None or index is not None:
            return found
        return self._items[-1] if self._items and self._items[-1].open else None


def says_what_passed(item: OutputItem, shown: Json) -> bool:
    """Tell whether an item says what the deltas of one that is open said: one part, whose end has not come."""
    name, _, step = item.last.rpartition(".")
    if step != "delta" or name not in TEXTS or not item.passed:
        return False
    part, *deltas = map(_objects.decode, item.passed)
    group = TEXTS[name].group
    said = "".join(_text(event.get("delta")) for event in deltas)
    one_part = all(event.get("type") == item.last and event.get(f"{group}_index") == 0 for event in deltas)
    begun = _text(part.get("type")).endswith("_part.added") and not text_of({"type": "", "content": [part.get("part")]})
    parts = {other: shown.get(other) or [] for other in ("content", "summary")}
    shape = {other: len(value) if isinstance(value, list) else -1 for other, value in parts.items()}
    alone = shape == {"content": 0, "summary": 0, group: 1} and NAMES.get((group, _kind(parts[group][0]))) == name
    return begun and one_part and alone and said == text_of(shown)


def _kind(part: object) -> str:
    return _text(part.get("type")) if isinstance(part, dict) else ""


# --- the terminal event ----------------------------------------------------------------------------------------------


class EndedItem(msgspec.Struct, frozen=True):
    """An item of the output of a terminal event."""

    raw: bytes
    item: Json

    @property
    def ident(self) -> str:
        """Its id, "" if it has none."""
        return _text(self.item.get("id"))


#: How many pairs of items are compared; a terminal event could have any number of them.
_MAX_COMPARISONS = 10_000

_objects = msgspec.json.Decoder(dict[str, Any])


def match(items: Sequence[OutputItem], ended: Sequence[EndedItem]) -> dict[int, EndedItem] | None:
    """Find the item of a terminal event for each streamed one, by the index of the latter; None if that takes too long.

    Some servers give an item another id at the end. So those that share no id are compared by type and by what they
    say; at last the order of those of one type counts, except for calls: two different calls are never the same item.
    """
    values = {item.index: _value(item) for item in items}
    found = _match_ids(values, ended)
    taken = {id(one) for one in found.values()}
    left = [one for one in ended if id(one) not in taken]
    if (len(items) - len(found)) * len(left) > _MAX_COMPARISONS:
        return None
    for same in (says_the_same, _begins, _is_another_of_its_type):
        for index, value in values.items():
            at = None if index in found else _find(left, value, same)
            if at is not None:
                found[index] = left.pop(at)
    return found


def _match_ids(values: Mapping[int, Json], ended: Sequence[EndedItem]) -> dict[int, EndedItem]:
    known: dict[str, dict[str | None, int]] = {
        name: {_text(value.get(name)): index for index, value in values.items()} for name in ("id", "call_id")
    }
    found: dict[int, EndedItem] = {}
    for one in ended:
        for name, indexes in known.items():
            at = indexes.get(_text(one.item.get(name)) or None)
            if at is not None and at not in found and _is_comparable(values[at], one.item):
                found[at] = one
                break
    return found


def _is_comparable(one: Json, other: Json) -> bool:
    """Tell whether two items with the same id may be one: a message is no call, whatever its id is."""
    return one.get("type") == other.get("type") or (is_call(one) and is_call(other))


def _find(left: Sequence[EndedItem], value: Json, same: Callable[[Json, Json], bool]) -> int | None:
    return next(
        (at for at, one in enumerate(left) if one.item.get("type") == value.get("type") and same(value, one.item)), None
    )


def says_the_same(one: Json, other: Json) -> bool:
    """Tell whether two items say the same, however their JSON is written."""
    if one.get("type") != other.get("type") or (is_call(one) and one.get("name") != other.get("name")):
        return False
    return text_of(one) == text_of(other) or _equal_as_json(text_of(one), text_of(other))


def says_as_much(items: Sequence[OutputItem], ended: Sequence[EndedItem]) -> bool:
    """Tell whether all messages together say the same, but for white space, and however they are cut."""
    streamed = [_value(item) for item in items if item.kind == "message"]
    shown = [one.item for one in ended if one.item.get("type") == "message"]
    return bool(streamed) and _words(streamed) == _words(shown)


def _words(messages: Sequence[Json]) -> str:
    return "".join("".join(text_of(message) for message in messages).split())


def _value(item: OutputItem) -> Json:
    if item.raw is not None:
        return _objects.decode(item.raw)
    text = "" if item.unannounced is None else item.unannounced.text
    return {"id": item.ident, "type": item.kind, "content": text}


def _is_another_of_its_type(one: Json, _: Json) -> bool:
    return not is_call(one)


def _begins(one: Json, other: Json) -> bool:
    if is_call(one):
        return False
    first, second = text_of(one), text_of(other)
    return bool(first and second) and (first.startswith(second) or second.startswith(first))


def _equal_as_json(one: str, other: str) -> bool:
    try:
        return bool(msgspec.json.decode(one) == msgspec.json.decode(other))
    except UNREADABLE:
        return False


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
