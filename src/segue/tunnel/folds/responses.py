"""The fold of Responses streams: the output items as the next request holds them.

The fold writes the text of an item as it streams. The item's last event repeats the whole item: the fold adds only what
it has not written yet, or the whole item if the pieces do not add up to it. Not here: how JSON is written (`json`).
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

import msgspec

from segue.tunnel.folds.json import FoldOutput, compact, escaped, event_decoder, is_strict, read_event


class ResponsesFoldEvent(msgspec.Struct):
    """What the fold reads of an event."""

    type: str
    item_id: str | None = None
    item: dict[str, object] | None = None
    delta: object = None
    content_index: int | None = None
    summary_index: int | None = None


class _ItemLayout(msgspec.Struct, frozen=True):
    """The order in which an item is written: keys before the streaming field, that field, keys after it."""

    before: tuple[str, ...]
    field: str
    opening: bytes
    after: tuple[str, ...]


class _StreamedPart(msgspec.Struct, frozen=True):
    """A part that streams: the items that have it, its opening, the key of its text, its end before another part."""

    kind: str
    item_type: str
    opening: bytes
    key: str
    closing: bytes


_ADDED: Final = "response.output_item.added"
_DONE: Final = "response.output_item.done"
_EVENTS: Final = event_decoder(ResponsesFoldEvent)
#: The order of the keys is that of Codex; to clients with other orders it makes no measurable difference.
LAYOUTS: Final = MappingProxyType(
    {
        "message": _ItemLayout(("type", "status", "id", "role"), "content", b"[", ()),
        "function_call": _ItemLayout(("type", "status", "id", "name"), "arguments", b'"', ("call_id",)),
        "custom_tool_call": _ItemLayout(("type", "id", "status", "call_id", "name"), "input", b'"', ()),
        "reasoning": _ItemLayout(("type", "id"), "summary", b"[", ("content", "encrypted_content")),
    }
)
_TYPES: Final = {b"[": list, b'"': str}
PARTS: Final = {
    "response.output_text.delta": _StreamedPart(
        "output_text", "message", b'{"type":"output_text","text":"', "text", b'","annotations":[],"logprobs":[]},'
    ),
    "response.refusal.delta": _StreamedPart("refusal", "message", b'{"type":"refusal","refusal":"', "refusal", b'"},'),
    "response.reasoning_summary_text.delta": _StreamedPart(
        "summary_text", "reasoning", b'{"type":"summary_text","text":"', "text", b'"},'
    ),
    "response.function_call_arguments.delta": _StreamedPart("", "function_call", b"", "", b""),
    "response.custom_tool_call_input.delta": _StreamedPart("", "custom_tool_call", b"", "", b""),
}
#: The other events append nothing.
_READ: Final = frozenset({_ADDED, _DONE, *PARTS})


class ResponsesFold:
    """Folds the events of one stream; the streaming item is the one that was added last."""

    def __init__(self, output: FoldOutput) -> None:
        self._output = output
        self._item_id: str | None = None
        self._item_type = ""
        self._written: tuple[str, ...] = ()
        self._part: tuple[_StreamedPart, int] | None = None
        self._streamed: list[tuple[str, int]] = []
        """Kind and length of each part of the item so far."""

    def take(self, data: bytes) -> bool:
        """Take the data of an event; return False if it is none of this API."""
        event = read_event(_EVENTS, data)
        if event is None or not event.type.startswith("response."):
            return False
        if event.type not in _READ:
            return True
        if not is_strict(data):
            return False
        if event.type == _ADDED:
            self._begin_item(event.item or {})
        elif event.type == _DONE:
            self._end_item(event.item or {})
        elif isinstance(event.delta, str):
            self._take_delta(event, event.delta)
        return True

    def _begin_item(self, item: dict[str, object]) -> None:
        kind, item_id = item.get("type"), item.get("id")
        layout = LAYOUTS.get(kind) if isinstance(kind, str) else None
        self._item_id = None
        if layout is None or not isinstance(kind, str) or not isinstance(item_id, str) or not item_id:
            return
        self._item_id, self._item_type = item_id, kind
        self._part, self._streamed = None, []
        head = {key: item[key] for key in layout.before if key in item}
        if "status" in head:
            head["status"] = "completed"  # what it will be when it is repeated
        self._written = tuple(head)
        self._output.write(b",", compact(head)[:-1], b',"%b":' % layout.field.encode(), layout.opening)

    def _take_delta(self, event: ResponsesFoldEvent, delta: str) -> None:
        part = PARTS[event.type]
        if self._item_id is None or event.item_id != self._item_id or part.item_type != self._item_type:
            return
        index = (event.summary_index if part.kind == "summary_text" else event.content_index) or 0
        if self._part != (part, index):
            if self._part is not None:
                self._output.write(self._part[0].closing)
            self._part = part, index
            self._streamed.append((part.kind, 0))
            self._output.write(part.opening)
        kind, length = self._streamed[-1]
        self._streamed[-1] = kind, length + len(delta)
        self._output.write(escaped(delta))

    def _end_item(self, item: dict[str, object]) -> None:
        is_current = self._item_id is not None and (item.get("id"), item.get("type")) == (
            self._item_id,
            self._item_type,
        )
        self._item_id = None
        kind = item.get("type")
        layout = LAYOUTS.get(kind) if isinstance(kind, str) else None
        if not item:
            return
        if layout is None:
            self._output.write(b",", compact(item))
            return
        if kind == "reasoning":
            item.setdefault("content", None)
        if is_current and isinstance(item.get(layout.field), _TYPES[layout.opening]):
            self._end_current(item, layout)
        else:
            self._output.write(b",", compact(_ordered(item, layout)))

    def _end_current(self, item: dict[str, object], layout: _ItemLayout) -> None:
        """Write the rest of an item whose head has been written."""
        value = item[layout.field]
        if not self._streamed:
            self._output.write(compact(value)[1:])
        elif self._streamed == _lengths(value):
            self._output.write(_last_part_end(value))
        else:
            self._output.write(b",", compact(_ordered(item, layout)))
            return
        rest = {key: val for key, val in _ordered(item, layout).items() if key not in (*self._written, layout.field)}
        self._output.write(b"," if rest else b"", compact(rest)[1:])


def _ordered(item: dict[str, object], layout: _ItemLayout) -> dict[str, object]:
    keys = (*layout.before, layout.field, *layout.after)
    return {key: item[key] for key in keys if key in item} | item


def _text_key(part: dict[str, object]) -> str:
    return "refusal" if part.get("type") == "refusal" else "text"


def _lengths(value: object) -> list[tuple[str, int]] | None:
    """Return the value of `_streamed` after the whole field has streamed."""
    if isinstance(value, str):
        return [("", len(value))]
    lengths: list[tuple[str, int]] = []
    for part in value if isinstance(value, list) else ():
        text = part.get(_text_key(part)) if isinstance(part, dict) else None
        if not isinstance(text, str):
            return None
        lengths.append((str(part.get("type")), len(text)))
    return lengths


def _last_part_end(value: object) -> bytes:
    """Return what follows the text that streamed last, up to the end of the field."""
    if not isinstance(value, list):
        return b'"'
    part: dict[str, object] = value[-1]
    rest = {key: val for key, val in part.items() if key not in {"type", _text_key(part)}}
    return (b'",' if rest else b'"') + compact(rest)[1:] + b"]"
