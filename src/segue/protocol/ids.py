"""Identifiers: their format, and how to make them from random bytes of the caller.

A response id is `resp_` + 8 hex digits + 32 hex digits. The first part is the tag of the chain's root: every response
of a chain carries it, forks included, so that a chain can live on one shard. The second part is 128 random bits: an id
cannot be guessed, and does not tell its tenant. The id of an item is made from the id of its response, which can be
read from it again. A conversation's id is `conv_` and the same two parts: all that it holds carries its tag. Not here:
a source of randomness.
"""

from __future__ import annotations

import re
from typing import NewType

ResponseId = NewType("ResponseId", str)
ConversationId = NewType("ConversationId", str)

#: How many random bytes `new_response_id` needs: 4 for a root's tag, 16 for the id itself.
ENTROPY_BYTES = 20

#: The number of a turn's first input item, so that ids of input items differ from those of output items.
FIRST_INPUT_NUMBER = 0x8000

_RESPONSE_ID = re.compile(r"resp_[0-9a-f]{8}[0-9a-f]{32}")
_CONVERSATION_ID = re.compile(r"conv_[0-9a-f]{8}[0-9a-f]{32}")
_ITEM_ID = re.compile(r"[a-z]{1,8}_([0-9a-f]{40})[0-9a-f]{4,8}")
_MESSAGE_ID = re.compile(r"msg_([0-9a-f]{40})")
_TAG = slice(5, 13)
_TAG_AND_UNIQUE = slice(5, 45)

#: How the id of an item begins, by its type.
_PREFIXES = {
    "message": "msg",
    "function_call": "fc",
    "function_call_output": "fco",
    "custom_tool_call": "ctc",
    "custom_tool_call_output": "ctco",
    "reasoning": "rs",
    "compaction": "cmp",
}


def new_response_id(entropy: bytes, parent: ResponseId | ConversationId | None = None) -> ResponseId:
    """Make the id of a new response: a new root, or one that inherits the tag of what it continues.

    `entropy` must be `ENTROPY_BYTES` fresh random bytes.
    """
    assert len(entropy) == ENTROPY_BYTES, f"{ENTROPY_BYTES} bytes of entropy, not {len(entropy)}"
    tag = entropy[:4].hex() if parent is None else parent[_TAG]
    return ResponseId(f"resp_{tag}{entropy[4:].hex()}")


def new_conversation_id(entropy: bytes) -> ConversationId:
    """Make the id of a new conversation, of `ENTROPY_BYTES` fresh random bytes."""
    assert len(entropy) == ENTROPY_BYTES, f"{ENTROPY_BYTES} bytes of entropy, not {len(entropy)}"
    return ConversationId(f"conv_{entropy.hex()}")


def chain_tag(response_id: ResponseId | ConversationId) -> str:
    """Return the 8 hex digits that all responses of a chain have in common, forks and its conversation included."""
    return response_id[_TAG]


def parse_response_id(text: str) -> ResponseId | None:
    """Return `text` as an id if it has the format of ours, else None: then no store needs to be asked."""
    return ResponseId(text) if _RESPONSE_ID.fullmatch(text) else None


def parse_conversation_id(text: str) -> ConversationId | None:
    """Return `text` as a conversation's id if it has the format of ours, else None."""
    return ConversationId(text) if _CONVERSATION_ID.fullmatch(text) else None


def message_id(response_id: ResponseId) -> str:
    """Return the id that a response has in the Messages API, whose clients look for this beginning."""
    return f"msg_{response_id[_TAG_AND_UNIQUE]}"


def response_of_message(text: str) -> str:
    """Return the id of the response that is known under this id in the Messages API; any other text as it is."""
    found = _MESSAGE_ID.fullmatch(text)
    return text if found is None else f"resp_{found[1]}"


def item_id(prefix: str, response_id: ResponseId, index: int) -> str:
    """Return the id of the item at `index` that belongs to a response, e.g. `msg_…`, `fc_…`.

    It is derived from its position, so that an item has the same id in every listing without a stored one.
    """
    return f"{prefix}_{response_id[_TAG_AND_UNIQUE]}{index:04x}"


def derived_item_id(kind: str, response_id: ResponseId, number: int) -> str:
    """Return the id of an item that came without one: of its type, and of its number among the items of its turn."""
    return item_id(_PREFIXES.get(kind, "item"), response_id, number)


def parse_item_id(text: str) -> ResponseId | None:
    """Return the response to which an item belongs if its id is derived from one, else None."""
    found = _ITEM_ID.fullmatch(text)
    return None if found is None else ResponseId(f"resp_{found[1]}")
