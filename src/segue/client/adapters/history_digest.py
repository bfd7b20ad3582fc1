"""Digests of histories, to find the session that a framework continues when it sends its whole history again.

A framework keeps the items of a conversation in a form of its own and writes them anew for each request: without the
members that are null, without an id, a message's text as a plain string. Two items are the same here if a model would
read the same in them. Reasoning does not count: frameworks leave out what they cannot keep, and a session keeps its
own. Each digest covers all items up to one place, so the longest known beginning is found by looking digests up. Not
here: which session a digest belongs to (`session_index`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from segue.protocol.codec import UNREADABLE

#: What the digest of an empty history is.
EMPTY = b""

_TEXTS = frozenset({"input_text", "output_text", "text"})
#: Members of an item that say nothing to a model.
_SILENT = frozenset({"id", "status"})

_any_item = msgspec.json.Decoder(dict[str, Any])
_sorted = msgspec.json.Encoder(order="sorted")


def extend_digest(digest: bytes, items: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the digest of a history with each of these items added to it; `digest` is the history's own."""
    for item in items:
        form = _canonical_form(item)
        if form is not None:
            digest = hashlib.sha256(digest + form).digest()
        yield digest


def _canonical_form(item: bytes) -> bytes | None:
    """Return what a model would read in an item, as bytes; None for reasoning. An unreadable item is only itself."""
    try:
        fields = _any_item.decode(item)
    except UNREADABLE:
        return item
    kind = fields.get("type") or "message"
    if kind == "reasoning":
        return None
    if kind == "message":
        return _sorted.encode([kind, fields.get("role"), _parts(fields.get("content"))])
    kept = {name: value for name, value in fields.items() if value is not None and name not in _SILENT}
    if "output" in kept:
        kept["output"] = _parts(kept["output"])
    return _sorted.encode(kept)


def _parts(content: object) -> object:
    """Return the content of a message or an output as a list of its parts, whatever way it was written."""
    if isinstance(content, str):
        return [content]
    if not isinstance(content, list):
        return content
    return [_part(part) for part in content]


def _part(part: object) -> object:
    if not isinstance(part, Mapping):
        return part
    if part.get("type") in _TEXTS:
        return part.get("text")
    return {name: value for name, value in part.items() if value is not None}
