"""Erasure: what a tenant has is deleted everywhere, in the store and in memory, and a receipt says what it was.

A turn that runs meanwhile may continue what is erased, and would store it again with its own record. So no turn that
began before the end of an erasure is stored or can be continued: its client is told (`TurnRun`). With a time `before`,
only what is stored and older is erased, and nothing else changes: what younger ones need of their items stays
until those are gone, as after any deletion. Not here: who may erase what (`api.tenants`), and how a store erases.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Sequence

import msgspec

from segue.gateway.turns.background import BackgroundResponses
from segue.gateway.turns.executor import Executor
from segue.gateway.turns.grace_period import GracePeriod
from segue.gateway.turns.shielded_tasks import ShieldedTasks
from segue.protocol.ids import ResponseId
from segue.stores.interface import Store, StoreSize
from segue.stores.live.interface import Notice


class ErasedMemory(msgspec.Struct, frozen=True):
    """What was dropped from memory: turns, event logs of kept turns, and bases of the tunnel."""

    turns: int = 0
    event_logs: int = 0
    bases: int = 0


class ErasedStored(msgspec.Struct, frozen=True):
    """What was erased from a store: the ids of responses, and how many conversations."""

    ids: list[ResponseId]
    conversations: int


async def erase_stored(store: Store, tenant: str, before: float | None) -> ErasedStored:
    """Erase conversations that were last changed before a time, and responses that were made before it, or all.

    Conversations first, since they keep the items of responses.
    """
    conversations = await store.erase_conversations(tenant, before)
    return ErasedStored(await store.erase(tenant, before), conversations)


class ErasureReceipt(msgspec.Struct, frozen=True, kw_only=True):
    """What was erased, and when; times are unix seconds.

    `ids_sha256` is the SHA-256 of the sorted ids of the responses, each with a line feed behind it. `left` is what the
    tenant still has in the store: younger responses, and the items that they need.
    """

    object: str = "segue.erasure"
    tenant: str
    before: float | None
    begun_at: float
    ended_at: float
    responses: int
    conversations: int = 0
    ids_sha256: str
    ids: Sequence[ResponseId] | msgspec.UnsetType = msgspec.UNSET
    memory: ErasedMemory = ErasedMemory()
    left: StoreSize


def digest_ids(ids: Sequence[ResponseId]) -> str:
    """Return the digest of the ids of a receipt, as hex."""
    return hashlib.sha256("".join(f"{one}\n" for one in sorted(ids)).encode()).hexdigest()


class Erasure:
    """Erases what tenants have in one gateway. `drop_bases` drops what its tunnel keeps of a tenant."""

    def __init__(
        self,
        executor: Executor,
        background: BackgroundResponses,
        grace: GracePeriod,
        drop_bases: Callable[[str], int],
    ) -> None:
        self._executor = executor
        self._background = background
        self._grace = grace
        self._drop_bases = drop_bases
        self._one = asyncio.Lock()
        self._erasing = ShieldedTasks()

    async def erase(self, tenant: str, before: float | None, *, with_ids: bool = False) -> ErasureReceipt:
        """Erase what a tenant has, or of its stored responses those that are older. One erasure runs at a time.

        It goes on when its caller is cancelled: the store does too, and memory must not keep what the store has lost.

        Raises:
            StoreError: the store failed; some may be erased. Do it again.
            Refused: another gateway may still show some of it from its memory.
        """
        self._executor.deletions.check()
        return await self._erasing.run(self._erase(tenant, before, with_ids=with_ids))

    async def _erase(self, tenant: str, before: float | None, *, with_ids: bool) -> ErasureReceipt:
        executor = self._executor
        async with self._one:
            begun_at = executor.clock()
            if before is None:
                erased, memory = await self._erase_all(tenant)
            else:
                erased, memory = await erase_stored(executor.store, tenant, before), ErasedMemory()
                executor.parents.note_deletion()
                executor.eviction.forget(tenant, erased.ids)
                await executor.deletions.deleted(tenant, erased.ids)
                executor.deletions.check_confirmed(
                    tenant
                )  # an earlier one may have deleted what this one has not found
            executor.storage_quota.forget(tenant)
            left = await executor.store.tenant_size(tenant)
        return ErasureReceipt(
            tenant=tenant,
            before=before,
            begun_at=begun_at,
            ended_at=executor.clock(),
            responses=len(erased.ids),
            conversations=erased.conversations,
            ids_sha256=digest_ids(erased.ids),
            ids=sorted(erased.ids) if with_ids else msgspec.UNSET,
            memory=memory,
            left=left,
        )

    async def _erase_all(self, tenant: str) -> tuple[ErasedStored, ErasedMemory]:
        executor = self._executor
        executor.note_erasure(tenant)  # what runs now is not stored any more
        try:
            logs = await self._background.forget_tenant(tenant)
            await executor.deletions.tell(Notice("erased", tenant))  # nor is what runs at other gateways
            erased = await erase_stored(executor.store, tenant, None)
        finally:
            executor.note_erasure(tenant)  # and neither is what began meanwhile, and may continue what was there
            turns = executor.eviction.forget_tenant(tenant)
            self._grace.drop_tenant(tenant)
        executor.eviction.forget(tenant, erased.ids)
        await executor.deletions.tell(Notice("erased", tenant))
        return erased, ErasedMemory(turns, logs, self._drop_bases(tenant))

    async def forget_here(self, tenant: str) -> None:
        """Drop what this gateway has in memory of a tenant that another one erases; what runs here is not stored."""
        executor = self._executor
        executor.note_erasure(tenant)
        await self._background.forget_tenant(tenant, everywhere=False)
        executor.eviction.forget_tenant(tenant)
        self._grace.drop_tenant(tenant)
        executor.storage_quota.forget(tenant)
        self._drop_bases(tenant)
