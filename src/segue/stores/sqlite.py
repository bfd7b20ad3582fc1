"""A store in one SQLite file, for one gateway process.

One thread writes, with group commit; another reads, on a connection of its own, and never waits for a commit. Neither
blocks the event loop. The file is in WAL mode. Deleted content is overwritten with zeros (`secure_delete`), and a
checkpoint removes it from the write-ahead log right after the commit that deletes it. Freed space is used again; the
file shrinks when a tenant's responses are erased.

Durability: with `synchronous="FULL"`, the default, a record survives a power cut once `append` has returned. With
`"NORMAL"` a commit does not wait for the disk: a power cut or a crash of the operating system can lose the last
commits, and the gateway then refuses ids that it has given to clients (the file itself stays sound). A killed process
loses nothing in either mode.

Not here: the file, its lock and its schema (`sqlite_file`), the writing thread (`group_commit`), conversations
(`sqlite_conversations`), lists of responses (`sqlite_labels`) and which rows can be freed (`sqlite_rows`).
"""

from __future__ import annotations

import asyncio
import functools
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from math import inf
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from segue.history.conversations import ConversationHead, ConversationMove, ConversationStep
from segue.history.records import ChainLink, Record
from segue.protocol.codec import encode
from segue.protocol.ids import ConversationId, ResponseId
from segue.protocol.items import join
from segue.protocol.response_query import ResponseQuery
from segue.stores import sqlite_conversations as conversations
from segue.stores.group_commit import GroupCommitWriter
from segue.stores.interface import CONVERSATION_BYTES, IdTaken, ParentGone, StoreError, StoreSize
from segue.stores.sqlite_file import Database, Synchronous, Trace, explain, open_database
from segue.stores.sqlite_labels import add_labels, find_labelled, pack_labels
from segue.stores.sqlite_rows import delete_row
from segue.stores.turn_rows import link_of, record_of

T = TypeVar("T")

#: How many bytes may wait to be committed before `append` itself waits (backpressure).
MAX_QUEUED_BYTES = 16 * 1024 * 1024

#: What a deletion counts in the queue: it holds only an id.
_SMALL_BYTES = 256

#: How many expired records one transaction deletes. More would delay appends.
_SWEEP_RECORDS = 256

#: How many free pages one transaction gives back.
_SHRINK_PAGES = 1024

#: How many values one query compares with; the oldest versions of SQLite take 999.
_VALUES = 500


