"""Export and import of stored conversations: one leaves this gateway as a file, and another gateway goes on with it.

Turns keep their ids, so that a client continues at the other gateway as if nothing had happened. An import changes
nothing of what is stored here already: if a turn of the file is here, its history must be the same, and the import goes
on behind it. So the same import can be repeated. Not here: the file (`segue.history.conversation_file`), and HTTP
(`api.transfers`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from segue.config import ProviderDialect
from segue.gateway.quotas.storage_quota import StorageQuota
from segue.gateway.request_parser import LARGE_BYTES
from segue.gateway.turns.compaction import Compactions
from segue.gateway.turns.stateless_request import StatelessRequest, write_request
from segue.history.conversation_file import (
    Imported,
    NamedConversation,
    ReadFile,
    items_behind,
    living,
    read_conversation,
    write_conversation,
)
from segue.history.conversations import ConversationHead, ConversationStep
from segue.history.records import ChainLink, Record
from segue.protocol.ids import ENTROPY_BYTES, ConversationId, ResponseId, new_response_id
from segue.protocol.items import Input, Item
from segue.protocol.problems import Problem, Refused, conversation_not_found, response_not_found
from segue.protocol.request_size import RequestLimits
from segue.stores.interface import IdTaken, ParentGone, Store
from segue.upstreams.admission import AdmissionQueue

_MOST_WAITING = 1024


class ImportReport(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a file: the id to continue, how many turns it has, and how many of them were not here before."""

    id: ResponseId | ConversationId
    object: str = "segue.conversation.imported"
    turns: int
    imported: int


