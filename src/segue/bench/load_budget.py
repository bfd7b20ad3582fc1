"""How many measurements may run at the same time: those that mostly wait share the machine, busy ones run alone.

    budget = LoadBudget(800.0)
    async with budget.take(155 / 2.0):      events a second that this one will cause
        ...

Whoever asks first is served first. One that asks for more than there is runs alone. Not here: what is measured.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

#: What is left of sums of floats must not keep the last one waiting.
_ROUNDING = 1 + 1e-9


class LoadBudget:
    """A load that is shared. Its unit is the caller's."""

    def __init__(self, most: float) -> None:
        self._most = most
        self._used = 0.0
        self._waiting: deque[tuple[float, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def take(self, load: float) -> AsyncIterator[None]:
        """Wait until there is room, and take it around a block."""
        wanted = min(load, self._most)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((wanted, turn))
        self._admit()
        try:
            await turn
        except asyncio.CancelledError:
            self._leave(wanted, turn)
            raise
        try:
            yield
        finally:
            self._used -= wanted
            self._admit()

    def _leave(self, wanted: float, turn: asyncio.Future[None]) -> None:
        """Give up waiting: with the place that was given at the same moment, or without one."""
        if turn.cancelled():
            self._waiting = deque(one for one in self._waiting if one[1] is not turn)
        else:
            self._used -= wanted
        self._admit()

    def _admit(self) -> None:
        while self._waiting:
            wanted, turn = self._waiting[0]
            if not turn.cancelled() and self._used + wanted > self._most * _ROUNDING:
                return
            self._waiting.popleft()
            if not turn.cancelled():
                self._used += wanted
                turn.set_result(None)
