"""Deletions that every node is told of before they are confirmed: what one has deleted, none shows from memory.

A notice that could not be sent, or was not confirmed, is owed: it is sent again until it is. Not here: deleting
anything, and what the other nodes do (`node_notices`).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Final

from segue.protocol.ids import ResponseId
from segue.protocol.problems import Problem, Refused, live_away
from segue.stores.live.interface import LiveUnavailable, Nodes, Notice

#: So many ids travel in one notice.
_IDS: Final = 500
#: How often it is tried to send what is owed, and how much is owed at most: of more, the oldest are given up.
_AGAIN_S: Final = 0.5
_MOST_OWED: Final = 10_000


class NodeDeletions:
    """Tells the nodes what is deleted here."""

    def __init__(self, nodes: Nodes) -> None:
        self._nodes = nodes
        self._owed: deque[Notice] = deque(maxlen=_MOST_OWED)
        self._paying: asyncio.Task[None] | None = None

    def check(self) -> None:
        """Refuse a deletion that could not be confirmed, before anything is deleted."""
        if not self._nodes.held:
            raise Refused(live_away())

    async def deleted(self, tenant: str, response_ids: Sequence[ResponseId]) -> None:
        """Return when no node shows these responses any more. Raises `Refused` if that cannot be confirmed now."""
        for start in range(0, len(response_ids), _IDS):
            await self.tell(Notice("deleted", tenant, tuple(response_ids[start : start + _IDS])))

    async def tell(self, notice: Notice) -> None:
        """Tell every node, and return when each has acted. Raises `Refused` if that cannot be confirmed now."""
        try:
            await self._nodes.tell(notice)
        except LiveUnavailable:
            self._owed.append(notice)
            if self._paying is None:
                self._paying = asyncio.get_running_loop().create_task(self._pay())
            raise Refused(_not_confirmed()) from None

    def is_owed(self, tenant: str, response_id: ResponseId) -> bool:
        """Say whether a response was deleted here, and not every node has confirmed that yet."""
        return any(notice.tenant == tenant and response_id in notice.ids for notice in self._owed)

    async def aclose(self) -> None:
        """Send nothing more. The lease of this node ends, and what it deleted is not in the store."""
        if self._paying is not None:
            self._paying.cancel()
            await asyncio.gather(self._paying, return_exceptions=True)

    async def _pay(self) -> None:
        while self._owed:
            notice = self._owed[0]
            try:
                await self._nodes.tell(notice)
            except LiveUnavailable:
                await asyncio.sleep(_AGAIN_S)
            else:
                if self._owed and self._owed[0] is notice:
                    self._owed.popleft()
        self._paying = None


def _not_confirmed() -> Problem:
    message = "It is deleted, but not every gateway has confirmed that. Send the request again to know."
    return Problem("store_error", message)
