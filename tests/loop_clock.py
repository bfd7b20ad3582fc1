"""The clock of the running event loop, which a test sets forward: the deadlines that it lets go by are long.

So they end nothing before the test says so, however slow the machine is, and nobody waits for them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import pytest

Made = TypeVar("Made")

#: How far the clock is set at once while something is hurried: less than any deadline that is not to end it.
STEP_S = 0.5


class LoopClock:
    """Sets the clock of the event loop that runs. Make it first: whoever has taken `loop.time` already keeps that."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        loop = asyncio.get_running_loop()
        self._told = loop.time
        self._ahead_s = 0.0
        self._stopped_at: float | None = None
        monkeypatch.setattr(loop, "time", self._time)

    def forward(self, seconds: float) -> None:
        """Set it forward: deadlines within that time are over in the next round of the loop."""
        self._ahead_s += seconds

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Let no time go by, however long what is done here takes: nothing is over before it is set forward."""
        self._stopped_at = began_at = self._told()
        try:
            yield
        finally:
            self._stopped_at = None
            self._ahead_s -= self._told() - began_at

    async def outlast(self, waiting: Awaitable[Made], seconds: float, *, after: Awaitable[object]) -> Made:
        """Return what comes of something that gives up in so many seconds: they go by once `after` is done."""
        task = asyncio.ensure_future(waiting)
        await after
        self.forward(seconds)
        return await task

    async def hurry(self, waiting: Awaitable[Made]) -> Made:
        """Return what comes of something that waits for nothing but time, which goes by quickly."""
        task = asyncio.ensure_future(waiting)
        while not task.done():
            self.forward(STEP_S)
            await asyncio.sleep(0.001)  # so that what is on its way comes in
        return await task

    def _time(self) -> float:
        now = self._told() if self._stopped_at is None else self._stopped_at
        return now + self._ahead_s
