"""The clock of the running event loop, set forward: what waits for a time waits no longer, and nobody has to sleep.

A deadline that a test lets go by can so be long, and ends nothing else before, however slow the machine is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import pytest

Made = TypeVar("Made")

#: How far the clock is set at once while something is hurried. What takes part in it waits for longer than that.
STEP_S = 0.5


class LoopClock:
    """Sets the clock of the event loop that runs. It does not move by itself what counts by another clock."""

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
        self._stopped_at = self._told()
        yield
        self._ahead_s -= self._told() - self._stopped_at
        self._stopped_at = None

    async def outlast(self, waiting: Awaitable[Made], seconds: float, *, after: Awaitable[object]) -> Made:
        """Return what comes of something that gives up in so many seconds: they go by once `after` is done."""
        task = asyncio.ensure_future(waiting)
        await after
        self.forward(seconds)
        return await task

    async def hurry(self, waiting: Awaitable[Made]) -> Made:
        """Return what comes of something that waits for nothing but time."""
        task = asyncio.ensure_future(waiting)
        while not task.done():
            self.forward(STEP_S)
            await asyncio.sleep(0.001)  # so that what is on its way comes in
        return await task

    def _time(self) -> float:
        now = self._told() if self._stopped_at is None else self._stopped_at
        return now + self._ahead_s
