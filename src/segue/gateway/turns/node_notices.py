"""What a node does about what another node tells it: it forgets what was deleted there, and stops what is to stop.

Not here: how nodes tell each other (`segue.stores.live`), and deleting anything from the store.
"""

from __future__ import annotations

import asyncio
from typing import Final, assert_never

from segue.gateway.turns.background import BackgroundResponses
from segue.gateway.turns.erasure import Erasure
from segue.gateway.turns.executor import Executor
from segue.protocol.ids import ResponseId
from segue.stores.live.interface import Notice

#: How long the end of a turn is waited for: the node's lease is not renewed meanwhile.
_END_S: Final = 2.0


class NodeNotices:
    """Acts on the notices of other nodes."""

    def __init__(self, executor: Executor, background: BackgroundResponses, erasure: Erasure) -> None:
        self._executor = executor
        self._background = background
        self._erasure = erasure

    async def act(self, notice: Notice) -> None:
        """Act on a notice; when this returns, nothing here can be found any more that was deleted."""
        executor, tenant = self._executor, notice.tenant
        ids = [ResponseId(one) for one in notice.ids]
        match notice.kind:
            case "deleted":
                executor.parents.note_deletion()
                executor.eviction.forget(tenant, [one for one in ids if not self._is_unstored(tenant, one)])
                await self._background.drop_events(tenant, ids)
            case "erased":
                await self._erasure.forget_here(tenant)
            case "forgotten":
                for one in ids:
                    await self._forget(tenant, one)
            case "cancelled":
                for one in ids:
                    await asyncio.wait([asyncio.ensure_future(self._background.cancel(tenant, one))], timeout=_END_S)
                    await asyncio.wait([asyncio.ensure_future(self._background.settled(tenant, one))], timeout=_END_S)
            case _:
                assert_never(notice.kind)

    def _is_unstored(self, tenant: str, response_id: ResponseId) -> bool:
        """Say whether a response lives on connections here alone: then a deletion somewhere has found nothing."""
        cache = self._executor.cache
        return cache.has_turn(tenant, response_id) and cache.peek_stored(tenant, response_id) is None

    async def _forget(self, tenant: str, response_id: ResponseId) -> None:
        """Stop a turn and forget it; one whose record is being written at a slow store is deleted after that."""
        self._background.delete_when_stored(tenant, response_id)
        forgetting = asyncio.ensure_future(self._background.forget(tenant, response_id))
        await asyncio.wait([forgetting], timeout=_END_S)
