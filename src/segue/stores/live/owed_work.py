"""What the other nodes are still to hear, and hear as soon as Redis is back. Not here: what that is.

What failed may have been done, so it must be safe to do again.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from typing import Final, Generic, TypeVar

from segue.stores.live.interface import LiveUnavailable

_log = logging.getLogger("segue.live")

T = TypeVar("T")

#: How much is remembered while Redis is away, and how often it is tried.
_MOST_OWED: Final = 10_000
_AGAIN_S: Final = 0.25
#: How often what fails for another reason is tried, and logged.
_FAILED_AGAIN_S: Final = 5.0


class OwedWork(Generic[T]):
    """Work that `do` is called for until it succeeds, in the order of its coming. Of very much, the oldest is given up.

    `do` raises `LiveUnavailable` if it has to be tried again. After any other error, which is logged,
    the rest comes first.
    """

    def __init__(self, do: Callable[[T], Awaitable[object]]) -> None:
        self._do = do
        self._owed: deque[T] = deque(maxlen=_MOST_OWED)
        self._paying: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._owed)

    def __iter__(self) -> Iterator[T]:
        return iter(self._owed)

    async def do_or_owe(self, work: T) -> bool:
        """Do it, now or as soon as Redis is back, also if who waits is cancelled; return whether it was done now."""
        try:
            await self._do(work)
        except LiveUnavailable:
            self.owe(work)
            return False
        except asyncio.CancelledError:
            self.owe(work)  # nobody knows whether it was done
            raise
        return True

    def owe(self, work: T) -> None:
        """Do it as soon as Redis is back."""
        self._owed.append(work)
        if self._paying is None:
            self._paying = asyncio.get_running_loop().create_task(self._pay())

    async def aclose(self) -> None:
        """Leave what is owed undone."""
        if self._paying is not None:
            self._paying.cancel()
            await asyncio.gather(self._paying, return_exceptions=True)

    async def _pay(self) -> None:
        failed = 0  # one after the other
        while self._owed:
            work = self._owed[0]
            try:
                await self._do(work)
            except LiveUnavailable:
                await asyncio.sleep(_AGAIN_S)
            except Exception as error:  # noqa: BLE001 - what may never succeed must not keep back the rest
                _log.error("action=owed error=%s", type(error).__name__)
                self._owed.rotate(-1)
                failed += 1
                if failed >= len(self._owed):
                    failed = 0
                    await asyncio.sleep(_FAILED_AGAIN_S)
            else:
                failed = 0
                if self._owed and self._owed[0] is work:  # else it was given up meanwhile
                    self._owed.popleft()
        self._paying = None
