"""Conversations in an SQLite store. Each function runs within one transaction, in the thread of its connection.

Not here: the turns that conversations point at (`sqlite`), and when those are freed (`sqlite_rows`).
"""

from __future__ import annotations

import sqlite3
from math import inf
from typing import Any

from segue.history.conversations import ConversationHead, ConversationMove, ConversationStep
from segue.protocol.codec import encode
from segue.protocol.ids import ConversationId, ResponseId
from segue.protocol.items import join
from segue.stores.interface import ConversationMoved, IdTaken, ParentGone
from segue.stores.sqlite_rows import free_rows

#: How many conversations one transaction deletes. More would delay appends.
_ERASE_AT_ONCE = 64

_ADD = "INSERT INTO conversations (turn, created_at, changed_at, tenant, id, metadata) VALUES (?, ?, ?, ?, ?, ?)"
_FIND = (
    "SELECT conversations.created_at, conversations.changed_at, conversations.metadata, records.id"
    " FROM conversations LEFT JOIN records ON records.seq = conversations.turn"
    " WHERE conversations.tenant = ? AND conversations.id = ?"
)
_PLACE = "SELECT seq, turn FROM conversations WHERE tenant = ? AND id = ?"
_POINT = "UPDATE conversations SET turn = ?, changed_at = max(changed_at, ?) WHERE seq = ?"
_DESCRIBE = "UPDATE conversations SET metadata = ?, changed_at = max(changed_at, ?) WHERE tenant = ? AND id = ?"
_FREE = "DELETE FROM conversations WHERE seq = ?"
_OLD = "SELECT seq, turn FROM conversations WHERE tenant = ? AND changed_at < ? LIMIT ?"
_FIND_TURN = "SELECT seq FROM records WHERE tenant = ? AND id = ?"
_ADD_STEP = (
    "INSERT INTO records (parent, created_at, expires_at, tenant, id, calls, input, output)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, '[]')"
)


def create(head: ConversationHead, step: ConversationStep | None, connection: sqlite3.Connection) -> None:
    """Write a new conversation, and the items that it begins with."""
    turn = head.turn_id
    number = _number_of(connection, head.tenant, turn) if step is None else _add_step(connection, head, step)
    values = (number, head.created_at, head.changed_at, head.tenant, head.id, head.metadata)
    try:
        connection.execute(_ADD, values)
    except sqlite3.IntegrityError as error:
        raise IdTaken(f"the conversation {head.id!r} is already stored") from error


def find(connection: sqlite3.Connection, tenant: str, conversation_id: ConversationId) -> ConversationHead | None:
    """Return a conversation, or None."""
    row: tuple[Any, ...] | None = connection.execute(_FIND, (tenant, conversation_id)).fetchone()
    if row is None:
        return None
    created_at, changed_at, metadata, turn_id = row
    return ConversationHead(
        tenant=tenant,
        id=conversation_id,
        created_at=created_at,
        changed_at=changed_at,
        metadata=metadata,
        turn_id=turn_id,
    )


def move(tenant: str, conversation_id: ConversationId, to: ConversationMove, connection: sqlite3.Connection) -> bool:
    """Carry out a move; return whether that has freed something."""
    seq, turn = place_at(connection, tenant, conversation_id, _number_of(connection, tenant, to.from_id))
    head = ConversationHead(tenant=tenant, id=conversation_id, created_at=to.at, changed_at=to.at)
    number = _number_of(connection, tenant, to.to_id) if to.step is None else _add_step(connection, head, to.step)
    point(connection, seq, number, to.at)
    return free_rows(connection, turn)


def place_at(
    connection: sqlite3.Connection, tenant: str, conversation_id: ConversationId, turn: int | None
) -> tuple[int, int | None]:
    """Return the number of a conversation and of its turn, which must be `turn`."""
    row = connection.execute(_PLACE, (tenant, conversation_id)).fetchone()
    if row is None or row[1] != turn:
        raise ConversationMoved(f"the conversation {conversation_id!r} was deleted, or points elsewhere by now")
    seq, at = row
    return seq, at


def point(connection: sqlite3.Connection, seq: int, turn: int | None, at: float) -> None:
    """Let a conversation point at a turn."""
    connection.execute(_POINT, (turn, at, seq))


def describe(
    tenant: str, conversation_id: ConversationId, metadata: bytes, now: float, connection: sqlite3.Connection
) -> bool:
    """Replace the metadata; return whether there is such a conversation."""
    return bool(connection.execute(_DESCRIBE, (metadata, now, tenant, conversation_id)).rowcount)


def delete(tenant: str, conversation_id: ConversationId, connection: sqlite3.Connection) -> bool:
    """Delete a conversation, and what only it needs; return whether there was one."""
    row = connection.execute(_PLACE, (tenant, conversation_id)).fetchone()
    if row is None:
        return False
    _delete(connection, *row)
    return True


def erase(tenant: str, before: float | None, connection: sqlite3.Connection) -> int:
    """Delete some of a tenant's conversations; return how many: fewer than one step takes, and there are no more."""
    rows = connection.execute(_OLD, (tenant, inf if before is None else before, _ERASE_AT_ONCE)).fetchall()
    for seq, turn in rows:
        _delete(connection, seq, turn)
    return len(rows)


def _delete(connection: sqlite3.Connection, seq: int, turn: int | None) -> None:
    connection.execute(_FREE, (seq,))
    free_rows(connection, turn)


def _number_of(connection: sqlite3.Connection, tenant: str, turn_id: ResponseId | None) -> int | None:
    """Return the number of a turn that is there, living or not."""
    if turn_id is None:
        return None
    row = connection.execute(_FIND_TURN, (tenant, turn_id)).fetchone()
    if row is None:
        raise ParentGone(f"the turn {turn_id!r} is not stored: was it deleted?")
    (number,) = row
    return int(number)


def _add_step(connection: sqlite3.Connection, head: ConversationHead, step: ConversationStep) -> int:
    parent = _number_of(connection, head.tenant, step.parent_id)
    values = (parent, head.changed_at, inf, head.tenant, step.id, encode(sorted(step.calls)), join(step.input))
    try:
        number = connection.execute(_ADD_STEP, values).lastrowid
    except sqlite3.IntegrityError as error:
        raise IdTaken(f"the id {step.id!r} is already used: an id is used once") from error
    assert isinstance(number, int)
    return number
