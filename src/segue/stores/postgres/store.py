"""A store in PostgreSQL, for any number of gateways: the same rules as every store, shared.

A record is durable when `append` has returned: on the server's disk, and on a synchronous replica where the server has
one. An append and the reading of a chain are one statement each. Rows that expire are deleted in small transactions,
and nodes that sweep at once take different ones. A server that is away is waited for (`wait_s` of the URL), so that a
failover delays turns and fails none; then calls raise `StoreError`. PostgreSQL overwrites nothing: what was deleted
stays in its files until a vacuum, and in the log and the backups as long as the operator keeps them.

Not here: connections (`connections`), the schema (`schema`), appends (`appends`), conversations (`pointers`), and which
rows can be freed (`freeing`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from math import inf
from operator import itemgetter
from typing import Any, NamedTuple, TypeVar

from psycopg.errors import UndefinedFunction

from segue.history.conversations import ConversationHead, ConversationMove, ConversationStep
from segue.history.records import ChainLink, Record
from segue.protocol.ids import ConversationId, ResponseId
from segue.protocol.response_query import ResponseQuery
from segue.stores.interface import CONVERSATION_BYTES, StoreSize
from segue.stores.postgres import pointers
from segue.stores.postgres.appends import Appends, confirm
from segue.stores.postgres.arrays import texts
from segue.stores.postgres.connections import PostgresConnections, StoreConnection
from segue.stores.postgres.freeing import Living, bury, hold
from segue.stores.postgres.labels import list_labelled
from segue.stores.postgres.new_rows import ConversationPointer, row_of
from segue.stores.postgres.postgres_url import PostgresUrl
from segue.stores.postgres.schema import migrate, schema_steps
from segue.stores.turn_rows import link_of, record_of

T = TypeVar("T")

#: How many bytes may wait to be committed before `append` itself waits (backpressure).
MAX_QUEUED_BYTES = 16 * 1024 * 1024
#: How many responses one transaction deletes: locks are held for milliseconds.
_DELETE_AT_ONCE = 256
#: A store with fewer responses is counted; of a larger one the server's own estimate is taken.
_MOST_COUNTED = 100_000


# One row of arrays would take the gateway a fifth less, and the server twice as much.
_LINK = """
    SELECT links.depth, links.id, links.expires_at, links.alive, links.input, links.output, links.calls, links.native
      FROM path CROSS JOIN LATERAL (
           SELECT depth, id, expires_at, head IS NOT NULL AND expires_at > %b::double precision AS alive,
                  input, output, calls, native
             FROM segue_records AS records
            WHERE records.segment = path.segment AND records.depth <= path.depth OFFSET 0) AS links
"""
_CHAIN = """
    WITH RECURSIVE path (segment, depth, base, base_depth) AS ({tip}
         UNION ALL
        SELECT turn.segment, turn.depth, turn.base, turn.base_depth FROM path CROSS JOIN LATERAL (
               SELECT segment, depth, base, base_depth FROM segue_records AS records
                WHERE records.segment = path.base AND records.depth = path.base_depth OFFSET 0) AS turn
    ) {link}
"""
_TIP = """
        SELECT segment, depth, base, base_depth FROM segue_records
         WHERE tenant = %b::text AND id = %b::text AND head IS NOT NULL AND expires_at > %b::double precision
"""
_CONVERSATION_TIP = """
        SELECT records.segment, records.depth, records.base, records.base_depth
          FROM segue_conversations AS conversations
          JOIN segue_records AS records ON records.tenant = conversations.tenant AND records.id = conversations.turn
         WHERE conversations.tenant = %b::text AND conversations.id = %b::text
