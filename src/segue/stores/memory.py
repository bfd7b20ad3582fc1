"""A store in memory, for tests, demonstrations and gateways that may forget everything when they stop.

It keeps every rule of the interface except durability: its records die with the process. Not here: a cache. Nothing is
evicted; a record stays until it is deleted or has expired.
"""

from __future__ import annotations

from math import inf

import msgspec

from segue.history.conversations import ConversationHead, ConversationMove, ConversationStep
from segue.history.records import ChainLink, Record
from segue.protocol.ids import ConversationId, ResponseId
from segue.protocol.response_query import ResponseQuery
from segue.stores.interface import (
    CONVERSATION_BYTES,
    ConversationMoved,
    IdTaken,
    ParentGone,
    StoreError,
    StoreSize,
)
from segue.stores.label_index import IndexedResponse, LabelIndex


class MemoryStore:
    """Records in dictionaries. Use it from one event loop; no method ever waits."""

    def __init__(self) -> None:
        self._records: dict[tuple[str, ResponseId], _StoredRecord] = {}
        self._owners: dict[tuple[str, str], list[_StoredRecord]] = {}  # by tenant and id of an item
        self._conversations: dict[tuple[str, ConversationId], _StoredConversation] = {}
        self._labels = LabelIndex()
        self._appended = 0
        self._echoes = _EchoPool()
        self._living = 0
        self._size_bytes = 0  # without the echoes
        self._closed = False

    async def append(self, record: Record) -> None:
        """Write a record."""
        self._check_open()
        self._check_free(record.tenant, record.id)
        parent = self._turn(record.tenant, record.parent_id)
        entry = self._add(msgspec.structs.replace(record, echo=self._echoes.hold(record.echo)), parent)
        self._own(entry)
        self._living += 1
        self._labels.add(record.tenant, entry.indexed, record.labels())

    async def chain(self, tenant: str, response_id: ResponseId, now: float) -> list[ChainLink] | None:
        """Return the turns from the root to a living response, or None."""
        entry = self._find(tenant, response_id, now)
        if entry is None:
            return None
        return _links(entry, now)

    async def record(self, tenant: str, response_id: ResponseId, now: float) -> Record | None:
        """Return the record of a living response, or None."""
        entry = self._find(tenant, response_id, now)
        return None if entry is None else entry.record

    async def find_item(self, tenant: str, item_id: str, now: float) -> ResponseId | None:
        """Return the living response to which the item with this id belongs, if there is one and no other."""
        self._check_open()
        owners = [entry for entry in self._owners.get((tenant, item_id), ()) if entry.is_alive(now)]
        return owners[0].record.id if len(owners) == 1 else None

    async def list_responses(self, tenant: str, query: ResponseQuery, now: float) -> list[ResponseId] | None:
        """Return the living responses that match; None if `query.after` is not a living response."""
        self._check_open()
        after = None if query.after is None else self._find(tenant, query.after, now)
        if query.after is not None and after is None:
            return None
        return self._labels.find(
            tenant,
            query,
            after=None if after is None else after.indexed.position,
            is_alive=lambda ident: self._records[tenant, ident].is_alive(now),
        )

    async def is_continued(self, tenant: str, response_id: ResponseId) -> bool:
        """Return whether a record continues this response."""
        self._check_open()
        entry = self._records.get((tenant, response_id))
        return entry is not None and entry.children > 0

    async def delete(self, tenant: str, response_id: ResponseId, now: float) -> bool:
        """Delete a living response; return whether there was one."""
        entry = self._find(tenant, response_id, now)
        if entry is None:
            return False
        self._delete(entry)
        return True

    async def create_conversation(self, head: ConversationHead, step: ConversationStep | None = None) -> None:
        """Write a new conversation, and the items that it begins with."""
        self._check_open()
        key = (head.tenant, head.id)
        if key in self._conversations:
            raise IdTaken(f"the conversation {head.id!r} is already stored")
        turn = self._turn(head.tenant, head.turn_id) if step is None else self._add_step(head.tenant, step)
        conversation = self._conversations[key] = _StoredConversation(head)
        self._size_bytes += conversation.size_bytes
        self._point(conversation, turn, head.changed_at)

    async def conversation(self, tenant: str, conversation_id: ConversationId) -> ConversationHead | None:
        """Return a conversation, or None."""
        self._check_open()
        found = self._conversations.get((tenant, conversation_id))
        return None if found is None else found.head

    async def conversation_chain(
        self, tenant: str, conversation_id: ConversationId, now: float
    ) -> list[ChainLink] | None:
        """Return the turns of a conversation from the root on, or None if there is none."""
        self._check_open()
        found = self._conversations.get((tenant, conversation_id))
        return None if found is None else _links(found.turn, now)

    async def append_to_conversation(self, conversation_id: ConversationId, record: Record) -> None:
        """Write a record, and point a conversation at it."""
        self._check_open()
        parent = self._turn(record.tenant, record.parent_id)
        found = self._pointing_at(record.tenant, conversation_id, parent)
        await self.append(record)
        self._point(found, self._records[record.tenant, record.id], record.created_at)

    async def move_conversation(self, tenant: str, conversation_id: ConversationId, move: ConversationMove) -> None:
        """Point a conversation at another turn."""
        self._check_open()
        found = self._pointing_at(tenant, conversation_id, self._turn(tenant, move.from_id))
        to = self._turn(tenant, move.to_id) if move.step is None else self._add_step(tenant, move.step)
        self._point(found, to, move.at)

    async def describe_conversation(
        self, tenant: str, conversation_id: ConversationId, metadata: bytes, now: float
    ) -> bool:
        """Replace the metadata of a conversation; return whether there is one."""
        self._check_open()
        found = self._conversations.get((tenant, conversation_id))
        if found is None:
            return False
        self._size_bytes -= found.size_bytes
        found.change(now, metadata=metadata)
        self._size_bytes += found.size_bytes
        return True

    async def delete_conversation(self, tenant: str, conversation_id: ConversationId) -> bool:
        """Delete a conversation; return whether there was one."""
        self._check_open()
        found = self._conversations.pop((tenant, conversation_id), None)
        if found is None:
            return False
        self._size_bytes -= found.size_bytes
        if found.turn is not None:
            found.turn.children -= 1
            self._free(found.turn)
        return True

    async def erase_conversations(self, tenant: str, before: float | None) -> int:
        """Delete the conversations of a tenant that were last changed before a time, or all of them."""
        self._check_open()
        own = [found.head for (owner, _), found in self._conversations.items() if owner == tenant]
        chosen = [head.id for head in own if before is None or head.changed_at < before]
        for conversation_id in chosen:
            await self.delete_conversation(tenant, conversation_id)
        return len(chosen)

    async def sweep(self, now: float) -> list[tuple[str, ResponseId]]:
        """Delete all expired records; return the tenant and the id of each."""
        self._check_open()
        expired = [entry for entry in self._records.values() if not entry.dead and entry.record.expires_at <= now]
        for entry in expired:
            self._delete(entry)
        return [(entry.record.tenant, entry.record.id) for entry in expired]

    async def erase(self, tenant: str, before: float | None) -> list[ResponseId]:
        """Delete the responses of a tenant that were made before a time, or all of them."""
        self._check_open()
        own = [entry for (owner, _), entry in self._records.items() if owner == tenant and not entry.dead]
        chosen = [entry for entry in own if before is None or entry.record.created_at < before]
        for entry in chosen:
            self._delete(entry)
        return [entry.record.id for entry in chosen]

    async def size(self) -> StoreSize:
        """Return how many records live, and how many bytes all records take."""
        self._check_open()
        return StoreSize(self._living, self._size_bytes + self._echoes.size_bytes)

    async def tenant_size(self, tenant: str) -> StoreSize:
        """Return how many records of a tenant live, and how many bytes they and its tombstones take."""
        self._check_open()
        entries = [entry for (owner, _), entry in self._records.items() if owner == tenant]
        named = sum(found.size_bytes for (owner, _), found in self._conversations.items() if owner == tenant)
        return StoreSize(sum(not entry.dead for entry in entries), sum(entry.size_bytes for entry in entries) + named)

    async def check_writable(self) -> None:
        """Raise `StoreError` if it is closed: memory can be written otherwise."""
        self._check_open()

    async def aclose(self) -> None:
        """Drop everything. Later calls raise `StoreError`."""
        self._closed = True
        self._records.clear()
        self._owners.clear()
        self._labels.clear()
        self._conversations.clear()

    def _check_open(self) -> None:
        if self._closed:
            raise StoreError("the store is closed")

    def _find(self, tenant: str, response_id: ResponseId, now: float) -> _StoredRecord | None:
        self._check_open()
        entry = self._records.get((tenant, response_id))
        return entry if entry is not None and entry.is_alive(now) else None

    def _check_free(self, tenant: str, ident: ResponseId) -> None:
        if (tenant, ident) in self._records:
            raise IdTaken(f"the response {ident!r} is already stored: an id is used once")

    def _turn(self, tenant: str, ident: ResponseId | None) -> _StoredRecord | None:
        """Return a turn that is there, living or not."""
        if ident is None:
            return None
        found = self._records.get((tenant, ident))
        if found is None:
            raise ParentGone(f"the turn {ident!r} is not stored: was it deleted?")
        return found

    def _add(self, record: Record, parent: _StoredRecord | None) -> _StoredRecord:
        self._appended += 1
        entry = self._records[record.tenant, record.id] = _StoredRecord(record, parent, self._appended)
        if parent is not None:
            parent.children += 1
        self._size_bytes += entry.size_bytes
        return entry

    def _add_step(self, tenant: str, step: ConversationStep) -> _StoredRecord:
        """Add a turn that has no response: nobody can ask for it, as for a tombstone."""
        self._check_free(tenant, step.id)
        parent = self._turn(tenant, step.parent_id)
        record = Record(
            tenant=tenant,
            id=step.id,
            parent_id=step.parent_id,
            created_at=0.0,
            expires_at=inf,
            head=b"",
            echo=b"",
            input=step.input,
            output=(),
            calls=step.calls,
        )
        entry = self._add(record, parent)
        entry.dead = True
        return entry

    def _pointing_at(
        self, tenant: str, conversation_id: ConversationId, turn: _StoredRecord | None
    ) -> _StoredConversation:
        """Return a conversation, which must point at `turn`."""
        found = self._conversations.get((tenant, conversation_id))
        if found is None or found.turn is not turn:
            raise ConversationMoved(f"the conversation {conversation_id!r} was deleted, or points elsewhere by now")
        return found

    def _point(self, conversation: _StoredConversation, turn: _StoredRecord | None, at: float) -> None:
        """Let a conversation point at a turn; free what was only needed by where it pointed before."""
        before, conversation.turn = conversation.turn, turn
        conversation.change(at, turn_id=None if turn is None else turn.record.id)
        if turn is not None:
            turn.children += 1
        if before is not None:
            before.children -= 1
            self._free(before)

    def _delete(self, entry: _StoredRecord) -> None:
        """Turn a record into a tombstone, and free it if it is not needed."""
        self._living -= 1
        self._size_bytes -= entry.size_bytes
        self._echoes.release(entry.record.echo)
        self._disown(entry)
        self._labels.remove(entry.record.tenant, entry.indexed)
        entry.entomb()
        self._size_bytes += entry.size_bytes
        self._free(entry)

    def _free(self, entry: _StoredRecord) -> None:
        """Free a turn and its ancestors, up to the first one that is a response or is needed."""
        free: _StoredRecord | None = entry
        while free is not None and free.dead and not free.children:
            del self._records[free.record.tenant, free.record.id]
            self._size_bytes -= free.size_bytes
            free = free.parent
            if free is not None:
                free.children -= 1

    def _own(self, entry: _StoredRecord) -> None:
        """Note which items belong to a new record."""
        tenant, made = entry.record.tenant, entry.record.output_ids()
        new = {ident for ident in entry.record.input_ids() if (tenant, ident) not in self._owners}
        entry.items = made | new
        for ident in entry.items:
            self._owners.setdefault((tenant, ident), []).append(entry)

    def _disown(self, entry: _StoredRecord) -> None:
        for ident in entry.items:
            owners = self._owners[entry.record.tenant, ident]
            owners.remove(entry)
            if not owners:
                del self._owners[entry.record.tenant, ident]
        entry.items = frozenset()


