"""One end of a copy that is a store in an SQLite file. Not here: the copy (`copying`), and the store (`sqlite`)."""

from __future__ import annotations

import asyncio
import hashlib
import sqlite3
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from segue.history.conversations import ConversationHead
from segue.protocol.ids import ConversationId, ResponseId
from segue.stores.copying import PAGE_BYTES, PAGE_TURNS, StoredTurn
from segue.stores.interface import StoreError
from segue.stores.sqlite_file import Database, explain, open_database
from segue.stores.sqlite_labels import add_labels, label_digests
from segue.stores.turn_rows import stored_turn_of

T = TypeVar("T")

# The output of a step is an empty array, as a text.
_TURNS = """
    SELECT records.seq, records.tenant, records.id, parents.id, records.created_at, records.expires_at, records.head,
           echoes.echo, records.calls, records.input, CAST(records.output AS BLOB), records.native
      FROM records
 LEFT JOIN records AS parents ON parents.seq = records.parent
 LEFT JOIN echoes ON echoes.seq = records.echo
     WHERE records.seq > ?
  ORDER BY records.seq
"""
_ITEMS = "SELECT id FROM item_ids WHERE record = ? ORDER BY id"
_CONVERSATIONS = """
    SELECT conversations.seq, conversations.tenant, conversations.id, conversations.created_at,
           conversations.changed_at, conversations.metadata, records.id
      FROM conversations LEFT JOIN records ON records.seq = conversations.turn
     WHERE conversations.seq > ? ORDER BY conversations.seq LIMIT ?
"""
_FIND = "SELECT seq FROM records WHERE tenant = ? AND id = ?"
_ADD_ECHO = "INSERT OR IGNORE INTO echoes (tenant, digest, echo, labels) VALUES (?, ?, ?, ?)"
_FIND_ECHO = "SELECT seq, labels FROM echoes WHERE tenant = ? AND digest = ?"
_ADD = (
    "INSERT INTO records (parent, echo, created_at, expires_at, tenant, id, calls, head, input, output, native)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_ADD_ITEM = "INSERT INTO item_ids (tenant, id, record) VALUES (?, ?, ?)"
_ADD_CONVERSATION = (
    "INSERT OR IGNORE INTO conversations (turn, created_at, changed_at, tenant, id, metadata) VALUES (?, ?, ?, ?, ?, ?)"
)


class SqliteCopyEnd:
    """A file that is read or written by a copy. Create it with `open`, and release it with `aclose`."""

    def __init__(self, database: Database, thread: ThreadPoolExecutor) -> None:
        self._database = database
        self._thread = thread

    @classmethod
    async def open(cls, path: Path) -> SqliteCopyEnd:
        """Open a file, or create it. Raises `StoreError`, also if a gateway uses it."""
        thread = ThreadPoolExecutor(1, thread_name_prefix="segue-store-copy")
        try:
            database = await asyncio.get_running_loop().run_in_executor(thread, open_database, path, "FULL", None)
        except BaseException:
            thread.shutdown(wait=False)
            raise
        return cls(database, thread)

    async def turns(self) -> AsyncGenerator[list[StoredTurn], None]:
        """Yield all turns in the order in which they were written."""
        after = 0
        while page := await self._run(_read_turns, self._database.reader, after):
            yield [turn for _, turn in page]
            after = page[-1][0]

    async def conversations(self) -> AsyncGenerator[list[ConversationHead], None]:
        """Yield all conversations."""
        after = 0
        while page := await self._run(_read_conversations, self._database.reader, after):
            yield [head for _, head in page]
            after = page[-1][0]

    async def add_turns(self, turns: Sequence[StoredTurn]) -> int:
        """Write those turns that are not there, in one transaction."""
        return await self._run(_in_transaction, self._database.writer, lambda writer: _add_turns(writer, turns))

    async def add_conversations(self, heads: Sequence[ConversationHead]) -> int:
        """Write those conversations that are not there, in one transaction."""
        return await self._run(_in_transaction, self._database.writer, lambda writer: _add_conversations(writer, heads))

    async def aclose(self) -> None:
        """Checkpoint the log, and release the file."""
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._database.close)
        finally:
            self._thread.shutdown(wait=False)

    async def _run(self, function: Callable[..., T], *arguments: object) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)
        except sqlite3.Error as error:
            raise explain(error, self._database.path) from error


