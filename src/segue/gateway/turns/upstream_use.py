"""Which upstreams have turns under way: one that was replaced is closed when its last turn is over.

Not here: which upstreams there are (`segue.upstreams.router`), and replacing them (`app`).
"""

from __future__ import annotations

import asyncio

from segue.upstreams.interface import Upstream


class UpstreamUse:
    """Counts the turns on each upstream."""

    def __init__(self) -> None:
        self._turns: dict[Upstream, int] = {}
        self._idle: dict[Upstream, asyncio.Event] = {}

    def begin(self, upstream: Upstream) -> None:
        """Count a turn that begins."""
        self._turns[upstream] = self._turns.get(upstream, 0) + 1

    def end(self, upstream: Upstream) -> None:
        """Count a turn that is over."""
        left = self._turns.pop(upstream) - 1
        if left:
            self._turns[upstream] = left
        elif upstream in self._idle:
            self._idle.pop(upstream).set()

    async def until_idle(self, upstream: Upstream) -> None:
        """Wait until no turn is on an upstream that no further turn can find."""
        if upstream in self._turns:
            await self._idle.setdefault(upstream, asyncio.Event()).wait()
