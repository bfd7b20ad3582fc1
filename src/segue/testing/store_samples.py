"""Records for tests of stores, and of what uses them: each has a name, which stands for its id and its content.

Not here: what a store must do with them (`store_conformance`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from math import inf

import msgspec

from segue.history.chains import NativeTurn
from segue.history.conversations import ConversationHead, ConversationStep
from segue.history.records import ChainLink, Record
from segue.protocol.ids import ENTROPY_BYTES, ConversationId, ResponseId, new_conversation_id, new_response_id

#: The time at which checks run, and when the records they make die unless they say otherwise.
NOW = 1_700_000_000.0
LATER = NOW + 3600.0

ALICE = "alice"
BOB = "bob"


def sample_id(name: str) -> ResponseId:
    """Return the id that stands for `name` in a test: always the same one."""
    return new_response_id(hashlib.sha256(name.encode()).digest()[:ENTROPY_BYTES])


def sample_record(
    name: str,
    parent: str | None = None,
    *,
    tenant: str = ALICE,
    expires_at: float = LATER,
    echo: bytes = b"",
    given: Sequence[str] = (),
    made: Sequence[str] = (),
) -> Record:
    """Return a record whose content tells it from every other; `name` and `parent` stand for ids.

    `given` and `made` are ids of items that it has in its input and in its output.
    """
    quoted = msgspec.json.encode(name)
    call = b'{"type":"function_call","call_id":%b,"name":"f","arguments":"{}"}' % quoted
    items = {ident: b'{"id":%b,"type":"x","of":%b}' % (msgspec.json.encode(ident), quoted) for ident in {*given, *made}}
    return Record(
        tenant=tenant,
        id=sample_id(name),
        parent_id=None if parent is None else sample_id(parent),
        created_at=NOW,
        expires_at=expires_at,
        head=b'{"id":"%b","created_at":1700000000,"status":"completed"}' % sample_id(name).encode(),
        echo=echo or b'{"model":"scripted","tools":[],"metadata":{}}',
        # Spaces, key order, escapes and raw text are the author's, and stay.
        input=(
            b'{ "role":"user",  "content":%b }' % quoted,
            '{"type":"x","t":"é \\u00e9 ∑"}'.encode(),
            *(items[ident] for ident in given),
        ),
        output=(call, *(items[ident] for ident in made)),
        calls=frozenset({name}),
        native=None if parent is None else NativeTurn("messages", b'{"role":"user", "content":%b\n}' % quoted),
    )


def sample_conversation_id(name: str) -> ConversationId:
    """Return the id of the conversation that stands for `name` in a test."""
    return new_conversation_id(hashlib.sha256(name.encode()).digest()[:ENTROPY_BYTES])


def sample_conversation(name: str, turn: str | None = None, *, tenant: str = ALICE) -> ConversationHead:
    """Return a conversation that points at the turn with a name."""
    return ConversationHead(
        tenant=tenant,
        id=sample_conversation_id(name),
        created_at=NOW,
        changed_at=NOW,
        metadata=b'{"name":%b}' % msgspec.json.encode(name),
        turn_id=None if turn is None else sample_id(turn),
    )


def sample_step(name: str, parent: str | None = None) -> ConversationStep:
    """Return a step whose content tells it from every other."""
    record = sample_record(name, parent)
    return ConversationStep(
        id=record.id, parent_id=record.parent_id, input=(*record.input, *record.output), calls=record.calls
    )


def link_of_step(step: ConversationStep) -> ChainLink:
    """Return the link that stands for a step in a chain."""
    return ChainLink(id=step.id, expires_at=inf, alive=False, input=step.input, output=(), calls=step.calls)


def link_of(record: Record, *, alive: bool = True) -> ChainLink:
    """Return the link that stands for a record in a chain."""
    return ChainLink(
        id=record.id,
        expires_at=record.expires_at,
        alive=alive,
        input=record.input,
        output=record.output,
        calls=record.calls,
        native=record.native,
    )