class _StoredRecord:
    """A record, or the tombstone of one, which keeps its items for its descendants.

    `items` are the ids of the items that belong to it and do not tell so themselves. A conversation that points at it
    counts among its `children`. `number` tells its place among all that were added.
    """

    __slots__ = ("children", "dead", "items", "number", "parent", "record")

    def __init__(self, record: Record, parent: _StoredRecord | None, number: int) -> None:
        self.record = record
        self.parent = parent
        self.number = number
        self.children = 0
        self.dead = False
        self.items: frozenset[str] = frozenset()

    @property
    def size_bytes(self) -> int:
        """Its size without the echo, which is shared."""
        return self.record.size_bytes - len(self.record.echo)

    @property
    def indexed(self) -> IndexedResponse:
        """What a list is made from."""
        return IndexedResponse((self.record.created_at, self.number), self.record.id)

    def is_alive(self, now: float) -> bool:
        return not self.dead and self.record.expires_at > now

    def entomb(self) -> None:
        """Become a tombstone: drop what only the response's own id could ask for."""
        self.record = msgspec.structs.replace(self.record, head=b"", echo=b"")
        self.dead = True

    def link(self, now: float) -> ChainLink:
        record = self.record
        return ChainLink(
            id=record.id,
            expires_at=record.expires_at,
            alive=self.is_alive(now),
            input=record.input,
            output=record.output,
            calls=record.calls,
            native=record.native,
        )