# A row with a head is a response. One without is a tombstone, or items that were added to a conversation.
_FIND = "SELECT seq FROM records WHERE tenant = ? AND id = ?"
_FIND_LIVING = (
    "SELECT seq, parent, echo FROM records WHERE tenant = ? AND id = ? AND head IS NOT NULL AND expires_at > ?"
)
_FIND_EXPIRED = "SELECT seq, parent, echo, tenant, id FROM records WHERE head IS NOT NULL AND expires_at <= ? LIMIT ?"
_FIND_ECHO = "SELECT seq, labels FROM echoes WHERE tenant = ? AND digest = ?"
_ADD_ECHO = "INSERT INTO echoes (tenant, digest, echo, labels) VALUES (?, ?, ?, ?)"
_ADD = (
    "INSERT INTO records (parent, echo, created_at, expires_at, tenant, id, calls, head, input, output, native)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_ADD_ITEM = "INSERT INTO item_ids (tenant, id, record) VALUES (?, ?, ?)"
_KNOWN_ITEMS = "SELECT id FROM item_ids WHERE tenant = ? AND id IN ({})"
_FIND_ITEM = (
    "SELECT records.id FROM item_ids JOIN records ON records.seq = item_ids.record"
    " WHERE item_ids.tenant = ? AND item_ids.id = ? AND records.head IS NOT NULL AND records.expires_at > ? LIMIT 2"
)
_FIND_OF_TENANT = (
    "SELECT seq, parent, echo, id, head IS NOT NULL AND created_at < ? FROM records"
    " WHERE tenant = ? AND id > ? ORDER BY id LIMIT ?"
)
_IS_CONTINUED = (
    "SELECT 1 FROM records AS parents JOIN records AS children ON children.parent = parents.seq"
    " WHERE parents.tenant = ? AND parents.id = ? LIMIT 1"
)
_COUNT = "SELECT count(*) FROM records WHERE echo IS NOT NULL"  # the same rows, counted in an index alone
_TENANT_SIZE = """
    SELECT count(head), coalesce(sum(length(input) + length(output) + length(calls) + coalesce(length(head), 0)
                                     + coalesce(length(native), 0)), 0)
                        + (SELECT coalesce(sum(length(metadata) + :overhead), 0)
                             FROM conversations WHERE tenant = :tenant)
      FROM records
     WHERE tenant = :tenant
"""
_RECORD = """
    SELECT parents.id, records.created_at, records.expires_at, records.head, echoes.echo,
           records.input, records.output, records.calls, records.native
      FROM records
      JOIN echoes ON echoes.seq = records.echo
 LEFT JOIN records AS parents ON parents.seq = records.parent
     WHERE records.tenant = ? AND records.id = ? AND records.head IS NOT NULL AND records.expires_at > ?
"""
_TIP = """
        SELECT seq, parent, 0
          FROM records
         WHERE tenant = :tenant AND id = :id AND head IS NOT NULL AND expires_at > :now
"""
_CONVERSATION_TIP = """
        SELECT records.seq, records.parent, 0
          FROM conversations JOIN records ON records.seq = conversations.turn
         WHERE conversations.tenant = :tenant AND conversations.id = :id
"""
_CHAIN = """
    WITH RECURSIVE path (seq, parent, above) AS ({tip}
         UNION ALL
        SELECT records.seq, records.parent, path.above + 1 FROM path JOIN records ON records.seq = path.parent
    )
    SELECT path.above, records.id, records.expires_at, records.head IS NOT NULL AND records.expires_at > :now,
           records.input, records.output, records.calls, records.native
      FROM path JOIN records ON records.seq = path.seq
"""
_CHAIN_OF_RESPONSE, _CHAIN_OF_CONVERSATION = (_CHAIN.format(tip=tip) for tip in (_TIP, _CONVERSATION_TIP))


class SqliteStore:
    """Records in an SQLite file. Create it with `open`, use it on one event loop, and release it with `aclose`."""

    def __init__(self, database: Database, reader: ThreadPoolExecutor, max_queued_bytes: int) -> None:
        self._database = database
        self._reader = reader
        self._writer = GroupCommitWriter(database.writer, database.path, max_queued_bytes)
        self._closing: asyncio.Task[None] | None = None

    @classmethod
    async def open(
        cls,
        path: str | Path,
        *,
        synchronous: Synchronous = "FULL",
        max_queued_bytes: int = MAX_QUEUED_BYTES,
        trace: Trace | None = None,
    ) -> SqliteStore:
        """Open a store; create the file if it does not exist. Raises `StoreError`, e.g. if another process has it.

        `trace` is called with every SQL statement, in the thread that runs it. It sees the content of records.
        """
        reader = ThreadPoolExecutor(1, thread_name_prefix="segue-store-reader")
        loop = asyncio.get_running_loop()
        try:
            database = await loop.run_in_executor(reader, open_database, path, synchronous, trace)
        except BaseException:
            reader.shutdown(wait=False)
            raise
        return cls(database, reader, max_queued_bytes)

    @property
    def queued_bytes(self) -> int:
        """How many bytes wait to be committed: at most `max_queued_bytes` of small and as many of large records.

        One record that is larger than that is queued alone.
        """
        return self._writer.queued_bytes

    async def append(self, record: Record) -> None:
        """Write a record, durably; wait for room if the queue is full."""
        self._check_open()
        await self._writer.run(functools.partial(_append, record, None), record.size_bytes)

    async def chain(self, tenant: str, response_id: ResponseId, now: float) -> list[ChainLink] | None:
        """Return the turns from the root to a living response, or None."""
        return await self._read(lambda database: _chain(database.reader, tenant, response_id, now))

    async def record(self, tenant: str, response_id: ResponseId, now: float) -> Record | None:
        """Return the record of a living response, or None."""
        return await self._read(lambda database: _record(database.reader, tenant, response_id, now))

    async def find_item(self, tenant: str, item_id: str, now: float) -> ResponseId | None:
        """Return the living response to which the item with this id belongs, if there is one and no other."""
        return await self._read(lambda database: _find_item(database.reader, tenant, item_id, now))

    async def list_responses(self, tenant: str, query: ResponseQuery, now: float) -> list[ResponseId] | None:
        """Return the living responses that match; None if `query.after` is not a living response."""
        return await self._read(lambda database: find_labelled(database.reader, tenant, query, now))

    async def is_continued(self, tenant: str, response_id: ResponseId) -> bool:
        """Return whether a record continues this response."""
        return await self._read(lambda database: _is_continued(database.reader, tenant, response_id))

    async def delete(self, tenant: str, response_id: ResponseId, now: float) -> bool:
        """Delete a living response; return whether there was one."""
        self._check_open()
        operation = functools.partial(_delete, tenant, response_id, now)
        return await self._writer.run(operation, _SMALL_BYTES, erases=True)

    async def create_conversation(self, head: ConversationHead, step: ConversationStep | None = None) -> None:
        """Write a new conversation, durably, and the items that it begins with."""
        self._check_open()
        size = len(head.metadata) + (_SMALL_BYTES if step is None else step.size_bytes)
        await self._writer.run(functools.partial(conversations.create, head, step), size)

    async def conversation(self, tenant: str, conversation_id: ConversationId) -> ConversationHead | None:
        """Return a conversation, or None."""
        return await self._read(lambda database: conversations.find(database.reader, tenant, conversation_id))

    async def conversation_chain(
        self, tenant: str, conversation_id: ConversationId, now: float
    ) -> list[ChainLink] | None:
        """Return the turns of a conversation from the root on, or None if there is none."""
        return await self._read(lambda database: _conversation_chain(database.reader, tenant, conversation_id, now))

    async def append_to_conversation(self, conversation_id: ConversationId, record: Record) -> None:
        """Write a record, durably, and point a conversation at it; wait for room if the queue is full."""
        self._check_open()
        await self._writer.run(functools.partial(_append, record, conversation_id), record.size_bytes)

    async def move_conversation(self, tenant: str, conversation_id: ConversationId, move: ConversationMove) -> None:
        """Point a conversation at another turn, durably."""
        self._check_open()
        size = _SMALL_BYTES if move.step is None else move.step.size_bytes
        operation = functools.partial(conversations.move, tenant, conversation_id, move)
        await self._writer.run(operation, size, erases=True)

    async def describe_conversation(
        self, tenant: str, conversation_id: ConversationId, metadata: bytes, now: float
    ) -> bool:
        """Replace the metadata of a conversation; return whether there is one."""
        self._check_open()
        operation = functools.partial(conversations.describe, tenant, conversation_id, metadata, now)
        return await self._writer.run(operation, len(metadata) + _SMALL_BYTES, erases=True)

    async def delete_conversation(self, tenant: str, conversation_id: ConversationId) -> bool:
        """Delete a conversation; return whether there was one."""
        self._check_open()
        operation = functools.partial(conversations.delete, tenant, conversation_id)
        return await self._writer.run(operation, _SMALL_BYTES, erases=True)

    async def erase_conversations(self, tenant: str, before: float | None) -> int:
        """Delete the conversations of a tenant that were last changed before a time, or all, in steps."""
        self._check_open()
        count = 0
        operation = functools.partial(conversations.erase, tenant, before)
        while erased := await self._writer.run(operation, _SMALL_BYTES, erases=True):
            count += erased
        return count

    async def sweep(self, now: float) -> list[tuple[str, ResponseId]]:
        """Delete some of the expired records, so that other writes are not delayed; return the tenant and id of each.

        Deleting them late has no visible effect: their ids resolve to nothing from the moment they expire.
        """
        self._check_open()
        return await self._writer.run(functools.partial(_sweep, now), _SMALL_BYTES, erases=True)

    async def erase(self, tenant: str, before: float | None) -> list[ResponseId]:
        """Delete the responses of a tenant that were made before a time, or all, and shrink the file.

        It goes on in steps, so that other writes are not delayed.
        """
        self._check_open()
        erased: list[ResponseId] = []
        after: str | None = ""
        while after is not None:
            step = functools.partial(_erase, tenant, inf if before is None else before, after)
            found = await self._writer.run(step, _SMALL_BYTES, erases=True)
            after = found.last
            erased += found.erased
        while await self._writer.run(_shrink, _SMALL_BYTES, erases=True):
            pass
        return erased

    async def size(self) -> StoreSize:
        """Return how many records live, and the size of the file with its write-ahead log."""
        return await self._read(_size)

    async def tenant_size(self, tenant: str) -> StoreSize:
        """Return how many records of a tenant live, and the bytes of what they and its tombstones hold."""
        return await self._read(lambda database: _tenant_size(database.reader, tenant))

    async def check_writable(self) -> None:
        """Commit a page of the file, without a change, as an append would be committed."""
        self._check_open()
        await self._writer.run(_rewrite_header, _SMALL_BYTES)

    async def aclose(self) -> None:
        """Commit what is queued, checkpoint the log and release the file. Later calls raise `StoreError`."""
        if self._closing is None:
            self._closing = asyncio.create_task(self._finish())
        await asyncio.shield(self._closing)

    async def _finish(self) -> None:
        await self._writer.aclose()
        try:
            await self._in_reader(Database.close)  # after the reads that have begun
        finally:
            self._reader.shutdown(wait=False)

    def _check_open(self) -> None:
        if self._closing is not None:
            raise StoreError(f"{self._database.path}: the store is closed")

    async def _read(self, query: Callable[[Database], T]) -> T:
        self._check_open()
        try:
            return await self._in_reader(query)
        except sqlite3.Error as error:
            raise explain(error, self._database.path) from error

    async def _in_reader(self, function: Callable[[Database], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._reader, function, self._database)


# Writing. Each of these functions runs inside a savepoint, in the writer's thread.


def _append(record: Record, conversation: ConversationId | None, connection: sqlite3.Connection) -> None:
    parent: int | None = None
    if record.parent_id is not None:
        row = connection.execute(_FIND, (record.tenant, record.parent_id)).fetchone()
        if row is None:
            raise ParentGone(f"the parent {record.parent_id!r} of {record.id!r} is not stored: was it deleted?")
        (parent,) = row
    place = None if conversation is None else conversations.place_at(connection, record.tenant, conversation, parent)[0]
    echo, labels = _echo(record, connection)
    values = (
        parent,
        echo,
        record.created_at,
        record.expires_at,
        record.tenant,
        record.id,
        encode(sorted(record.calls)),
        record.head,
        join(record.input),
        join(record.output),
        None if record.native is None else record.native.pack(),
    )
    try:
        number = connection.execute(_ADD, values).lastrowid
    except sqlite3.IntegrityError as error:
        raise IdTaken(f"the response {record.id!r} is already stored: an id is used once") from error
    given = record.input_ids()
    own = record.output_ids() | (given - _known_items(record.tenant, sorted(given), connection))
    connection.executemany(_ADD_ITEM, [(record.tenant, ident, number) for ident in own])
    add_labels(connection, labels, (record.tenant, record.created_at, number))
    if place is not None:
        conversations.point(connection, place, number, record.created_at)


def _known_items(tenant: str, idents: Sequence[str], connection: sqlite3.Connection) -> set[str]:
    """Return those of the ids that a record has already: of a history that is sent again nearly all."""
    known: set[str] = set()
    for start in range(0, len(idents), _VALUES):
        some = idents[start : start + _VALUES]
        query = _KNOWN_ITEMS.format(",".join("?" * len(some)))
        known.update(ident for (ident,) in connection.execute(query, (tenant, *some)))
    return known


def _echo(record: Record, connection: sqlite3.Connection) -> tuple[int, bytes]:
    """Return the number of the record's echo and the digests of its labels, adding the echo if it is new."""
    digest = record.echo_digest
    known: tuple[int, bytes] | None = connection.execute(_FIND_ECHO, (record.tenant, digest)).fetchone()
    if known is not None:
        return known
    labels = pack_labels(record.labels())
    number = connection.execute(_ADD_ECHO, (record.tenant, digest, record.echo, labels)).lastrowid
    assert isinstance(number, int)
    return number, labels


def _delete(tenant: str, response_id: ResponseId, now: float, connection: sqlite3.Connection) -> bool:
    row = connection.execute(_FIND_LIVING, (tenant, response_id, now)).fetchone()
    if row is None:
        return False
    delete_row(connection, *row)
    return True


def _sweep(now: float, connection: sqlite3.Connection) -> list[tuple[str, ResponseId]]:
    rows = connection.execute(_FIND_EXPIRED, (now, _SWEEP_RECORDS)).fetchall()
    # Children come after their parents: deleted first, they save their parents from becoming tombstones.
    for seq, parent, echo, _, _ in sorted(rows, reverse=True):
        delete_row(connection, seq, parent, echo)
    return [(tenant, ResponseId(ident)) for _, _, _, tenant, ident in rows]


class _Erased(NamedTuple):
    """What one step has erased, and the last id that it looked at; None if there are no more."""

    erased: list[ResponseId]
    last: str | None


def _erase(tenant: str, before: float, after: str, connection: sqlite3.Connection) -> _Erased:
    """Delete some of a tenant's responses, in the order of their ids: so it looks at no row of another tenant."""
    rows = connection.execute(_FIND_OF_TENANT, (before, tenant, after, _SWEEP_RECORDS)).fetchall()
    chosen = [row for row in rows if row[4]]
    for seq, parent, echo, _, _ in sorted(chosen, reverse=True):  # children first, as in `_sweep`
        delete_row(connection, seq, parent, echo)
    last = rows[-1][3] if len(rows) == _SWEEP_RECORDS else None
    return _Erased([ResponseId(ident) for _, _, _, ident, _ in chosen], last)


def _shrink(connection: sqlite3.Connection) -> bool:
    """Give some free pages at the end of the file back; return whether there were any.

    A file that an older version of segue has made cannot do that: its free pages are used again.
    """
    pages = _free_pages(connection)
    for _ in range(min(pages, _SHRINK_PAGES)):
        # Python 3.11 takes one step of a statement without columns, so that more than a page would be one there only.
        connection.execute("PRAGMA incremental_vacuum(1)").fetchall()
    return _free_pages(connection) < pages


def _free_pages(connection: sqlite3.Connection) -> int:
    (pages,) = connection.execute("PRAGMA freelist_count").fetchone()
    return int(pages)


def _rewrite_header(connection: sqlite3.Connection) -> None:
    """Write the first page of the file again: SQLite does so whether or not the number is another."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    connection.execute(f"PRAGMA user_version = {version}")


# Reading. Each of these functions runs one statement or two, in the reader's thread.


def _chain(connection: sqlite3.Connection, tenant: str, response_id: ResponseId, now: float) -> list[ChainLink] | None:
    return _links(connection, _CHAIN_OF_RESPONSE, {"tenant": tenant, "id": response_id, "now": now}) or None


def _conversation_chain(
    connection: sqlite3.Connection, tenant: str, conversation_id: ConversationId, now: float
) -> list[ChainLink] | None:
    links = _links(connection, _CHAIN_OF_CONVERSATION, {"tenant": tenant, "id": conversation_id, "now": now})
    if links or conversations.find(connection, tenant, conversation_id) is not None:
        return links
    return None


def _links(connection: sqlite3.Connection, query: str, values: dict[str, str | float]) -> list[ChainLink]:
    rows = connection.execute(query, values).fetchall()
    rows.sort(key=itemgetter(0), reverse=True)  # not in SQL: SQLite would copy all items through its sorter
    return [link_of(row) for row in rows]


def _record(connection: sqlite3.Connection, tenant: str, response_id: ResponseId, now: float) -> Record | None:
    row: tuple[Any, ...] | None = connection.execute(_RECORD, (tenant, response_id, now)).fetchone()
    if row is None:
        return None
    return record_of(tenant, response_id, row)


def _find_item(connection: sqlite3.Connection, tenant: str, item_id: str, now: float) -> ResponseId | None:
    owners = connection.execute(_FIND_ITEM, (tenant, item_id, now)).fetchall()
    return ResponseId(owners[0][0]) if len(owners) == 1 else None


def _is_continued(connection: sqlite3.Connection, tenant: str, response_id: ResponseId) -> bool:
    return connection.execute(_IS_CONTINUED, (tenant, response_id)).fetchone() is not None


def _tenant_size(reader: sqlite3.Connection, tenant: str) -> StoreSize:
    return StoreSize(*reader.execute(_TENANT_SIZE, {"tenant": tenant, "overhead": CONVERSATION_BYTES}).fetchone())


def _size(database: Database) -> StoreSize:
    (records,) = database.reader.execute(_COUNT).fetchone()
    return StoreSize(records, database.size_bytes())
