"""How long a gateway has had nothing to do. Pure: the caller passes the time in, and says whether there is something.

Not here: what counts as something to do (`segue.gateway.app`), and what follows (`segue.cli.ssh_gateway`).
"""

from __future__ import annotations


class IdleTimer:
    """Says when a gateway has been idle for `limit_s`, counted from when it was first seen idle."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._idle_since: float | None = None

    @property
    def interval_s(self) -> float:
        """How often to look: often enough that the limit is exceeded by little."""
        return min(30.0, self._limit_s / 10)

    def is_over(self, now: float, *, idle: bool) -> bool:
        """Note whether the gateway is idle now, and tell whether it has been for too long."""
        if not idle:
            self._idle_since = None
            return False
        if self._idle_since is None:
            self._idle_since = now
        return now - self._idle_since >= self._limit_s
