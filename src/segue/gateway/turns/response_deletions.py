"""Deleting a stored response: from the store, and from the memory of every gateway.

Not here: kept turns that are to be forgotten (`background`), and all that a tenant has (`erasure`).
"""

from __future__ import annotations

from collections.abc import Callable

from segue.gateway.turns.node_deletions import NodeDeletions
from segue.gateway.turns.parents import Parents
from segue.gateway.turns.shielded_tasks import ShieldedTasks
from segue.protocol.ids import ResponseId
from segue.stores.interface import Store


class ResponseDeletions:
    """Deletes stored responses. `clock` gives unix seconds."""

    def __init__(self, store: Store, parents: Parents, deletions: NodeDeletions, *, clock: Callable[[], float]) -> None:
        self._store = store
        self._parents = parents
        self._deletions = deletions
        self._clock = clock
        self._deleting = ShieldedTasks()

    @property
    def running(self) -> int:
        """How many deletions are under way."""
        return len(self._deleting)

    async def delete(self, tenant: str, response_id: ResponseId) -> bool:
        """Delete a response; its id resolves to nothing from now on, in the memory of every gateway too.

        The deletion goes on when its caller is cancelled: the store finishes it anyway, and memory must not keep what
        the store has lost.

        Raises:
            Refused: another gateway may still show it from its memory.
        """
        self._deletions.check()
        return await self._deleting.run(self._delete(tenant, response_id))

    async def _delete(self, tenant: str, response_id: ResponseId) -> bool:
        deleted = await self._store.delete(tenant, response_id, self._clock())
        deleted = deleted or self._deletions.is_owed(tenant, response_id)
        if deleted or self._parents.cache.peek_stored(tenant, response_id) is not None:
            self._parents.note_deletion()
            self._parents.eviction.forget(tenant, [response_id])
        await self._deletions.deleted(tenant, [response_id])  # who deleted it before may have died before it told
        return deleted