"""
_CHAIN_OF_RESPONSE = _CHAIN.format(tip=_TIP, link=_LINK).encode()
_CHAIN_OF_CONVERSATION = _CHAIN.format(tip=_CONVERSATION_TIP, link=_LINK).encode()

_RECORD = b"""
    SELECT (SELECT parent.id FROM segue_records AS parent
             WHERE parent.depth = records.depth - 1
               AND parent.segment = CASE WHEN records.base_depth = records.depth - 1 THEN records.base
                                         ELSE records.segment END),
           records.created_at, records.expires_at, records.head, echoes.echo,
           records.input, records.output, records.calls, records.native
      FROM segue_records AS records JOIN segue_echoes AS echoes ON echoes.number = records.echo
     WHERE records.tenant = %b::text AND records.id = %b::text
       AND records.head IS NOT NULL AND records.expires_at > %b::double precision
"""
_FIND_ITEM = b"""
    SELECT items.response FROM segue_items AS items
      JOIN segue_records AS records ON records.tenant = items.tenant AND records.id = items.response
     WHERE items.tenant = %b::text AND items.item = %b::bytea
       AND records.head IS NOT NULL AND records.expires_at > %b::double precision
     LIMIT 2
"""
_IS_CONTINUED = b"""
    SELECT EXISTS (SELECT 1 FROM segue_records AS child
                    WHERE child.segment = parent.segment AND child.depth = parent.depth + 1)
        OR EXISTS (SELECT 1 FROM segue_records AS fork
                    WHERE fork.base = parent.segment AND fork.base_depth = parent.depth)
      FROM segue_records AS parent WHERE parent.tenant = %b::text AND parent.id = %b::text
"""
_PLACE = b"SELECT segment FROM segue_records WHERE tenant = %b::text AND id = %b::text"
_LOCK_LIVING = b"""
    SELECT tenant, id, segment, echo FROM segue_records
     WHERE tenant = %b::text AND id = %b::text AND head IS NOT NULL AND expires_at > %b::double precision FOR UPDATE
"""
_LOCK_EXPIRED = b"""
    SELECT tenant, id, segment, echo FROM segue_records
     WHERE head IS NOT NULL AND expires_at <= %b::double precision LIMIT %b FOR UPDATE SKIP LOCKED
"""
_LOCK_AGAIN = b"""
    SELECT records.tenant, records.id, records.segment, records.echo
      FROM unnest(%b::text[], %b::text[]) AS wanted (tenant, id) CROSS JOIN LATERAL (
           SELECT tenant, id, segment, echo FROM segue_records AS records
            WHERE records.tenant = wanted.tenant AND records.id = wanted.id AND records.head IS NOT NULL
              FOR UPDATE) AS records
"""
_OF_TENANT = b"""
    SELECT id, segment, head IS NOT NULL AND created_at < %b::double precision FROM segue_records
     WHERE tenant = %b::text AND id > %b::text ORDER BY id LIMIT %b
"""
_LOCK_CHOSEN = b"""
    SELECT tenant, id, segment, echo FROM segue_records
     WHERE tenant = %b::text AND id = ANY(%b::text[]) AND head IS NOT NULL ORDER BY id FOR UPDATE
"""
_SIZE = """
    SELECT CASE WHEN estimate.records < {most}
                THEN (SELECT count(*) FROM segue_records WHERE head IS NOT NULL)
                ELSE estimate.records END,
           {size_bytes}
      FROM (SELECT coalesce(max(reltuples), 0)::bigint AS records FROM pg_class
             WHERE oid = 'segue_records_living'::regclass) AS estimate
