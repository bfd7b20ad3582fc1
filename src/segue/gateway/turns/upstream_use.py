"""Which upstreams have turns under way: one that was replaced is closed when its last turn is over.

Not here: which upstreams there are (`segue.upstreams.router`), and replacing them (`app`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from segue.upstreams.interface import Upstream


class UpstreamUse:
    """Counts the turns on each upstream."""

    def __init__(self) -> None:
        self._turns: dict[Upstream, int] = {}
        self._idle: dict[Upstream, asyncio.Event] = {}

    def begin(self, upstreams: Iterable[Upstream]) -> None:
        """Count a turn that begins, on each upstream that it may reach."""
        for upstream in upstreams:
            self._turns[upstream] = self._turns.get(upstream, 0) + 1

    def end(self, upstreams: Iterable[Upstream]) -> None:
        """Count a turn that is over."""
        for upstream in upstreams:
            left = self._turns.pop(upstream) - 1
            if left:
                self._turns[upstream] = left
            elif upstream in self._idle:
                self._idle.pop(upstream).set()

    async def until_idle(self, upstream: Upstream) -> None:
        """Wait until no turn is on an upstream that no further turn can find."""
        if upstream in self._turns:
            await self._idle.setdefault(upstream, asyncio.Event()).wait()
