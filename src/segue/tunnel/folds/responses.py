"""The fold of Responses streams: the output items as the next request holds them.

The fold writes the text of an item as it streams. The item's last event repeats the whole item: the fold adds only what
it has not written yet, or the whole item if the pieces do not add up to it. Not here: how JSON is written (`json`).
"""

from __future__ import annotations

from typing import Final

import msgspec

from segue.tunnel.folds.json import FoldOutput, compact, escaped


class _ResponsesFoldEvent(msgspec.Struct):
    type: str
    item_id: str | None = None
    item: dict[str, object] = {}
    delta: object = None
    content_index: int = 0
    summary_index: int = 0


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


#: The order of the keys is that of Codex; to clients with other orders it makes no measurable difference.
_SHAPES: Final = {
    "message": _ItemLayout(("type", "status", "id", "role"), "content", b"[", ()),
    "function_call": _ItemLayout(("type", "status", "id", "name"), "arguments", b'"', ("call_id",)),
    "custom_tool_call": _ItemLayout(("type", "id", "status", "call_id", "name"), "input", b'"', ()),
    "reasoning": _ItemLayout(("type", "id"), "summary", b"[", ("content", "encrypted_content")),
}
_PARTS: Final = {
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


class ResponsesFold:
    """Folds the events of one stream; the streaming item is the one that was added last."""

    def __init__(self, output: FoldOutput) -> None:
        self._output = output
        self._item_id: object = None
        self._item_type = ""
        self._written: tuple[str, ...] = ()
        self._part: tuple[_StreamedPart, int] | None = None
        self._streamed: list[tuple[str, int]] = []
        """Kind and length of each part of the item so far."""

    def take(self, data: bytes) -> bool:
        """Take the data of an event; return False if it is none of this API."""
        event = msgspec.json.decode(data, type=_ResponsesFoldEvent)
        if not event.type.startswith("response."):
            return False
        if event.type == "response.output_item.added":
            self._begin_item(event.item)
        elif event.type == "response.output_item.done":
            self._end_item(event.item)
        elif event.type in _PARTS and isinstance(event.delta, str):
            self._take_delta(event, event.delta)
        return True

    def _begin_item(self, item: dict[str, object]) -> None:
        kind = item.get("type")
        self._item_id, self._item_type = None, ""
        if isinstance(kind, str) and kind in _SHAPES and item.get("id"):
            shape = _SHAPES[kind]
            self._item_id, self._item_type = item["id"], kind
            self._part, self._streamed = None, []
            head = {key: item[key] for key in shape.before if key in item}
            if "status" in head:
                head["status"] = "completed"  # what it will be when it is repeated
            self._written = tuple(head)
            self._output.write(b",", compact(head)[:-1], b',"%b":' % shape.field.encode(), shape.opening)

    def _take_delta(self, event: _ResponsesFoldEvent, delta: str) -> None:
        part = _PARTS[event.type]
        if event.item_id != self._item_id or part.item_type != self._item_type:
            return
        index = event.summary_index if part.kind == "summary_text" else event.content_index
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
        shape = _SHAPES.get(kind) if isinstance(kind, str) else None
        if shape is not None and kind == "reasoning":
            item.setdefault("content", None)
        if shape is None:
            self._output.write(b",", compact(item))
        elif not is_current or not isinstance(item.get(shape.field), str | list):
            self._output.write(b",", compact(_ordered(item, shape)))
        else:
            self._end_current(item, shape)

    def _end_current(self, item: dict[str, object], shape: _ItemLayout) -> None:
        """Write the rest of an item whose head has been written."""
        value = item[shape.field]
        if not self._streamed:
            self._output.write(compact(value)[1:])
        elif self._streamed == _lengths(value):
            self._output.write(_last_part_end(value))
        else:
            self._output.write(b",", compact(_ordered(item, shape)))
            return
        rest = {key: val for key, val in _ordered(item, shape).items() if key not in (*self._written, shape.field)}
        self._output.write(b"," if rest else b"", compact(rest)[1:])


def _ordered(item: dict[str, object], shape: _ItemLayout) -> dict[str, object]:
    keys = (*shape.before, shape.field, *shape.after)
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