"""
_BYTES_ON_DISK = " + ".join(
    f"pg_total_relation_size('segue_{table}')" for table in ("records", "echoes", "items", "labels", "conversations")
)
_BYTES_OF_CONTENT = """(SELECT coalesce(sum(length(input) + length(output) + length(calls) + coalesce(length(head), 0)
                                            + coalesce(length(native), 0)), 0) FROM segue_records)::bigint"""
_SIZE_ON_DISK = _SIZE.format(most=_MOST_COUNTED, size_bytes=_BYTES_ON_DISK).encode()
_SIZE_OF_CONTENT = _SIZE.format(most=_MOST_COUNTED, size_bytes=_BYTES_OF_CONTENT).encode()  # CockroachDB
_TENANT_SIZE = b"""
    SELECT count(head), (coalesce(sum(length(input) + length(output) + length(calls) + coalesce(length(head), 0)
                                      + coalesce(length(native), 0)), 0)
                         + (SELECT coalesce(sum(length(metadata) + %b::integer), 0)
                              FROM segue_conversations WHERE tenant = %b::text))::bigint
      FROM segue_records WHERE tenant = %b::text
"""


class PostgresStore:
    """Records in PostgreSQL. Create it with `open`, use it on one event loop, and release it with `aclose`."""

    def __init__(self, connections: PostgresConnections, max_queued_bytes: int) -> None:
        self._connections = connections
        self._appends = Appends(connections, max_queued_bytes)
        self._closing: asyncio.Task[None] | None = None

    @classmethod
    async def open(cls, url: PostgresUrl, *, max_queued_bytes: int = MAX_QUEUED_BYTES) -> PostgresStore:
        """Connect, and create the tables or migrate them. Raises `StoreError`."""
        connections = PostgresConnections(url)
        await connections.open(lambda connection: migrate(connection, schema_steps()))
        return cls(connections, max_queued_bytes)

    @property
    def queued_bytes(self) -> int:
        """How many bytes wait to be committed: at most `max_queued_bytes` of small and as many of large records."""
        return self._appends.queued_bytes

    async def append(self, record: Record) -> None:
        """Write a record, durably; wait for room if the queue is full."""
        self._check_open()
        await self._appends.append(row_of(record))

    async def chain(self, tenant: str, response_id: ResponseId, now: float) -> list[ChainLink] | None:
        """Return the turns from the root to a living response, or None."""
        values = (tenant, response_id, now, now)
        return _links(await self._read(_CHAIN_OF_RESPONSE, *values)) or None

    async def record(self, tenant: str, response_id: ResponseId, now: float) -> Record | None:
        """Return the record of a living response, or None."""
        rows = await self._read(_RECORD, tenant, response_id, now)
        return record_of(tenant, response_id, rows[0]) if rows else None

    async def find_item(self, tenant: str, item_id: str, now: float) -> ResponseId | None:
        """Return the living response to which the item with this id belongs, if there is one and no other."""
        owners = await self._read(_FIND_ITEM, tenant, item_id.encode(), now)
        return ResponseId(owners[0][0]) if len(owners) == 1 else None

    async def list_responses(self, tenant: str, query: ResponseQuery, now: float) -> list[ResponseId] | None:
        """Return the living responses that match; None if the one to begin behind is none of them."""
        return await self._run(lambda connection, _: list_labelled(connection, tenant, query, now))

    async def is_continued(self, tenant: str, response_id: ResponseId) -> bool:
        """Return whether a record continues this response."""
        rows = await self._read(_IS_CONTINUED, tenant, response_id)
        return bool(rows and rows[0][0])

    async def delete(self, tenant: str, response_id: ResponseId, now: float) -> bool:
        """Delete a living response; return whether there was one."""
        found = False

        async def delete(connection: StoreConnection, again: bool) -> bool:  # noqa: FBT001 - as `Operation`
            nonlocal found
            async with connection.transaction():
                places = await _fetch(connection, _PLACE, tenant, response_id)
                await hold(connection, {segment.bytes for (segment,) in places})
                living = _living(await _fetch(connection, _LOCK_LIVING, tenant, response_id, now))
                found = found or bool(living)
                await _bury(connection, living)
            return bool(living) or (again and found)

        return await self._run(delete)

    async def create_conversation(self, head: ConversationHead, step: ConversationStep | None = None) -> None:
        """Write a new conversation, durably, and the items that it begins with."""
        await self._run(lambda connection, again: pointers.create(connection, head, step, again=again))

    async def conversation(self, tenant: str, conversation_id: ConversationId) -> ConversationHead | None:
        """Return a conversation, or None."""
        return await self._run(lambda connection, _: pointers.find(connection, tenant, conversation_id))

    async def conversation_chain(
        self, tenant: str, conversation_id: ConversationId, now: float
    ) -> list[ChainLink] | None:
        """Return the turns of a conversation from the root on, or None if there is none."""
        links = _links(await self._read(_CHAIN_OF_CONVERSATION, tenant, conversation_id, now))
        return links if links or await self.conversation(tenant, conversation_id) is not None else None

    async def append_to_conversation(self, conversation_id: ConversationId, record: Record) -> None:
        """Write a record, durably, and point a conversation at it."""
        self._check_open()
        await self._appends.append_to(ConversationPointer(conversation_id, record.parent_id), row_of(record))

    async def move_conversation(self, tenant: str, conversation_id: ConversationId, move: ConversationMove) -> None:
        """Point a conversation at another turn, durably."""
        await self._run(lambda connection, again: pointers.move(connection, tenant, conversation_id, move, again=again))

    async def describe_conversation(
        self, tenant: str, conversation_id: ConversationId, metadata: bytes, now: float
    ) -> bool:
        """Replace the metadata of a conversation; return whether there is one."""
        return await self._run(
            lambda connection, _: pointers.describe(connection, tenant, conversation_id, metadata, now)
        )

    async def delete_conversation(self, tenant: str, conversation_id: ConversationId) -> bool:
        """Delete a conversation; return whether there was one."""
        found = False

        async def delete(connection: StoreConnection, again: bool) -> bool:  # noqa: FBT001 - as `Operation`
            nonlocal found
            found = found or await pointers.find(connection, tenant, conversation_id) is not None
            return await pointers.delete(connection, tenant, conversation_id) or (again and found)

        return await self._run(delete)

    async def erase_conversations(self, tenant: str, before: float | None) -> int:
        """Delete the conversations of a tenant that were last changed before a time, or all, in steps."""
        count = 0
        while erased := await self._run(lambda connection, _: pointers.erase(connection, tenant, before)):
            count += erased
        return count

    async def sweep(self, now: float) -> list[tuple[str, ResponseId]]:
        """Delete some of the expired records; return the tenant and the id of each.

        Those that another node is deleting at this moment count as deleted. To delete them late has no visible effect:
        their ids resolve to nothing from the moment they expire.
        """
        swept: set[tuple[str, str]] = set()

        async def sweep(connection: StoreConnection, _: bool) -> list[tuple[str, ResponseId]]:  # noqa: FBT001 - as `Operation`
            async with connection.transaction():
                expired = await _lock_expired(connection, now, swept)
                swept.update((row.tenant, row.id) for row in expired)
                await hold(connection, {row.segment for row in expired})
                await _bury(connection, expired)
            return [(tenant, ResponseId(ident)) for tenant, ident in sorted(swept)]

        return await self._run(sweep)

    async def erase(self, tenant: str, before: float | None) -> list[ResponseId]:
        """Delete the responses of a tenant that were made before a time, or all, in steps."""
        erased: dict[ResponseId, None] = {}
        after: str | None = ""
        while after is not None:
            found = await self._run(_PageErasure(tenant, inf if before is None else before, after))
            erased.update(dict.fromkeys(found.erased))
            after = found.last
        return list(erased)

    async def size(self) -> StoreSize:
        """Return how many records live, by the server's own estimate if there are many, and the bytes on its disk."""

        async def measure(connection: StoreConnection, _: bool) -> StoreSize:  # noqa: FBT001 - as `Operation`
            try:
                ((records, size_bytes),) = await _fetch(connection, _SIZE_ON_DISK)
            except UndefinedFunction:
                ((records, size_bytes),) = await _fetch(connection, _SIZE_OF_CONTENT)
            return StoreSize(records, size_bytes)

        return await self._run(measure)

    async def tenant_size(self, tenant: str) -> StoreSize:
        """Return how many records of a tenant live, and the bytes of what they and its tombstones hold."""
        return StoreSize(*(await self._read(_TENANT_SIZE, CONVERSATION_BYTES, tenant, tenant))[0])

    async def check_writable(self) -> None:
        """Commit a row, as an append would be committed, and on the same way."""
        await self._run(lambda connection, _: confirm(connection))

    async def aclose(self) -> None:
        """Commit what is queued, and close the connections. Later calls raise `StoreError`."""
        if self._closing is None:
            self._closing = asyncio.create_task(self._finish())
        await asyncio.shield(self._closing)

    async def _finish(self) -> None:
        await self._appends.idle()
        await self._connections.aclose()

    def _check_open(self) -> None:
        if self._closing is not None:
            raise self._connections.closed_error()

    async def _run(self, operation: Callable[[StoreConnection, bool], Awaitable[T]]) -> T:
        self._check_open()
        return await self._connections.run(operation)

    async def _read(self, query: bytes, *values: str | bytes | float) -> list[tuple[Any, ...]]:
        self._check_open()
        return await self._connections.read(query, values)


