"""Reasoning at the door of Chat Completions: `reasoning_details`, as OpenRouter calls what a client sends back unread.

That API shows reasoning as a text at most. What its provider wants back (a signature, encrypted reasoning) has no field
in it, so it stands where clients know that they must keep it (https://openrouter.ai/docs/use-cases/reasoning-tokens). A
detail holds one item: its text, what was sealed with it, and as `index` its place among the items of its answer. Not
here: the details of a provider that has some of its own (`stream`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Raw

from segue.dialects.sealed_reasoning import MARK, unseal
from segue.protocol.codec import decode, encode
from segue.protocol.item_types import ReasoningItem
from segue.protocol.items import Item
from segue.protocol.problems import Problem

#: What a request holds that has details from here, and few others.
SEALED = f'"{MARK}'.encode()
_DETAILS = "reasoning_details"
_NONE = Raw(b"[]")
_FORMAT = "segue-v1"
_BETWEEN_PARTS = "\n\n"


class PlacedReasoning(msgspec.Struct, frozen=True):
    """A reasoning item, and its place among the items of its answer."""

    index: int
    item: Item


class _SentDetail(msgspec.Struct):
    """A detail as a client sends it; those of other servers have other fields."""

    index: int | None = None
    text: str | None = None
    signature: str | None = None
    data: str | None = None

    @property
    def sealed(self) -> str | None:
        """What was sealed here; None if this is the detail of another server."""
        content = self.signature or self.data or ""
        return None if unseal(content).provider is None else content


_detail = msgspec.json.Decoder(_SentDetail)
_details = msgspec.json.Decoder(list[_SentDetail])
_raws = msgspec.json.Decoder(list[Raw])
_fields = msgspec.json.Decoder(dict[str, Raw])
_items = msgspec.json.Decoder(ReasoningItem)


def write_detail(item: Item, index: int) -> dict[str, Any] | None:
    """Return the detail of a finished reasoning item; None if its provider wants nothing back."""
    reasoning = _items.decode(item)
    if reasoning.encrypted_content is None:
        return None
    text = _BETWEEN_PARTS.join(part.text for part in (*reasoning.summary, *(reasoning.content or ())))
    if not text:
        return {
            "type": "reasoning.encrypted",
            "data": reasoning.encrypted_content,
            "format": _FORMAT,
            "index": index,
        }
    signature = reasoning.encrypted_content
    return {"type": "reasoning.text", "text": text, "signature": signature, "format": _FORMAT, "index": index}


def read_details(raw: Raw) -> list[PlacedReasoning] | None:
    """Return the reasoning in the `reasoning_details` of a message; None if there is any that is not from here."""
    details = decode(raw, _details)
    if isinstance(details, Problem):
        return None
    read = [_read(detail, place) for place, detail in enumerate(details)]
    found = [one for one in read if one is not None]
    return found if len(found) == len(read) else None


def without_sealed(messages: Sequence[Raw]) -> list[bytes] | None:
    """Return messages without the details that were sealed here; None if there are none.

    A request that passes through goes to a provider that has given its own details unsealed: these are of another one.
    """
    written = [bytes(message) for message in messages]
    cleaned = [_clean(message) if SEALED in message else message for message in written]
    return None if cleaned == written else cleaned


def _clean(message: bytes) -> bytes:
    fields = decode(message, _fields)
    if isinstance(fields, Problem):  # the provider judges it
        return message
    details = decode(fields.get(_DETAILS, _NONE), _raws)
    if isinstance(details, Problem):
        return message
    kept = [detail for detail in details if not _is_sealed(detail)]
    if len(kept) == len(details):
        return message
    others = {name: value for name, value in fields.items() if name != _DETAILS}
    return encode(others | ({_DETAILS: kept} if kept else {}))


def _is_sealed(raw: Raw) -> bool:
    detail = decode(raw, _detail)
    return not isinstance(detail, Problem) and detail.sealed is not None


def _read(detail: _SentDetail, place: int) -> PlacedReasoning | None:
    sealed = detail.sealed
    if sealed is None:
        return None
    summary = [{"type": "summary_text", "text": detail.text}] if detail.text else []
    item = encode({"type": "reasoning", "summary": summary, "encrypted_content": sealed})
    return PlacedReasoning(place if detail.index is None else detail.index, item)
