"""Where a turn's conversation began, for upstreams that treat the turns of one conversation alike: pure.

A turn that continues another by its id belongs to that one's chain, whose tag is in every id; reading it costs nothing
at any depth, and every gateway reads the same. But a client that sends the whole history again gets a new chain each
time. Such a history tells itself by what the model said in it, and is known by what stands before that. Turns of two
conversations that begin with the very same words cannot be told apart there, so that a chain is asked first. Not here:
what is done with it (`slots`, `affinity`).
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

    `chain` is its chain's tag. `start` is a digest of what stands before the first item of the model's, b"" for a turn
    that continues another. `replayed` tells that the model said something in it before, though it continues none.
    """

    tenant: str
    chain: str
    start: bytes = b""
    replayed: bool = False


def conversation_key_of(request: TurnRequest) -> ConversationKey:
    """Return where the conversation of a turn began. O(new items) for a turn that continues none, else O(1)."""
    chain = chain_tag(request.response_id)
    if request.history.parent is not None:
        return ConversationKey(request.tenant, chain)
    start, replayed = _read_start(request.settings.instructions or "", request.history.input)
    return ConversationKey(request.tenant, chain, start, replayed)


class _Head(msgspec.Struct):
    type: str | None = None
    role: str | None = None


_heads = msgspec.json.Decoder(_Head)


def _read_start(instructions: str, items: Iterable[Item]) -> tuple[bytes, bool]:
    """Return the digest of what stands before the first item of the model's, and whether there is such an item."""
    digest = hashlib.sha256(instructions.encode("utf-8", "surrogatepass"))
    for item in items:
        if _is_the_models(item):
            return digest.digest(), True
        digest.update(b"\0" + item)  # no JSON text holds this byte
    return digest.digest(), False


def _is_the_models(item: Item) -> bool:
    head = decode(item, _heads)
    if isinstance(head, Problem):
        return False
    kind = head.type or "message"
    return head.role == "assistant" or kind == "reasoning" or kind.endswith("_call")
