"""Fills in the fields that some Responses servers leave out of their events: above all, where an event belongs.

llama.cpp's server numbers neither items nor parts, and its texts have no `annotations` and `logprobs`; our clients rely
on all of them. An event whose `output_index` is right is taken to be complete and is not parsed, so servers that keep
to the protocol cost nothing. Not here: which index is right (`output_items`), and what the events mean (`stream`).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from segue.protocol.codec import encode

_TEXT: Mapping[str, Any] = MappingProxyType({"annotations": [], "logprobs": []})
_IN_CONTENT: Mapping[str, Any] = MappingProxyType({"content_index": 0})
_IN_SUMMARY: Mapping[str, Any] = MappingProxyType({"summary_index": 0})

#: The fields that each type of event must have, with their defaults. `output_index` is added to all of them.
_NEEDED: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "response.content_part.added": _IN_CONTENT,
        "response.content_part.done": _IN_CONTENT,
        "response.output_text.delta": MappingProxyType({"content_index": 0, "logprobs": []}),
        "response.output_text.done": MappingProxyType({"content_index": 0, "logprobs": []}),
        "response.refusal.delta": _IN_CONTENT,
        "response.refusal.done": _IN_CONTENT,
        "response.reasoning_text.delta": _IN_CONTENT,
        "response.reasoning_text.done": _IN_CONTENT,
        "response.reasoning_summary_part.added": _IN_SUMMARY,
        "response.reasoning_summary_part.done": _IN_SUMMARY,
        "response.reasoning_summary_text.delta": _IN_SUMMARY,
        "response.reasoning_summary_text.done": _IN_SUMMARY,
    }
)


def fill(kind: str, event: dict[str, Any], index: int) -> bytes:
    """Return an event of the item at `index`, with all fields that its type must have."""
    event["output_index"] = index
    for name, value in _NEEDED.get(kind, {}).items():
        event.setdefault(name, value)
    item = event.get("item")
    if isinstance(item, dict) and isinstance(item.get("content"), list):
        event["item"] = {**item, "content": [_whole(part) for part in item["content"]]}
    if "part" in event:
        event["part"] = _whole(event["part"])
    return encode(event)


def _whole(part: object) -> object:
    """Return a part with all fields that an `output_text` must have; other parts as they are."""
    return {**_TEXT, **part} if isinstance(part, dict) and part.get("type") == "output_text" else part
