"""Which conversation a turn belongs to, for upstreams that treat the turns of one conversation alike. Pure.

A turn that continues another by its id belongs to that turn's chain. Every id contains the tag of its chain, so this
costs nothing at any depth, and all gateways agree. A client that sends the whole history again gets a new chain each
time; its history contains items of the model, and is recognised by a digest of the items before the first of them. Two
conversations that begin with the very same items have the same digest, so the chain is compared first. Not here: what
uses the key (`slots`, `session_affinity`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import msgspec

from segue.dialects.interface import TurnRequest
from segue.protocol.codec import decode
from segue.protocol.ids import chain_tag
from segue.protocol.items import Item
from segue.protocol.problems import Problem


class ConversationKey(msgspec.Struct, frozen=True):
    """Which conversation a turn belongs to.

    `chain` is the tag of its chain. `prefix_digest` is a digest of the items before the model's first one; it is b""
    for a turn that continues another. `replayed` is true if the turn continues none and yet contains items of the
    model: its client has sent the whole history again.
    """

    tenant: str
    chain: str
    prefix_digest: bytes = b""
    replayed: bool = False


def conversation_key_of(request: TurnRequest) -> ConversationKey:
    """Return the key of a turn's conversation: O(1) for a turn that continues another, else O(items)."""
    chain = chain_tag(request.response_id)
    if request.history.parent is not None:
        return ConversationKey(request.tenant, chain)
    if request.native is not None and not request.history.input:
        return ConversationKey(request.tenant, chain, request.native.opening, request.native.replayed)
    prefix_digest, replayed = _digest_prefix(request.settings.instructions or b"", request.history.input)
    return ConversationKey(request.tenant, chain, prefix_digest, replayed)


class _ItemAuthor(msgspec.Struct):
    type: str | None = None
    role: str | None = None


_authors = msgspec.json.Decoder(_ItemAuthor)


def _digest_prefix(instructions: bytes | msgspec.Raw, items: Iterable[Item]) -> tuple[bytes, bool]:
    """Return the digest of the items before the model's first one, and whether the model has one."""
    digest = hashlib.sha256(instructions)
    for item in items:
        if _is_from_model(item):
            return digest.digest(), True
        digest.update(b"\0" + item)  # no JSON text holds this byte
    return digest.digest(), False


def _is_from_model(item: Item) -> bool:
    author = decode(item, _authors)
    if isinstance(author, Problem):
        return False
    kind = author.type or "message"
    return author.role == "assistant" or kind == "reasoning" or kind.endswith("_call")