class _ErasedPage(NamedTuple):
    """What one step has erased, and the last id that it looked at; None if there are no more."""

    erased: list[ResponseId]
    last: str | None


class _PageErasure:
    """Deletes some of a tenant's responses, in the order of their ids: so it looks at no row of another tenant.

    What an attempt has found counts as erased by it, if a later one does not find it any more.
    """

    def __init__(self, tenant: str, before: float, after: str) -> None:
        self._tenant = tenant
        self._before = before
        self._after = after
        self._found: dict[ResponseId, None] = {}

    async def __call__(self, connection: StoreConnection, _: bool) -> _ErasedPage:  # noqa: FBT001 - as `Operation`
        async with connection.transaction():
            values = (self._before, self._tenant, self._after, _DELETE_AT_ONCE)
            rows = await _fetch(connection, _OF_TENANT, *values)
            chosen = [(ident, segment) for ident, segment, wanted in rows if wanted]
            await hold(connection, {segment.bytes for _, segment in chosen})
            dead = _living(await _fetch(connection, _LOCK_CHOSEN, self._tenant, [ident for ident, _ in chosen]))
            self._found.update(dict.fromkeys(ResponseId(row.id) for row in dead))
            await _bury(connection, dead)
        return _ErasedPage(list(self._found), rows[-1][0] if len(rows) == _DELETE_AT_ONCE else None)


async def _fetch(connection: StoreConnection, query: bytes, *values: object) -> list[tuple[Any, ...]]:
    return await connection.fetch(query, values)


async def _lock_expired(connection: StoreConnection, now: float, before: set[tuple[str, str]]) -> list[Living]:
    """Lock some expired responses; or those that an earlier attempt had, as far as it has not deleted them.

    Its transaction may still be ending: then this waits for it, and knows what came of it.
    """
    if not before:
        return _living(await _fetch(connection, _LOCK_EXPIRED, now, _DELETE_AT_ONCE))
    keys = sorted(before)
    values = (texts(tenant for tenant, _ in keys), texts(ident for _, ident in keys))
    return _living(await _fetch(connection, _LOCK_AGAIN, *values))


def _living(rows: list[tuple[Any, ...]]) -> list[Living]:
    return [Living(tenant, ident, segment.bytes, echo) for tenant, ident, segment, echo in rows]


async def _bury(connection: StoreConnection, dead: list[Living]) -> None:
    if dead:
        await bury(connection, dead)


def _links(rows: list[tuple[Any, ...]]) -> list[ChainLink]:
    rows.sort(key=itemgetter(0))
    return [link_of(row) for row in rows]
