"""The object that `POST /v1/responses/compact` answers with: the window that a new conversation can begin with.

Its output is the messages that stay and the item that stands for all else, in the form of output items: each has an id,
a status and its content in parts. A client sends the output as the beginning of the next input. Not here: what stays
(`segue.history.compaction`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Raw

from segue.protocol.codec import encode, encode_exactly
from segue.protocol.ids import ResponseId, derived_item_id
from segue.protocol.items import Item
from segue.protocol.responses import EncodedResponse, Failure, Usage

_objects = msgspec.json.Decoder(dict[str, Any])


class _CompactionHead(msgspec.Struct, frozen=True, kw_only=True):
    id: ResponseId
    object: str = "response.compaction"
    created_at: int
    usage: Usage | None


class _EndedCompaction(msgspec.Struct):
    """What the response of a turn that was nothing but a compaction says."""

    id: ResponseId
    created_at: int
    output: tuple[Raw, ...] = ()
    error: Failure | None = None
    usage: Usage | None = None


class _RetainingEcho(msgspec.Struct):
    retained: tuple[Raw, ...] = ()


_ended = msgspec.json.Decoder(_EndedCompaction)
_echoes = msgspec.json.Decoder(_RetainingEcho)


def with_retained(echo: bytes, messages: Sequence[Item]) -> bytes:
    """Return the echo of a turn that is nothing but a compaction, with the messages that stay: an extra key of ours.

    So whoever has the response has the window, also if the history is gone, or has gone on, by then.
    """
    return b"".join((echo[:-1], b',"retained":[', b",".join(messages), b"]}"))


def compaction_of_response(response: EncodedResponse) -> bytes | Failure:
    """Return the object that the response of such a turn becomes, or why it came to nothing."""
    ended = _ended.decode(response.start[:-1] + b"}")
    if ended.error is not None:
        return ended.error
    messages = [bytes(message) for message in _echoes.decode(response.echo).retained]
    output = (*as_output(messages, ended.id), *map(bytes, ended.output))
    return encode_compaction(ended.id, created_at=ended.created_at, output=output, usage=ended.usage)


def encode_compaction(ident: ResponseId, *, created_at: float, output: Sequence[Item], usage: Usage | None) -> bytes:
    """Return the object. Its id names nothing that could be continued."""
    head = encode(_CompactionHead(id=ident, created_at=int(created_at), usage=usage))
    return b"".join((head[:-1], b',"output":[', b",".join(output), b"]}"))


def as_output(messages: Sequence[Item], ident: ResponseId) -> list[Item]:
    """Return messages of a history as items of an output; those without an id get one, by their places."""
    return [_as_output(message, derived_item_id("message", ident, place)) for place, message in enumerate(messages, 1)]


def _as_output(message: Item, ident: str) -> Item:
    fields = _objects.decode(message)
    if fields.get("type", "message") != "message":  # what changes settings stays, too
        return encode_exactly({"id": ident, **fields})
    content = fields.get("content")
    if isinstance(content, str):
        fields["content"] = [{"type": "input_text", "text": content}]
    head = {"id": fields.get("id") or ident, "type": "message", "status": fields.get("status") or "completed"}
    return encode_exactly({**fields, **head})
