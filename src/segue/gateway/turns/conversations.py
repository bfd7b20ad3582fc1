"""Conversations: who may change one, and the turn that a request in one continues.

One request at a time changes a conversation: a turn that runs in it, or a request that adds or takes out items. Another
one is refused meanwhile, as OpenAI's API does it, at whatever gateway. The store makes sure of it once more, since a
conversation moves only from where its reader saw it. Not here: what a conversation is (`segue.history.conversations`),
and HTTP (`api.conversations`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import msgspec

from segue.gateway.quotas.storage_quota import StorageQuota
from segue.gateway.turns.compaction import Compactions
from segue.gateway.turns.reference_resolver import ReferenceResolver
from segue.gateway.turns.turn_settings import Sources
from segue.history.cache import Slot, TurnCache
from segue.history.chains import History, Turn
from segue.history.conversations import ConversationHead, ConversationMove, ConversationStep, take_out
from segue.history.records import ChainLink
from segue.history.repeated_items import leave_out_repeats
from segue.protocol.conversations import NewConversation
from segue.protocol.ids import (
    ENTROPY_BYTES,
    ConversationId,
    ResponseId,
    new_conversation_id,
    new_response_id,
    parse_conversation_id,
)
from segue.protocol.items import Input
from segue.protocol.problems import (
    Problem,
    Refused,
    conversation_item_not_found,
    conversation_locked,
    conversation_not_found,
    tool_call_not_found,
)
from segue.stores.interface import ConversationMoved, Store, StoreError
from segue.stores.live.advisory_locks import AdvisoryLocks, LockClaim

_log = logging.getLogger("segue.gateway")


class Conversations:
    """The conversations of all tenants.

    The number that `erasures` gives changes when what a tenant has is erased.
    """

    def __init__(
        self,
        store: Store,
        cache: TurnCache,
        *,
        compactions: Compactions,
        resolver: ReferenceResolver,
        storage_quota: StorageQuota,
        locks: AdvisoryLocks,
        sources: Sources,
        erasures: Callable[[str], int],
    ) -> None:
        self._store = store
        self._cache = cache
        self._compactions = compactions
        self._resolver = resolver
        self._storage_quota = storage_quota
        self._clock = sources.clock
        self._entropy = sources.entropy
        self._erasures = erasures
        self._locks = locks

    # --- for turns ---------------------------------------------------------------------------------------------------

    async def claim(self, tenant: str, conversation_id: ConversationId) -> LockClaim:
        """Let nobody else change a conversation until the claim is released.

        Raises:
            Refused: another request is changing it.
        """
        claim = LockClaim(self._locks, tenant, f"conversation:{conversation_id}", self._entropy)
        if not await claim.take():
            raise Refused(conversation_locked())
        return claim

    async def newest(self, tenant: str, conversation_id: ConversationId) -> Turn | None:
        """Return the turn that a conversation points at; None if it has no items.

        Raises:
            Refused: there is no such conversation for this tenant, or the store cannot be read.
        """
        head = await self.find(tenant, conversation_id, param="conversation")
        if head.turn_id is None:
            return None
        slot, now = self._slot(tenant, conversation_id), self._clock()
        turn = self._cache.find_in_slot(slot, head.turn_id, now) or self._cache.find_shared(tenant, head.turn_id, now)
        if turn is not None:
            return turn
        erasures = self._erasures(tenant)
        links = await self.links(tenant, conversation_id, param="conversation")
        if not links:
            return None
        turn = await self._compactions.restore(tenant, links, lambda ident: self._cache.peek_stored(tenant, ident))
        if self._erasures(tenant) == erasures:
            self._cache.put_slot(tenant, slot, turn)
        return turn

    def note_response(self, tenant: str, conversation_id: ConversationId) -> None:
        """Note that a conversation points at a response, which is in memory as every stored one."""
        self._cache.drop_slot(self._slot(tenant, conversation_id))

    # --- for clients -------------------------------------------------------------------------------------------------

    async def create(self, tenant: str, new: NewConversation) -> ConversationHead:
        """Make a conversation. Raises `Refused`."""
        now, erasures = self._clock(), self._erasures(tenant)
        await self._storage_quota.check(tenant, now)
        conversation_id = new_conversation_id(self._entropy(ENTROPY_BYTES))
        step = await self._step(tenant, conversation_id, None, new.items) if new.items.items else None
        head = ConversationHead(
            tenant=tenant,
            id=conversation_id,
            created_at=now,
            changed_at=now,
            metadata=new.metadata,
            turn_id=None if step is None else step.id,
        )
        async with self._writing(tenant, erasures, conversation_id):
            await self._store.create_conversation(head, step)
        self._storage_quota.note_conversation(head, step)
        return head

    async def find(self, tenant: str, text: str, *, param: str = "conversation_id") -> ConversationHead:
        """Return the conversation with this id. Raises `Refused`, with the `param` of the request that has the id."""
        conversation_id = _conversation_id(text, param)
        async with _reading():
            head = await self._store.conversation(tenant, conversation_id)
        if head is None:
            raise Refused(conversation_not_found(text, param))
        return head

    async def links(self, tenant: str, text: str, *, param: str = "conversation_id") -> list[ChainLink]:
        """Return the turns of a conversation from the root on. Raises `Refused`."""
        conversation_id = _conversation_id(text, param)
        async with _reading():
            links = await self._store.conversation_chain(tenant, conversation_id, self._clock())
        if links is None:
            raise Refused(conversation_not_found(text, param))
        return links

    async def describe(self, tenant: str, text: str, metadata: bytes) -> ConversationHead:
        """Replace the metadata of a conversation. Raises `Refused`."""
        head = await self.find(tenant, text)
        await self._storage_quota.check(tenant, self._clock())
        async with self._writing(tenant, self._erasures(tenant), head.id):
            if not await self._store.describe_conversation(tenant, head.id, metadata, self._clock()):
                raise Refused(conversation_not_found(text))
        return msgspec.structs.replace(head, metadata=metadata)

    async def delete(self, tenant: str, text: str) -> ConversationId:
        """Delete a conversation; what its responses need stays. Raises `Refused`."""
        conversation_id = _conversation_id(text)
        claim = await self.claim(tenant, conversation_id)
        try:
            async with _reading():
                deleted = await self._store.delete_conversation(tenant, conversation_id)
        finally:
            await claim.release()
        if not deleted:
            raise Refused(conversation_not_found(text))
        self._cache.drop_slot(self._slot(tenant, conversation_id))
        self._storage_quota.forget(tenant)
        return conversation_id

    async def add(self, tenant: str, text: str, given: Input) -> ConversationStep | None:
        """Add items to a conversation; return them as they are in it, None if it had them all. Raises `Refused`."""
        conversation_id, erasures = _conversation_id(text), self._erasures(tenant)
        await self._storage_quota.check(tenant, self._clock())
        claim = await self.claim(tenant, conversation_id)
        try:
            parent = await self.newest(tenant, conversation_id)
            step = await self._step(tenant, conversation_id, parent, given)
            if step is not None:
                move = ConversationMove(from_id=step.parent_id, step=step, at=self._clock())
                async with self._writing(tenant, erasures, conversation_id):
                    await self._store.move_conversation(tenant, conversation_id, move)
                turn = step.turn(parent)
                self._compactions.note(tenant, turn)
                self._cache.put_slot(tenant, self._slot(tenant, conversation_id), turn)
                self._storage_quota.note_added(tenant, step.size_bytes)
        finally:
            await claim.release()
        return step

    async def remove(self, tenant: str, text: str, item_id: str) -> ConversationHead:
        """Take an item out of a conversation. What responses saw stays as it was. Raises `Refused`."""
        conversation_id, erasures = _conversation_id(text), self._erasures(tenant)
        await self._storage_quota.check(tenant, self._clock())
        claim = await self.claim(tenant, conversation_id)
        try:
            links = await self.links(tenant, text)
            step_id = self._new_id(conversation_id)
            # In a thread, since it may read all of a long conversation.
            move = await asyncio.to_thread(take_out, links, item_id, step_id=step_id, now=self._clock())
            if move is None:
                raise Refused(conversation_item_not_found(item_id, text))
            async with self._writing(tenant, erasures, conversation_id):
                await self._store.move_conversation(tenant, conversation_id, move)
            self._cache.drop_slot(self._slot(tenant, conversation_id))
            self._storage_quota.forget(tenant)
        finally:
            await claim.release()
        return await self.find(tenant, text)

    # --- private -----------------------------------------------------------------------------------------------------

    async def _step(
        self, tenant: str, conversation_id: ConversationId, parent: Turn | None, given: Input
    ) -> ConversationStep | None:
        """Return the step that these items are behind a turn; None if they are there already."""
        if given.references:
            given = await self._resolver.resolve(tenant, given, parent=parent, places=())
        new = leave_out_repeats(parent, given)
        if isinstance(new, Problem):
            raise Refused(new)
        orphan = History(parent, new.items).find_orphan(new.answers)
        if orphan is not None:
            problem = tool_call_not_found(*orphan)
            raise Refused(msgspec.structs.replace(problem, param=f"items[{orphan[1]}].call_id"))
        if not new.items:
            return None
        return ConversationStep(
            id=self._new_id(conversation_id),
            parent_id=None if parent is None else parent.id,
            input=new.items,
            calls=new.calls,
        )

    def _new_id(self, conversation_id: ConversationId) -> ResponseId:
        return new_response_id(self._entropy(ENTROPY_BYTES), conversation_id)

    def _slot(self, tenant: str, conversation_id: ConversationId) -> Slot:
        """Return where the newest turn of a conversation is in memory if no response is there for it."""
        return (self, tenant), conversation_id

    @asynccontextmanager
    async def _writing(self, tenant: str, erasures: int, conversation_id: ConversationId) -> AsyncIterator[None]:
        """Write to the store. What is written must not outlive an erasure that has begun meanwhile."""
        try:
            yield
        except ConversationMoved:
            raise Refused(conversation_locked()) from None
        except StoreError as error:
            _log.error("action=change_conversation error=%r", str(error))
            raise Refused(Problem("store_error", "The store cannot be written at the moment. Try again.")) from error
        if self._erasures(tenant) != erasures:
            await self._store.delete_conversation(tenant, conversation_id)
            message = "What belongs to this tenant was erased meanwhile. Nothing is left of it."
            raise Refused(Problem("store_error", message))


@asynccontextmanager
async def _reading() -> AsyncIterator[None]:
    try:
        yield
    except StoreError as error:
        _log.error("action=read_conversation error=%r", str(error))
        raise Refused(Problem("store_error", "The store cannot be used at the moment. Try again.")) from error


def _conversation_id(text: str, param: str = "conversation_id") -> ConversationId:
    """Return the id that a request names. A text without the format of an id is not looked up."""
    conversation_id = parse_conversation_id(text)
    if conversation_id is None:
        raise Refused(conversation_not_found(text, param))
    return conversation_id
