"""Records: the durable form of a response, one per turn, as a store keeps it.

A record holds what its own turn added and the end state of its response object, so its size is O(new items). The echo
of the request's settings is mostly the same in every turn, so stores keep each distinct one once, by `echo_digest`. The
response object is made from a record by joining bytes. Not here: how a store lays a record out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence

import msgspec

from segue.history.chains import NativeTurn, Turn, lineage
from segue.protocol.codec import encode
from segue.protocol.ids import ResponseId, parse_item_id
from segue.protocol.items import MAX_ITEM_ID, Item, given_ids, hide_encrypted
from segue.protocol.response_query import Label, metadata_label, model_label
from segue.protocol.responses import EncodedResponse, ResponseObjectHead, encode_start

_heads = msgspec.json.Decoder(ResponseObjectHead)


class _Labelled(msgspec.Struct, frozen=True):
    """What of a request's settings its response can be found by."""

    model: str = ""
    metadata: dict[str, str] = {}


_echoes = msgspec.json.Decoder(_Labelled)


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
    native: NativeTurn | None = None

    @property
    def echo_digest(self) -> bytes:
        """The SHA-256 of the echo."""
        return hashlib.sha256(self.echo).digest()

    @property
    def size_bytes(self) -> int:
        """Roughly how many bytes the record takes in a queue or on a socket."""
        native = 0 if self.native is None else len(self.native.messages)
        return len(self.head) + len(self.echo) + sum(map(len, self.input)) + sum(map(len, self.output)) + native + 256

    def output_ids(self) -> frozenset[str]:
        """Return the ids of its output by which `find_item` finds it: those that are not derived from its own id."""
        return frozenset(ident for ident in _indexed(self.output) if parse_item_id(ident) != self.id)

    def input_ids(self) -> frozenset[str]:
        """Return the ids of its input by which `find_item` finds it: those that are not derived from a response's."""
        return frozenset(ident for ident in _indexed(self.input) if parse_item_id(ident) is None)

    def labels(self) -> tuple[Label, ...]:
        """Return what `list_responses` finds it by: the same for all records of one echo."""
        return labels_of(self.echo)

    def response(self, *, encrypted: bool = False) -> EncodedResponse:
        """Return the response object, with the `encrypted_content` of reasoning if it was asked for."""
        output = self.output if encrypted else tuple(map(hide_encrypted, self.output))
        return EncodedResponse(encode_start(_heads.decode(self.head), output), self.echo)


class ChainLink(msgspec.Struct, frozen=True, kw_only=True):
    """One turn of a chain as a store reads it: a record without the response object.

    `alive` is False for a turn that was deleted or has expired: its items still belong to the histories of its
    descendants, but its id cannot be resolved any more.
    """

    id: ResponseId
    expires_at: float
    alive: bool
    input: tuple[Item, ...]
    output: tuple[Item, ...]
    calls: frozenset[str]
    native: NativeTurn | None = None


def _indexed(items: Sequence[Item]) -> Iterator[str]:
    """Yield the ids that the authors of items gave them."""
    with_id = [item for item in items if b'"id"' in item]  # most input has none, and need not be parsed again
    return (ident for _, ident, _ in given_ids(with_id) if ident is not None and len(ident) <= MAX_ITEM_ID)


def labels_of(echo: bytes) -> tuple[Label, ...]:
    """Return the labels of the responses that have this echo."""
    given = _echoes.decode(echo)
    return (model_label(given.model), *(metadata_label(*pair) for pair in sorted(given.metadata.items())))


def encode_head(head: ResponseObjectHead) -> bytes:
    """Encode the head of a response for a record."""
    return encode(head)


def flatten(record: Record, parent: Turn) -> Record:
    """Return `record` as the root of a new chain, with the whole history as its input.

    For a turn whose parent was deleted while it ran: it was accepted, so its client can still continue it.
    """
    turns = lineage(parent)
    items = [item for turn in turns for item in (*turn.input, *turn.output)]
    calls = record.calls.union(*(turn.calls for turn in turns))
    native = join_natives([*(turn.native for turn in turns), record.native])
    return msgspec.structs.replace(record, parent_id=None, input=(*items, *record.input), calls=calls, native=native)


def join_natives(natives: Sequence[NativeTurn | None]) -> NativeTurn | None:
    """Return turns as one, if all of them are there in the words of one API."""
    known = [native for native in natives if native is not None]
    if len(known) < len(natives) or len({native.dialect for native in known}) > 1:
        return None
    return NativeTurn(known[0].dialect, b",".join(native.messages for native in known if native.messages))


def restore(links: Iterable[ChainLink], resident: Callable[[ResponseId], Turn | None]) -> Turn:
    """Build the chain of `links` (root first) and share the turns that are in memory already (`resident`)."""
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
            native=link.native,
        )
    assert turn is not None, "a chain has at least one turn"
    return turn
