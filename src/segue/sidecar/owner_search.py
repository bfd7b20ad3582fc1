"""Whether a session passes a node by, to meet the one that has its exchanges.

Behind a balancer a link may lead to another node than the last one did. That node has none of the exchanges under way,
and those that may have been forwarded would be lost there. So the sidecar asks again, which may lead to the right one;
but not for long, since that one may be gone. Pure: the time is passed in. Not here: the addresses at which nodes are
looked for (`segue.sidecar.gateway_addresses`), and when (`segue.sidecar.link_search`).
"""

from __future__ import annotations

#: A session with exchanges under way looks for so long only where the node is that has them.
OWNER_ONLY_S = 3.0
#: So many nodes are passed by at most, and for so long from the first one on.
MOST_PASSED, PASSING_S = 16, 3.0
#: Between two of them is a random time of at most so long.
PAUSE_S = 0.2


class OwnerSearch:
    """The search of one session for the node that has its exchanges."""

    def __init__(self) -> None:
        self._passed = 0
        self._began_at = 0.0

    def passes_by(self, met: str, owner: str, now: float) -> bool:
        """Tell whether to give up a link to a node, by its epoch in hexadecimal, since it is not the owner."""
        if met in ("", owner):  # earlier gateways do not say who they are
            return False
        if not self._passed:
            self._began_at = now
        if self._passed >= MOST_PASSED or now >= self._began_at + PASSING_S:
            return False
        self._passed += 1
        return True

    def note_up(self) -> None:
        """Note that a link is there: to the owner, or to a node that was not passed by."""
        self._passed = 0
