"""What users of the nodes do again and again beside a test, until it has seen enough. Not here: what they do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager


@asynccontextmanager
async def repeated(deeds: Iterable[Callable[[], Awaitable[None]]]) -> AsyncIterator[list[asyncio.Task[None]]]:
    """Do each of these again and again around a block; at its end each is finished, and if it fails, cancelled."""
    stop = asyncio.Event()
    running = [asyncio.create_task(_repeat(deed, stop)) for deed in deeds]
    try:
        yield running
        stop.set()
        await asyncio.gather(*running)
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def _repeat(deed: Callable[[], Awaitable[None]], stop: asyncio.Event) -> None:
    while not stop.is_set():
        await deed()
