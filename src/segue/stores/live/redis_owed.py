"""What Redis has not heard yet, and is to hear as soon as it is back. Not here: what that is.

A call that failed may have been carried out, so what is owed must be safe to repeat.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final

from segue.stores.live.interface import LiveUnavailable

#: How many calls are remembered while Redis is away, and how often they are tried.
_MOST_OWED: Final = 10_000
_AGAIN_S: Final = 0.25

Call = Callable[[], Awaitable[object]]


class OwedCalls:
    """Calls that are made until Redis has answered them, in their order. Of very many, the oldest are given up."""

    def __init__(self) -> None:
        self._calls: deque[Call] = deque(maxlen=_MOST_OWED)
        self._paying: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._calls)

    async def make_or_owe(self, call: Call) -> None:
        """Make a call, now or as soon as Redis is back; also if who waits for it is cancelled."""
        try:
            await call()
        except LiveUnavailable:
            self.owe(call)
        except asyncio.CancelledError:
            self.owe(call)  # nobody knows whether it was made
            raise

    def owe(self, call: Call) -> None:
        """Make a call as soon as Redis is back."""
        self._calls.append(call)
        if self._paying is None:
            self._paying = asyncio.get_running_loop().create_task(self._pay())

    async def aclose(self) -> None:
        """Leave what is owed to expire."""
        if self._paying is not None:
            self._paying.cancel()
            await asyncio.gather(self._paying, return_exceptions=True)

    async def _pay(self) -> None:
        while self._calls:
            call = self._calls[0]
            try:
                await call()
            except LiveUnavailable:
                await asyncio.sleep(_AGAIN_S)
            else:
                if self._calls and self._calls[0] is call:
                    self._calls.popleft()
        self._paying = None
