"""Several equal attempts, each begun when those before have not ended in time; the first to end counts.

TCP repeats the first packet of a connection after 1, 3 and 7 seconds (RFC 6298, 5.5). After an outage that was long
enough, a new connection is there before one that was begun in it. Not here: what is attempted (`connector`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

#: Another attempt is begun after this time.
INTERVAL_S = 1.0
#: So many go on at a time: the first one, since a path may be that slow, and the newest.
MOST = 4


async def first_of(begin: Callable[[], Coroutine[Any, Any, T]], discard: Callable[[T], None]) -> T:
    """Return what the first attempt gives that ends; raise what it raises. Others that succeed too are discarded."""
    attempts: list[asyncio.Task[T]] = []
    dropped: list[asyncio.Task[T]] = []
    try:
        while True:
            attempts.append(asyncio.get_running_loop().create_task(begin()))
            if len(attempts) > MOST:
                dropped.append(attempts.pop(1))
                dropped[-1].cancel()
            done, _ = await asyncio.wait(attempts, timeout=INTERVAL_S, return_when=asyncio.FIRST_COMPLETED)
            if done:
                first = next(attempt for attempt in attempts if attempt in done)
                attempts.remove(first)
                return first.result()
    finally:
        others = (*attempts, *dropped)
        for other in others:
            other.cancel()
        for ended in await asyncio.gather(*others, return_exceptions=True):
            if not isinstance(ended, BaseException):
                discard(ended)
