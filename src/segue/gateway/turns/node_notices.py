"""What a node does about what another node tells it: it forgets what was deleted there.

Not here: how nodes tell each other (`segue.stores.live`), and deleting anything from the store.
"""

from __future__ import annotations

from segue.gateway.turns.executor import Executor
from segue.protocol.ids import ResponseId
from segue.stores.live.interface import Notice


class NodeNotices:
    """Acts on the notices of other nodes."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor

    async def act(self, notice: Notice) -> None:
        """Act on a notice; when this returns, nothing here can be found any more that was deleted."""
        executor = self._executor
        executor.parents.note_deletion()
        executor.eviction.forget(notice.tenant, [ResponseId(one) for one in notice.ids])
