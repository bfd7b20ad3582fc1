"""Turns from the columns of a row, which have one meaning in every database. Pure. Not here: the rows themselves."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from segue.history.chains import unpack_native
from segue.history.records import ChainLink, Record
from segue.protocol.ids import ResponseId
from segue.protocol.items import split
from segue.stores.copying import StoredTurn

_calls = msgspec.json.Decoder(list[str])


def record_of(tenant: str, response_id: ResponseId, row: Sequence[Any]) -> Record:
    """Return a response: its parent, two times, head, echo, input, output, calls and native blocks."""
    parent_id, created_at, expires_at, head, echo, given, output, calls, native = row
    return Record(
        tenant=tenant,
        id=response_id,
        parent_id=parent_id,
        created_at=created_at,
        expires_at=expires_at,
        head=head,
        echo=echo,
        input=tuple(split(given)),
        output=tuple(split(output)),
        calls=frozenset(_calls.decode(calls)),
        native=unpack_native(native),
    )


def link_of(row: Sequence[Any]) -> ChainLink:
    """Return a turn of a chain: its place, id, expiry, whether it is alive, input, output, calls and native blocks."""
    _, ident, expires_at, alive, given, output, calls, native = row
    return ChainLink(
        id=ResponseId(ident),
        expires_at=expires_at,
        alive=bool(alive),
        input=tuple(split(given)),
        output=tuple(split(output)),
        calls=frozenset(_calls.decode(calls)),
        native=unpack_native(native),
    )


def stored_turn_of(row: Sequence[Any], items: Iterable[str]) -> StoredTurn:
    """Return a turn as it is copied: tenant, id, parent, two times, head, echo, calls, input, output, native blocks."""
    tenant, ident, parent_id, created_at, expires_at, head, echo, calls, given, output, native = row
    return StoredTurn(
        tenant=tenant,
        id=ResponseId(ident),
        parent_id=parent_id,
        created_at=created_at,
        expires_at=expires_at,
        head=head,
        echo=echo,
        calls=calls,
        input=given,
        output=output,
        native=native,
        items=tuple(sorted(items)),
    )
