"""Deletions that every node is told of before they are confirmed: what one has deleted, none shows from memory.

A notice that could not be sent, or was not confirmed, is owed: it is sent again until it is. Not here: deleting
anything, and what the other nodes do (`node_notices`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from segue.protocol.ids import ResponseId
from segue.protocol.problems import Problem, Refused, live_away
from segue.stores.live.interface import Nodes, Notice
from segue.stores.live.owed_work import OwedWork

#: So many ids travel in one notice.
_IDS: Final = 500


class NodeDeletions:
    """Tells the nodes what is deleted here."""

    def __init__(self, nodes: Nodes) -> None:
        self._nodes = nodes
        self._owed = OwedWork(nodes.tell)

    def check(self) -> None:
        """Refuse a deletion that could not be confirmed, before anything is deleted."""
        if not self._nodes.held:
            raise Refused(live_away())

    async def deleted(self, tenant: str, response_ids: Sequence[ResponseId]) -> None:
        """Return when no node shows these responses any more. Raises `Refused` if that cannot be confirmed now."""
        parts = [tuple(response_ids[start : start + _IDS]) for start in range(0, len(response_ids), _IDS)]
        notices = [Notice("deleted", tenant, part) for part in parts]
        for number, notice in enumerate(notices, 1):
            if not await self._owed.do_or_owe(notice):
                for later in notices[number:]:  # they wait for the same, and nobody else knows of them
                    self._owed.owe(later)
                raise Refused(_not_confirmed())

    async def tell(self, notice: Notice) -> None:
        """Tell every node, and return when each has acted. Raises `Refused` if that cannot be confirmed now."""
        if not await self._owed.do_or_owe(notice):
            raise Refused(_not_confirmed())

    def check_confirmed(self, tenant: str) -> None:
        """Refuse to say that what was deleted of a tenant is gone, as long as a node may still show some of it."""
        if any(notice.tenant == tenant for notice in self._owed):
            raise Refused(_not_confirmed())

    def is_owed(self, tenant: str, response_id: ResponseId) -> bool:
        """Say whether a response was deleted here, and not every node has confirmed that yet."""
        return any(notice.tenant == tenant and response_id in notice.ids for notice in self._owed)

    async def aclose(self) -> None:
        """Send nothing more. The lease of this node ends, and what it deleted is not in the store."""
        await self._owed.aclose()


def _not_confirmed() -> Problem:
    message = "It is deleted, but not every gateway has confirmed that. Send the request again to know."
    return Problem("store_error", message)
