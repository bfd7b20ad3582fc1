"""Identifiers: their format, and how to make them from random bytes of the caller.

A response id is `resp_` + 8 hex digits + 32 hex digits. The first part is the tag of the chain's root: every response
of a chain carries it, forks included, so that a chain can live on one shard. The second part is 128 random bits: an id
cannot be guessed, and does not tell its tenant. Not here: a source of randomness.
"""

from __future__ import annotations

import re
from typing import NewType

ResponseId = NewType("ResponseId", str)

#: How many random bytes `new_response_id` needs: 4 for a root's tag, 16 for the id itself.
ENTROPY_BYTES = 20

_RESPONSE_ID = re.compile(r"resp_[0-9a-f]{8}[0-9a-f]{32}")
_TAG = slice(5, 13)
_UNIQUE = slice(13, 45)


def new_response_id(entropy: bytes, parent: ResponseId | None = None) -> ResponseId:
    """Make the id of a new response: a new root, or a child that inherits the tag of `parent`'s root.

    `entropy` must be `ENTROPY_BYTES` fresh random bytes.
    """
    assert len(entropy) == ENTROPY_BYTES, f"{ENTROPY_BYTES} bytes of entropy, not {len(entropy)}"
    tag = entropy[:4].hex() if parent is None else parent[_TAG]
    return ResponseId(f"resp_{tag}{entropy[4:].hex()}")


def chain_tag(response_id: ResponseId) -> str:
    """Return the 8 hex digits that all responses of a chain have in common, forks included."""
    return response_id[_TAG]


def parse_response_id(text: str) -> ResponseId | None:
    """Return `text` as an id if it has the format of ours, else None: then no store needs to be asked."""
    return ResponseId(text) if _RESPONSE_ID.fullmatch(text) else None


def item_id(prefix: str, response_id: ResponseId, index: int) -> str:
    """Return the id of the item at `index` that belongs to a response, e.g. `msg_…`, `fc_…`.

    It is derived from its position, so that an item has the same id in every listing without a stored one.
    """
    return f"{prefix}_{response_id[_UNIQUE]}{index:04x}"
