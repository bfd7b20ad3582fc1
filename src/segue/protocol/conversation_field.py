"""The field `conversation` of a create: an id, or an object with one.

Not here: the Conversations API (`conversations`).
"""

from __future__ import annotations

import msgspec

from segue.protocol.codec import decode
from segue.protocol.ids import ConversationId, parse_conversation_id
from segue.protocol.problems import (
    Problem,
    conversation_excludes,
    conversation_not_found,
    conversation_not_stored,
)


class _ConversationName(msgspec.Struct):
    id: str


_names = msgspec.json.Decoder(str | _ConversationName)


def refuse_conversation(field: msgspec.Raw, previous_response_id: str | None, *, store: bool) -> Problem | None:
    """Refuse a conversation that cannot be continued; without the format of an id, it is none of ours."""
    name = decode(field, _names, "conversation")
    if isinstance(name, Problem):
        return name
    if previous_response_id is not None:
        return conversation_excludes("previous_response_id")
    if not store:
        return conversation_not_stored()
    text = name if isinstance(name, str) else name.id
    return None if parse_conversation_id(text) else conversation_not_found(text, "conversation")


def conversation_of(field: msgspec.Raw) -> ConversationId | None:
    """Return the conversation that a request belongs to; the field was checked."""
    name = _names.decode(field)
    return parse_conversation_id(name if isinstance(name, str) else name.id)
