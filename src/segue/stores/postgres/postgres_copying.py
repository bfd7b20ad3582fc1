"""One end of a copy that is a store in PostgreSQL. Not here: the copy (`stores.copying`), and the store (`store`)."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import psycopg

from segue.history.conversations import ConversationHead
from segue.protocol.ids import ConversationId
from segue.stores.copying import PAGE_TURNS, StoredTurn, pages_of
from segue.stores.postgres.appends import Appends
from segue.stores.postgres.arrays import byteas, floats, texts
from segue.stores.postgres.connections import PostgresConnections, StoreConnection
from segue.stores.postgres.failures import explain
from segue.stores.postgres.new_rows import NewRow
from segue.stores.postgres.postgres_url import PostgresUrl
from segue.stores.postgres.schema import migrate, schema_steps
from segue.stores.turn_rows import stored_turn_of

_MAX_QUEUED_BYTES = 16 * 1024 * 1024

_BEGIN = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
_NO_TIMEOUTS = ("SET LOCAL statement_timeout = 0", "SET LOCAL idle_in_transaction_session_timeout = 0")
# A parent is always one less deep than its child.
_KEYS = b"""
    DECLARE turns NO SCROLL CURSOR FOR
    SELECT tenant, id, length(input) + length(output) + coalesce(length(native), 0) FROM segue_records
  ORDER BY depth, segment
"""
_FETCH = f"FETCH {10 * PAGE_TURNS} FROM turns".encode()
_TURNS = b"""
    SELECT records.tenant, records.id,
           (SELECT parent.id FROM segue_records AS parent
             WHERE parent.depth = records.depth - 1
               AND parent.segment = CASE WHEN records.base_depth = records.depth - 1 THEN records.base
                                         ELSE records.segment END),
           records.created_at, records.expires_at, records.head, echoes.echo, records.calls, records.input,
           records.output, records.native,
           ARRAY(SELECT items.item FROM segue_items AS items
                  WHERE items.tenant = records.tenant AND items.response = records.id)
      FROM unnest(%b::text[], %b::text[]) WITH ORDINALITY AS wanted (tenant, id, n)
      JOIN segue_records AS records ON records.tenant = wanted.tenant AND records.id = wanted.id
 LEFT JOIN segue_echoes AS echoes ON echoes.number = records.echo
  ORDER BY wanted.n
"""
_CONVERSATIONS = b"""
    SELECT tenant, id, created_at, changed_at, metadata, turn FROM segue_conversations
     WHERE (tenant, id) > (%b::text, %b::text) ORDER BY tenant, id LIMIT %b
"""
_THERE = b"""
    SELECT records.tenant, records.id FROM unnest(%b::text[], %b::text[]) AS wanted (tenant, id)
      JOIN segue_records AS records ON records.tenant = wanted.tenant AND records.id = wanted.id
"""
_ADD_CONVERSATIONS = b"""
    INSERT INTO segue_conversations (tenant, id, turn, created_at, changed_at, metadata)
    SELECT * FROM unnest(%b::text[], %b::text[], %b::text[],
                         %b::double precision[], %b::double precision[], %b::bytea[])
        ON CONFLICT DO NOTHING RETURNING id
"""


class PostgresCopyEnd:
    """A database that is read or written by a copy. Create it with `open`, and release it with `aclose`."""

    def __init__(self, connections: PostgresConnections) -> None:
        self._connections = connections
        self._appends = Appends(connections, _MAX_QUEUED_BYTES)

    @classmethod
    async def open(cls, url: PostgresUrl) -> PostgresCopyEnd:
        """Connect, and create the tables or migrate them. Raises `StoreError`."""
        connections = PostgresConnections(url)
        await connections.open(lambda connection: migrate(connection, schema_steps()))
        return cls(connections)

    async def turns(self) -> AsyncGenerator[list[StoredTurn], None]:
        """Yield all turns that are there at this moment: first the roots, then what continues them."""
        try:
            async with await self._connections.connect() as connection:
                for statement in (_BEGIN, *_NO_TIMEOUTS, _KEYS):
                    await connection.execute(statement)
                while keys := await (await connection.execute(_FETCH)).fetchall():
                    for page in pages_of([size for _, _, size in keys]):
                        yield await _read_turns(connection, keys[page.start : page.stop])
        except psycopg.Error as error:
            raise explain(error, self._connections.url.place) from error

    async def conversations(self) -> AsyncGenerator[list[ConversationHead], None]:
        """Yield all conversations."""
        after = ("", "")
        while rows := await self._read(_CONVERSATIONS, *after, PAGE_TURNS):
            yield [
                ConversationHead(
                    tenant=tenant,
                    id=ConversationId(ident),
                    created_at=created_at,
                    changed_at=changed_at,
                    metadata=metadata,
                    turn_id=turn,
                )
                for tenant, ident, created_at, changed_at, metadata, turn in rows
            ]
            after = rows[-1][:2]

    async def add_turns(self, turns: Sequence[StoredTurn]) -> int:
        """Write those turns that are not there; many share a commit."""
        there = set(await self._read(_THERE, texts(one.tenant for one in turns), texts(one.id for one in turns)))
        missing = [_row(turn) for turn in turns if (turn.tenant, turn.id) not in there]
        await asyncio.gather(*map(self._appends.append, missing))
        return len(missing)

    async def add_conversations(self, heads: Sequence[ConversationHead]) -> int:
        """Write those conversations that are not there."""
        added = await self._read(
            _ADD_CONVERSATIONS,
            texts(head.tenant for head in heads),
            texts(head.id for head in heads),
            texts(head.turn_id for head in heads),
            floats(head.created_at for head in heads),
            floats(head.changed_at for head in heads),
            byteas(head.metadata for head in heads),
        )
        return len(added)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._connections.aclose()

    async def _read(self, query: bytes, *values: object) -> list[tuple[Any, ...]]:
        async def read(connection: StoreConnection, _: bool) -> list[tuple[Any, ...]]:  # noqa: FBT001 - as `Operation`
            return await connection.fetch(query, values)

        return await self._connections.run(read)


async def _read_turns(connection: StoreConnection, keys: Sequence[tuple[Any, ...]]) -> list[StoredTurn]:
    values = (texts(key[0] for key in keys), texts(key[1] for key in keys))
    rows = await connection.fetch(_TURNS, values)
    return [stored_turn_of(row, (item.decode() for item in items)) for *row, items in rows]


def _row(turn: StoredTurn) -> NewRow:
    return NewRow(
        tenant=turn.tenant,
        id=turn.id,
        parent_id=turn.parent_id,
        created_at=turn.created_at,
        expires_at=turn.expires_at,
        digest=None if turn.echo is None else hashlib.sha256(turn.echo).digest(),
        settings=turn.echo,
        calls=turn.calls,
        head=turn.head,
        input=turn.input,
        output=turn.output,
        native=turn.native,
        made_ids=frozenset(turn.items),
    )