class ConversationTransfer:
    """Exports and imports the conversations of one store.

    `clock` gives unix seconds, `entropy(n)` draws n bytes. The number that `erasures` gives changes when what a tenant
    has is erased.
    """

    def __init__(
        self,
        store: Store,
        storage_quota: StorageQuota,
        *,
        limits: RequestLimits,
        retention_s: float,
        clock: Callable[[], float],
        entropy: Callable[[int], bytes],
        erasures: Callable[[str], int],
    ) -> None:
        self._store = store
        self._storage_quota = storage_quota
        self._limits = limits
        self._retention_s = retention_s
        self._clock = clock
        self._entropy = entropy
        self._erasures = erasures
        # One at a time, for tenants in turn: a thread beside the event loop slows it too.
        self._queue = AdmissionQueue("transfers", limit=1, max_waiting=_MOST_WAITING, timeout_s=None)

    async def export(self, tenant: str, response_id: ResponseId) -> bytes:
        """Return the file of the conversation that ends in a response. Raises `Refused` if there is none."""
        records = await self._read(tenant, response_id)
        return await self._queue.run_in_thread(tenant, lambda: write_conversation(records, self._clock()))

    async def export_conversation(self, tenant: str, conversation_id: ConversationId) -> bytes:
        """Return the file of a conversation of the Conversations API. Raises `Refused` if there is none."""
        now = self._clock()
        head = await self._store.conversation(tenant, conversation_id)
        links = await self._store.conversation_chain(tenant, conversation_id, now)
        if head is None or links is None:
            raise Refused(conversation_not_found(conversation_id))
        records = await self._records(tenant, links, now)
        behind = Input(items_behind(links, records))
        named = NamedConversation(conversation_id, head.created_at, head.metadata, behind)
        living_records = living(links, records)
        return await self._queue.run_in_thread(tenant, lambda: write_conversation(living_records, now, named))

    async def stateless_request(
        self, tenant: str, response_id: ResponseId, dialect: ProviderDialect, *, compactions: Compactions
    ) -> StatelessRequest:
        """Return the request that made a response as one that needs no gateway. Raises `Refused`."""
        records = await self._read(tenant, response_id)
        written = await self._queue.run_in_thread(tenant, lambda: write_request(records, dialect, compactions))
        if isinstance(written, Problem):
            raise Refused(written)
        return written

    async def take_in(self, tenant: str, file: bytes) -> ImportReport:
        """Store the turns of a file that are not here yet. Raises `Refused`."""
        now, erasures = self._clock(), self._erasures(tenant)
        importer = Imported(tenant, now, now + self._retention_s)
        found = await self._parse(file, importer)
        if isinstance(found, Problem):
            raise Refused(found)
        records, named = found.turns, found.conversation
        is_new = named is not None and await self._is_new(tenant, named.id, found.items())
        imported = await self._add(tenant, records, erasures)
        if named is None:
            return ImportReport(id=records[-1].id, turns=len(records), imported=imported)
        if is_new:
            await self._storage_quota.check(tenant, now)
            await self._create(_head_of(tenant, found, named, now), named.items, erasures, items=found.items())
        return ImportReport(id=named.id, turns=len(records), imported=imported)

    async def _add(self, tenant: str, records: Sequence[Record], erasures: int) -> int:
        """Store the turns that are not here; return how many there were. Another import may store them meanwhile."""
        imported, here = 0, await self._count_here(tenant, records)
        while here < len(records):
            record = records[here]
            await self._storage_quota.check(tenant, self._clock())
            if await self._append(record, erasures):
                imported, here = imported + 1, here + 1
                continue
            known, here = here, await self._count_here(tenant, records)
            if here <= known:
                raise Refused(_taken(record.id))
        return imported

    async def _is_new(self, tenant: str, conversation_id: ConversationId, items: Sequence[Item]) -> bool:
        """Tell whether a conversation is not here yet. Raises `Refused` if there is one that is not the same."""
        links = await self._store.conversation_chain(tenant, conversation_id, self._clock())
        if links is None:
            return True
        if _items(links) != items:
            raise Refused(_another("conversation.id", "a conversation"))
        return False

    async def _create(self, head: ConversationHead, behind: Input, erasures: int, *, items: Sequence[Item]) -> None:
        """Store a conversation, unless what its tenant has was erased since the import began."""
        step = None
        if behind.items:
            step_id = new_response_id(self._entropy(ENTROPY_BYTES), head.id)
            step = ConversationStep(id=step_id, parent_id=head.turn_id, input=behind.items, calls=behind.calls)
        if self._erasures(head.tenant) == erasures:
            try:
                await self._store.create_conversation(head, step)
            except (IdTaken, ParentGone):
                if not await self._is_new(head.tenant, head.id, items):
                    return  # another import has just made it
                raise Refused(_another("conversation.id", "a conversation")) from None
            if self._erasures(head.tenant) == erasures:
                self._storage_quota.note_conversation(head, step)
                return
            await self._store.delete_conversation(head.tenant, head.id)
        raise Refused(_ERASED)

    async def _parse(self, file: bytes, importer: Imported) -> ReadFile | Problem:
        if len(file) < LARGE_BYTES:
            return read_conversation(file, importer, self._limits)
        return await self._queue.run_in_thread(importer.tenant, lambda: read_conversation(file, importer, self._limits))

    async def _append(self, record: Record, erasures: int) -> bool:
        """Store a record, unless what its tenant has was erased meanwhile; tell whether its id was free."""
        tenant = record.tenant
        if self._erasures(tenant) == erasures:
            try:
                await self._store.append(record)
            except IdTaken:
                return False
            if self._erasures(tenant) == erasures:
                self._storage_quota.note_stored(tenant, record.size_bytes)
                return True
            await self._store.delete(tenant, record.id, self._clock())
        raise Refused(_ERASED)

    async def _read(self, tenant: str, response_id: ResponseId) -> list[Record]:
        """Return the records of a conversation, those of living turns only."""
        now = self._clock()
        links = await self._store.chain(tenant, response_id, now)
        if links is None:
            raise Refused(response_not_found(response_id))
        records = await self._records(tenant, links, now)
        if response_id not in records:  # it was deleted just now
            raise Refused(response_not_found(response_id))
        return living(links, records)

    async def _records(self, tenant: str, links: Sequence[ChainLink], now: float) -> dict[ResponseId, Record]:
        """Return the records of the living turns of a chain."""
        records: dict[ResponseId, Record] = {}
        for link in links:
            record = await self._store.record(tenant, link.id, now) if link.alive else None
            if record is not None:
                records[link.id] = record
        return records

    async def _count_here(self, tenant: str, records: Sequence[Record]) -> int:
        """Return how many of the first turns are stored here. Raises `Refused` if they are not the same."""
        for count in range(len(records), 0, -1):
            links = await self._store.chain(tenant, records[count - 1].id, self._clock())
            if links is None:
                continue
            if _items(links) != _items(records[:count]):
                raise Refused(_another(f"turns[{count - 1}].response.id", "a response"))
            return count
        return 0


_ERASED = Problem("store_error", "What belongs to this tenant was erased meanwhile. Nothing is left of it.")


def _head_of(tenant: str, found: ReadFile, named: NamedConversation, now: float) -> ConversationHead:
    return ConversationHead(
        tenant=tenant,
        id=named.id,
        created_at=named.created_at,
        changed_at=now,
        metadata=named.metadata,
        turn_id=found.turns[-1].id if found.turns else None,
    )


def _another(field: str, what: str) -> Problem:
    message = f"Invalid value for '{field}': there is {what} with this id here, and it is another one."
    return Problem("invalid_value", message, field)


def _taken(response_id: ResponseId) -> Problem:
    """A turn was deleted here, and what came after it still needs it."""
    message = f"Invalid value for 'turns': the response '{response_id}' was deleted here."
    return Problem("invalid_value", message, "turns")


def _items(turns: Sequence[Record | ChainLink]) -> list[Item]:
    return [item for turn in turns for item in (*turn.input, *turn.output)]
