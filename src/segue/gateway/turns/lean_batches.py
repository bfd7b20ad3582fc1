"""The lean stream of a turn for one reader: what leaves when.

A model says a few characters at a time, and each event of its own costs more than they do. So text is held for a short
while, and what came by then leaves as one event. The first piece after a pause leaves at once, and so does everything
that is no text, with the text before it: a turn ends no later than without this. A task reads the turn's events while
text is held. It never reads more than one batch ahead of a reader that is slow. Not here: what is left out
(`segue.protocol.lean_stream`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from segue.protocol.events import Event
from segue.protocol.lean_stream import LeanStream

#: How long text is held. The events of a slow model (30 tokens a second) then have about 30 characters each.
HOLD_S = 0.2
#: How much text is held at most, in characters; only a reader that is slow lets it grow so far.
_MAX_HELD = 16 * 1024


async def lean_batches(
    batches: AsyncGenerator[Sequence[Event], None], *, hold_s: float = HOLD_S
) -> AsyncGenerator[Sequence[Event], None]:
    """Yield a turn's events lean, in batches that belong into one write. Closing it closes `batches`."""
    reader = _LeanReader(batches, hold_s)
    try:
        while events := await reader.read():
            yield events
    finally:
        await reader.aclose()


class _LeanReader:
    """Reads a turn's events in a task of its own, and hands out what is due."""

    def __init__(self, batches: AsyncGenerator[Sequence[Event], None], hold_s: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._hold_s = hold_s
        self._stream = LeanStream()
        self._ready: list[Event] = []
        self._due_at = 0.0  # when text may leave again
        self._news = asyncio.Event()
        self._taken = asyncio.Event()
        self._task = self._loop.create_task(self._pump(batches))
        self._task.add_done_callback(lambda _: self._news.set())

    async def read(self) -> list[Event]:
        """Wait for what is due and return it; nothing once the turn is over. Raises what the turn raises."""
        while True:
            events = self._take()
            if events:
                return events
            if self._task.done():
                self._task.result()
                return []
            self._news.clear()
            try:
                async with asyncio.timeout_at(self._due_at if self._stream.held else None):
                    await self._news.wait()
            except TimeoutError:
                pass  # the text that is held is due

    async def aclose(self) -> None:
        """Stop the turn, unless it is over."""
        self._task.cancel()
        await asyncio.wait([self._task])
        if not self._task.cancelled():
            self._task.exception()  # it was raised to the reader, or comes too late

    def _take(self) -> list[Event]:
        """Return what is to leave now, and let the task go on."""
        now = self._loop.time()
        events, self._ready = self._ready, []
        if self._stream.held and (now >= self._due_at or self._task.done()):
            events += self._stream.flush()
            self._due_at = now + self._hold_s
        self._taken.set()
        return events

    async def _pump(self, batches: AsyncGenerator[Sequence[Event], None]) -> None:
        async with aclosing(batches):
            async for batch in batches:
                quiet = self._stream.held
                self._ready += self._stream.feed(batch)
                if self._stream.held > _MAX_HELD:
                    self._ready += self._stream.flush()
                if self._ready or not quiet:
                    self._news.set()
                if self._ready:
                    self._taken.clear()
                    await self._taken.wait()
