"""Records: the durable form of a response, one per turn, as a store keeps it.

A record holds what its own turn added and how its response object ended, so its size is O(delta). The echo of the
request's settings is the same from turn to turn, so stores keep each distinct one once, by `echo_digest`. Turning a
record back into the response object is joining bytes. Not here: how a store lays a record out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable

import msgspec

from segue.history.chains import History, Turn, path
from segue.protocol.codec import encode
from segue.protocol.ids import ResponseId
from segue.protocol.items import Item, hide_encrypted
from segue.protocol.responses import ResponseObjectHead, encode_response

_heads = msgspec.json.Decoder(ResponseObjectHead)


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """The durable form of one response.

    `head` is the JSON of the response object's head, `echo` the JSON of its settings; times are unix seconds.
    """

    tenant: str
    id: ResponseId
    parent_id: ResponseId | None
    created_at: float
    expires_at: float
    head: bytes
    echo: bytes
    input: tuple[Item, ...]
    output: tuple[Item, ...]
    calls: frozenset[str]

    @property
    def echo_digest(self) -> bytes:
        """The SHA-256 of the echo."""
        return hashlib.sha256(self.echo).digest()

    @property
    def size_bytes(self) -> int:
        """About what the record costs a queue or a socket."""
        return len(self.head) + len(self.echo) + sum(map(len, self.input)) + sum(map(len, self.output)) + 256

    def response(self, *, encrypted: bool = False) -> bytes:
        """Return the response object; with reasoning that only its provider can read, if that is asked for."""
        output = self.output if encrypted else tuple(map(hide_encrypted, self.output))
        return encode_response(_heads.decode(self.head), output, self.echo)


class ChainLink(msgspec.Struct, frozen=True, kw_only=True):
    """One turn of a chain as a store reads it back: a record without what only its own id can ask for.

    `alive` is False for a turn that was deleted or has expired: its items still belong to the histories of its
    descendants, but its id resolves to nothing.
    """

    id: ResponseId
    expires_at: float
    alive: bool
    input: tuple[Item, ...]
    output: tuple[Item, ...]
    calls: frozenset[str]


def encode_head(head: ResponseObjectHead) -> bytes:
    """Encode the head of a response for a record."""
    return encode(head)


def flatten(record: Record, parent: Turn) -> Record:
    """Return `record` as the root of a new chain, with the whole history as its input.

    For a turn whose parent was deleted while it ran: the client was promised its continuation, and gets it.
    """
    history = History(parent, record.input)
    calls = record.calls.union(*(turn.calls for turn in path(parent)))
    return msgspec.structs.replace(record, parent_id=None, input=tuple(history.items()), calls=calls)


def restore(links: Iterable[ChainLink], resident: Callable[[ResponseId], Turn | None]) -> Turn:
    """Build the chain that `links` (root first) describe, sharing the turns that are already in memory."""
    turn: Turn | None = None
    for link in links:
        turn = resident(link.id) or Turn(
            id=link.id,
            parent=turn,
            input=link.input,
            output=link.output,
            calls=link.calls,
            stored=True,
            expires_at=link.expires_at,
        )
    assert turn is not None, "a chain has at least one turn"
    return turn