def _read_turns(connection: sqlite3.Connection, after: int) -> list[tuple[int, StoredTurn]]:
    page: list[tuple[int, StoredTurn]] = []
    size = 0
    rows = connection.execute(_TURNS, (after,))
    for seq, *row in rows:
        turn = stored_turn_of(row, (item for (item,) in connection.execute(_ITEMS, (seq,))))
        page.append((seq, turn))
        size += turn.size_bytes
        if size >= PAGE_BYTES or len(page) == PAGE_TURNS:
            break
    rows.close()
    return page


def _read_conversations(connection: sqlite3.Connection, after: int) -> list[tuple[int, ConversationHead]]:
    rows = connection.execute(_CONVERSATIONS, (after, PAGE_TURNS)).fetchall()
    return [
        (
            seq,
            ConversationHead(
                tenant=tenant,
                id=ConversationId(ident),
                created_at=created_at,
                changed_at=changed_at,
                metadata=metadata,
                turn_id=turn,
            ),
        )
        for seq, tenant, ident, created_at, changed_at, metadata, turn in rows
    ]


def _in_transaction(connection: sqlite3.Connection, add: Callable[[sqlite3.Connection], int]) -> int:
    connection.execute("BEGIN IMMEDIATE")
    try:
        added = add(connection)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return added


def _add_turns(connection: sqlite3.Connection, turns: Sequence[StoredTurn]) -> int:
    missing = [turn for turn in turns if _number(connection, turn.tenant, turn.id) is None]
    for turn in missing:
        _add_turn(connection, turn)
    return len(missing)


def _add_turn(connection: sqlite3.Connection, turn: StoredTurn) -> None:
    parent = None if turn.parent_id is None else _needed(connection, turn.tenant, turn.parent_id)
    echo, labels = _echo(connection, turn)
    values = (
        parent,
        echo,
        turn.created_at,
        turn.expires_at,
        turn.tenant,
        turn.id,
        turn.calls,
        turn.head,
        turn.input,
        turn.output,
        turn.native,
    )
    number = connection.execute(_ADD, values).lastrowid
    connection.executemany(_ADD_ITEM, [(turn.tenant, item, number) for item in turn.items])
    add_labels(connection, labels, (turn.tenant, turn.created_at, number))


def _echo(connection: sqlite3.Connection, turn: StoredTurn) -> tuple[int | None, bytes]:
    """Return the number and the labels of the settings of a turn, which a tombstone has none of."""
    if turn.echo is None:
        return None, b""
    digest = hashlib.sha256(turn.echo).digest()
    connection.execute(_ADD_ECHO, (turn.tenant, digest, turn.echo, label_digests(turn.echo)))
    number, labels = connection.execute(_FIND_ECHO, (turn.tenant, digest)).fetchone()
    return number, labels


def _add_conversations(connection: sqlite3.Connection, heads: Sequence[ConversationHead]) -> int:
    added = 0
    for head in heads:
        turn = None if head.turn_id is None else _needed(connection, head.tenant, head.turn_id)
        values = (turn, head.created_at, head.changed_at, head.tenant, head.id, head.metadata)
        added += connection.execute(_ADD_CONVERSATION, values).rowcount
    return added


def _needed(connection: sqlite3.Connection, tenant: str, ident: ResponseId) -> int:
    number = _number(connection, tenant, ident)
    if number is None:
        raise StoreError(f"the target has no turn {ident!r} (any more): does somebody else write to it?")
    return number


def _number(connection: sqlite3.Connection, tenant: str, ident: ResponseId) -> int | None:
    row = connection.execute(_FIND, (tenant, ident)).fetchone()
    return None if row is None else int(row[0])
