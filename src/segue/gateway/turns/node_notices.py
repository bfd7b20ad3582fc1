"""What a node does about what another node tells it: it forgets what was deleted there, and stops what is to stop.

Not here: how nodes tell each other (`segue.stores.live`), and deleting anything from the store.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, Final, assert_never

from segue.gateway.redacted_traceback import redacted_traceback
from segue.gateway.turns.background import BackgroundResponses
from segue.gateway.turns.erasure import Erasure
from segue.gateway.turns.executor import Executor
from segue.protocol.ids import ResponseId
from segue.stores.live.interface import Notice

_log = logging.getLogger("segue.gateway")

#: How long the end of a turn is waited for: the node's lease is not renewed meanwhile.
_END_S: Final = 2.0


class NodeNotices:
    """Acts on the notices of other nodes."""

    def __init__(self, executor: Executor, background: BackgroundResponses, erasure: Erasure) -> None:
        self._executor = executor
        self._background = background
        self._erasure = erasure
        self._late: set[asyncio.Task[None]] = set()  # what goes on after it was waited for

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
                    await self._wait_for(self._background.cancel(tenant, one, everywhere=False))
                    await self._wait_for(self._background.settled(tenant, one))
            case _:
                assert_never(notice.kind)

    def _is_unstored(self, tenant: str, response_id: ResponseId) -> bool:
        """Say whether a response lives on connections here alone: then a deletion somewhere has found nothing."""
        cache = self._executor.cache
        return cache.has_turn(tenant, response_id) and cache.peek_stored(tenant, response_id) is None

    async def _forget(self, tenant: str, response_id: ResponseId) -> None:
        """Stop a turn and forget it; one whose record is being written at a slow store is deleted after that."""
        self._background.delete_when_stored(tenant, response_id)
        await self._wait_for(self._background.forget_here(tenant, response_id))
        self._executor.eviction.forget(tenant, [response_id])

    async def _wait_for(self, work: Coroutine[Any, Any, None]) -> None:
        """Wait for something, but not for long; it goes on after that. Raises what goes wrong until then."""
        task = asyncio.ensure_future(work)
        ended, _ = await asyncio.wait([task], timeout=_END_S)
        if ended:
            task.result()
        else:
            self._late.add(task)
            task.add_done_callback(self._note_late)

    def _note_late(self, task: asyncio.Task[None]) -> None:
        self._late.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("action=notice error=%s", redacted_traceback(error))
