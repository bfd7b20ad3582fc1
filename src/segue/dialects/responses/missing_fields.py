"""Fills in the fields that some Responses servers leave out of their events: above all, where an event belongs.

llama.cpp's server numbers neither items nor parts, and its texts have no `annotations` and `logprobs`; our clients rely
on all of them. An event that has its `output_index` is taken to be complete and is not parsed, so servers that keep to
the protocol cost nothing. Not here: what the events mean (`stream`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from segue.protocol.codec import encode

#: The fields that each type of event must have, with their defaults. `output_index` is added to all of them.
_NEEDED: Mapping[str, Mapping[str, Any]] = {
    "response.output_item.added": {},
    "response.output_item.done": {},
    "response.content_part.added": {"content_index": 0},
    "response.content_part.done": {"content_index": 0},
    "response.output_text.delta": {"content_index": 0, "logprobs": []},
    "response.output_text.done": {"content_index": 0, "logprobs": []},
    "response.refusal.delta": {"content_index": 0},
    "response.refusal.done": {"content_index": 0},
    "response.reasoning_text.delta": {"content_index": 0},
    "response.reasoning_text.done": {"content_index": 0},
    "response.reasoning_summary_part.added": {"summary_index": 0},
    "response.reasoning_summary_part.done": {"summary_index": 0},
    "response.reasoning_summary_text.delta": {"summary_index": 0},
    "response.reasoning_summary_text.done": {"summary_index": 0},
    "response.function_call_arguments.delta": {},
    "response.function_call_arguments.done": {},
}
_TEXT: Mapping[str, Any] = {"annotations": [], "logprobs": []}

_objects = msgspec.json.Decoder(dict[str, Any])


class MissingFieldFiller:
    """Fills in the missing fields in the events of one stream."""

    def __init__(self) -> None:
        self._indexes: dict[str, int] = {}  # of items, by their ids
        self._added = 0

    def fill(self, kind: str, data: bytes) -> bytes:
        """Return an event that has no `output_index` with all fields that its type must have."""
        needed = _NEEDED.get(kind)
        if needed is None:
            return data
        event = _objects.decode(data)
        item = event.get("item")
        ident = event.get("item_id", item.get("id") if isinstance(item, dict) else None)
        if kind == "response.output_item.added":
            self._indexes[str(ident)] = self._added
            self._added += 1
        event["output_index"] = self._indexes.get(str(ident), self._added - 1)
        for name, value in needed.items():
            event.setdefault(name, value)
        if isinstance(item, dict) and isinstance(item.get("content"), list):
            event["item"] = {**item, "content": [_whole(part) for part in item["content"]]}
        if "part" in event:
            event["part"] = _whole(event["part"])
        return encode(event)


def _whole(part: object) -> object:
    """Return a part with all fields that an `output_text` must have; other parts as they are."""
    return {**_TEXT, **part} if isinstance(part, dict) and part.get("type") == "output_text" else part
