"""The Conversations API: what its requests say, and the conversation object.

Not here: what a conversation is (`segue.history.conversations`), and the list of its items (`listing`).
"""

from __future__ import annotations

from typing import TypeVar

import msgspec
from msgspec import Raw

from segue.protocol.codec import decode, encode
from segue.protocol.ids import ConversationId
from segue.protocol.items import Input, parse_input
from segue.protocol.problems import Problem, invalid_json, missing
from segue.protocol.request_size import RequestLimits, refuse_size
from segue.protocol.requests import Metadata

T = TypeVar("T")

#: How many items a client may add at a time, as in OpenAI's API.
MOST_ADDED = 20

_NULL = Raw(b"null")


class _NewBody(msgspec.Struct):
    items: Raw = _NULL
    metadata: Metadata | None = None


class _ChangedBody(msgspec.Struct):
    metadata: Metadata


class _AddedBody(msgspec.Struct):
    items: Raw = _NULL


class NewConversation(msgspec.Struct, frozen=True):
    """What a conversation begins with."""

    items: Input = Input()
    metadata: bytes = b"{}"


class _ConversationObject(msgspec.Struct):
    id: ConversationId
    created_at: int
    metadata: Raw
    object: str = "conversation"


_new_bodies = msgspec.json.Decoder(_NewBody)
_changed_bodies = msgspec.json.Decoder(_ChangedBody)
_added_bodies = msgspec.json.Decoder(_AddedBody)


def parse_new(data: bytes, limits: RequestLimits) -> NewConversation | Problem:
    """Read the body of a request for a new conversation; it may be empty."""
    body = _read(data or b"{}", _new_bodies, limits)
    if isinstance(body, Problem):
        return body
    items = Input() if body.items == _NULL else _parse_items(body.items, limits)
    return items if isinstance(items, Problem) else NewConversation(items, encode(body.metadata or {}))


def parse_change(data: bytes, limits: RequestLimits) -> bytes | Problem:
    """Read the body of an update: the new metadata, as a JSON object."""
    body = _read(data, _changed_bodies, limits)
    return body if isinstance(body, Problem) else encode(body.metadata)


def parse_added(data: bytes, limits: RequestLimits) -> Input | Problem:
    """Read the body of a request that adds items."""
    body = _read(data, _added_bodies, limits)
    if isinstance(body, Problem):
        return body
    if body.items == _NULL:
        return missing("items")
    items = _parse_items(body.items, limits)
    return items if isinstance(items, Problem) or items.items else missing("items[0]")


def _read(data: bytes, decoder: msgspec.json.Decoder[T], limits: RequestLimits) -> T | Problem:
    too_large = refuse_size(data, limits)
    if too_large is not None:
        return too_large
    body: T | Problem = decode(data, decoder)
    return body


def _parse_items(raw: Raw, limits: RequestLimits) -> Input | Problem:
    """Check items as those of an input; a text is none here."""
    if not bytes(raw).lstrip().startswith(b"["):
        return msgspec.structs.replace(invalid_json("'items' must be a list of items"), param="items")
    items = parse_input(raw, limits)
    if isinstance(items, Problem):
        return msgspec.structs.replace(
            items,
            message=items.message.replace("input[", "items["),
            param=None if items.param is None else items.param.replace("input", "items", 1),
        )
    if items.triggers:
        field = f"items[{len(items.items) - 1}].type"
        return Problem("invalid_value", f"Invalid value for '{field}': it asks for a compaction; a create can.", field)
    if len(items.items) > MOST_ADDED:
        message = f"'items' has {len(items.items)} items; a request may add {MOST_ADDED}."
        return Problem("invalid_value", message, "items")
    return items


def conversation_object(conversation_id: ConversationId, created_at: float, metadata: bytes) -> bytes:
    """Return the JSON object of a conversation."""
    return encode(_ConversationObject(conversation_id, int(created_at), Raw(metadata)))


def deleted_object(conversation_id: ConversationId) -> bytes:
    """Return the JSON object of a conversation that was deleted."""
    return encode({"id": conversation_id, "object": "conversation.deleted", "deleted": True})
