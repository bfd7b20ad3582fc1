"""Conversations in a PostgreSQL store: each function is what one call does with its connection.

A call that is made `again` after its connection was lost looks whether its first attempt was committed. Not here: the
turns that conversations point at (`new_rows`), and when those are freed (`freeing`).
"""

from __future__ import annotations

from math import inf

from segue.history.conversations import ConversationHead, ConversationMove, ConversationStep
from segue.protocol.ids import ConversationId, ResponseId
from segue.stores.interface import ConversationMoved, IdTaken, ParentGone
from segue.stores.postgres.appends import confirm, write_one
from segue.stores.postgres.connections import StoreConnection
from segue.stores.postgres.freeing import free, hold
from segue.stores.postgres.new_rows import ConversationPointer, row_of_step

#: How many conversations one transaction deletes.
_ERASE_AT_ONCE = 64

_ADD = b"""
    INSERT INTO segue_conversations (tenant, id, turn, created_at, changed_at, metadata)
    VALUES (%b, %b, %b, %b::double precision, %b::double precision, %b) ON CONFLICT DO NOTHING RETURNING id
"""
_FIND = b"SELECT created_at, changed_at, metadata, turn FROM segue_conversations WHERE tenant = %b AND id = %b"
_LOCK_TURN = b"SELECT segment FROM segue_records WHERE tenant = %b AND id = %b FOR KEY SHARE"
_SEGMENT = b"SELECT segment FROM segue_records WHERE tenant = %b AND id = %b"
_POINT = b"""
    UPDATE segue_conversations SET turn = %b::text, changed_at = greatest(changed_at, %b::double precision)
     WHERE tenant = %b AND id = %b AND turn IS NOT DISTINCT FROM %b::text RETURNING id
"""
_DESCRIBE = b"""
    UPDATE segue_conversations SET metadata = %b, changed_at = greatest(changed_at, %b::double precision)
     WHERE tenant = %b AND id = %b RETURNING id
"""
_DELETE = b"DELETE FROM segue_conversations WHERE tenant = %b AND id = %b RETURNING turn"
_ERASE = b"""
    DELETE FROM segue_conversations AS conversations USING (
        SELECT tenant, id FROM segue_conversations
         WHERE tenant = %b AND changed_at < %b::double precision LIMIT %b FOR UPDATE) AS old
     WHERE conversations.tenant = old.tenant AND conversations.id = old.id
    RETURNING conversations.turn
"""


async def create(
    connection: StoreConnection, head: ConversationHead, step: ConversationStep | None, *, again: bool
) -> None:
    """Write a new conversation, and the items that it begins with."""
    turn = head.turn_id if step is None else step.id
    async with connection.transaction():
        if again and await find(connection, head.tenant, head.id) == _pointing(head, turn):
            await confirm(connection)
            return
        if step is not None:
            await write_one(connection, row_of_step(head.tenant, step, head.changed_at), None, again=False)
        else:
            await _lock_turn(connection, head.tenant, turn)
        values = (head.tenant, head.id, turn, head.created_at, head.changed_at, head.metadata)
        if not await connection.fetch(_ADD, values):
            raise IdTaken(f"the conversation {head.id!r} is already stored")


async def find(connection: StoreConnection, tenant: str, conversation_id: ConversationId) -> ConversationHead | None:
    """Return a conversation, or None."""
    rows = await connection.fetch(_FIND, (tenant, conversation_id))
    if not rows:
        return None
    ((created_at, changed_at, metadata, turn),) = rows
    return ConversationHead(
        tenant=tenant,
        id=conversation_id,
        created_at=created_at,
        changed_at=changed_at,
        metadata=metadata,
        turn_id=turn,
    )


async def move(
    connection: StoreConnection, tenant: str, conversation_id: ConversationId, to: ConversationMove, *, again: bool
) -> None:
    """Carry out a move, and free what was only needed by where the conversation pointed before."""
    target = to.to_id if to.step is None else to.step.id
    async with connection.transaction():
        if again and (found := await find(connection, tenant, conversation_id)) and found.turn_id == target:
            await confirm(connection)
            return
        left = await _hold_turn(connection, tenant, to.from_id)
        if to.step is not None:
            pointer = ConversationPointer(conversation_id, to.from_id)
            await write_one(connection, row_of_step(tenant, to.step, to.at), pointer, again=False)
        else:
            await _lock_turn(connection, tenant, target)
            values = (target, to.at, tenant, conversation_id, to.from_id)
            if not await connection.fetch(_POINT, values):
                raise ConversationMoved(f"the conversation {conversation_id!r} was deleted, or points elsewhere by now")
        await free(connection, left)


async def describe(
    connection: StoreConnection, tenant: str, conversation_id: ConversationId, metadata: bytes, now: float
) -> bool:
    """Replace the metadata; return whether there is such a conversation."""
    return bool(await connection.fetch(_DESCRIBE, (metadata, now, tenant, conversation_id)))


async def delete(connection: StoreConnection, tenant: str, conversation_id: ConversationId) -> bool:
    """Delete a conversation, and what only it needs; return whether there was one."""
    async with connection.transaction():
        found = await find(connection, tenant, conversation_id)
        await _hold_turn(connection, tenant, None if found is None else found.turn_id)
        rows = await connection.fetch(_DELETE, (tenant, conversation_id))
        await _free_turns(connection, tenant, [turn for (turn,) in rows])
    return bool(rows)


async def erase(connection: StoreConnection, tenant: str, before: float | None) -> int:
    """Delete some of a tenant's conversations; return how many: none, and there are no more."""
    values = (tenant, inf if before is None else before, _ERASE_AT_ONCE)
    async with connection.transaction():
        rows = await connection.fetch(_ERASE, values)
        await _free_turns(connection, tenant, [turn for (turn,) in rows])
    return len(rows)


def _pointing(head: ConversationHead, turn: ResponseId | None) -> ConversationHead:
    return ConversationHead(
        tenant=head.tenant,
        id=head.id,
        created_at=head.created_at,
        changed_at=head.changed_at,
        metadata=head.metadata,
        turn_id=turn,
    )


async def _lock_turn(connection: StoreConnection, tenant: str, turn: ResponseId | None) -> None:
    """See to it that a turn stays until this transaction has ended."""
    if turn is not None and not await connection.fetch(_LOCK_TURN, (tenant, turn)):
        raise ParentGone(f"the turn {turn!r} is not stored: was it deleted?")


async def _hold_turn(connection: StoreConnection, tenant: str, turn: str | None) -> set[bytes]:
    """Hold the segment of a turn, before any row is locked: as those do who delete responses. Return it."""
    if turn is None:
        return set()
    rows = await connection.fetch(_SEGMENT, (tenant, turn))
    segments = {segment.bytes for (segment,) in rows}
    await hold(connection, segments)
    return segments


async def _free_turns(connection: StoreConnection, tenant: str, turns: list[str | None]) -> None:
    segments = set()
    for turn in turns:
        if turn is not None:
            rows = await connection.fetch(_SEGMENT, (tenant, turn))
            segments |= {segment.bytes for (segment,) in rows}
    await free(connection, segments)