class _StoredConversation:
    """A conversation, and the turn that it points at."""

    __slots__ = ("head", "turn")

    def __init__(self, head: ConversationHead) -> None:
        self.head = msgspec.structs.replace(head, turn_id=None)
        self.turn: _StoredRecord | None = None

    @property
    def size_bytes(self) -> int:
        return len(self.head.metadata) + CONVERSATION_BYTES

    def change(self, now: float, **fields: object) -> None:
        changed_at = max(now, self.head.changed_at)
        self.head = msgspec.structs.replace(self.head, changed_at=changed_at, **fields)


def _links(entry: _StoredRecord | None, now: float) -> list[ChainLink]:
    links: list[ChainLink] = []
    while entry is not None:
        links.append(entry.link(now))
        entry = entry.parent
    links.reverse()
    return links


class _EchoPool:
    """Deduplicated echoes: each distinct one, with the number of records that use it."""

    def __init__(self) -> None:
        self._uses: dict[bytes, tuple[bytes, int]] = {}
        self.size_bytes = 0

    def hold(self, echo: bytes) -> bytes:
        """Count one more use of `echo`, and return its only copy."""
        shared, uses = self._uses.get(echo, (echo, 0))
        self._uses[shared] = (shared, uses + 1)
        self.size_bytes += 0 if uses else len(shared)
        return shared

    def release(self, echo: bytes) -> None:
        """Count one use less, and free the echo after the last."""
        shared, uses = self._uses.pop(echo)
        if uses > 1:
            self._uses[shared] = (shared, uses - 1)
        else:
            self.size_bytes -= len(shared)
