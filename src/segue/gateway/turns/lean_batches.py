"""The lean stream of a turn for one reader: what leaves when.

A model says a few characters at a time, and each event of its own costs more than they do. So text is held for a short
while, twice as long if it is very little, and what came by then leaves as one event. The first piece after a pause
leaves at once, and so does everything that is no text, with the text before it: a turn ends no later than without this.
A task reads the turn's events while text is held. It never reads more than one batch ahead of a reader that is slow.
Not here: what is left out (`segue.protocol.lean_stream`).
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from segue.protocol.compact_events import CompactWriter
from segue.protocol.events import Event
from segue.protocol.lean_stream import LeanStream
from segue.protocol.requests import StreamForm

#: How long text is held: a model that says 60 tokens a second has then said about 50 characters.
HOLD_S = 0.2
#: Text with fewer characters than this is held for twice as long: what is around it costs more.
_FEW = 32
_LONG_AGO = -math.inf
#: How much text is held at most, in characters; only a reader that is slow lets it grow so far.
_MAX_HELD = 16 * 1024


async def lean_batches(
    batches: AsyncGenerator[Sequence[Event], None], *, form: StreamForm = "lean", hold_s: float = HOLD_S
) -> AsyncGenerator[Sequence[Event], None]:
    """Yield a turn's events lean, in batches that belong into one write. Closing it closes `batches`."""
    stream = LeanStream(CompactWriter() if form == "compact" else None)
    reader = _LeanReader(batches, stream, hold_s)
    try:
        while events := await reader.read():
            yield events
    finally:
        await reader.aclose()


class _LeanReader:
    """Reads a turn's events in a task of its own, and hands out what is due."""

    def __init__(self, batches: AsyncGenerator[Sequence[Event], None], stream: LeanStream, hold_s: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._hold_s = hold_s
        self._stream = stream
        self._ready: list[Event] = []
        self._left_at = _LONG_AGO  # when text has left last
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
                async with asyncio.timeout_at(self._due_at() if self._stream.held else None):
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
        if self._stream.held and (now >= self._due_at() or self._task.done()):
            events += self._stream.flush()
            self._left_at = now
        self._taken.set()
        return events

    def _due_at(self) -> float:
        """Return when the text that is held leaves."""
        return self._left_at + (self._hold_s if self._stream.held >= _FEW else 2 * self._hold_s)

    async def _pump(self, batches: AsyncGenerator[Sequence[Event], None]) -> None:
        async with aclosing(batches):
            async for batch in batches:
                before = self._stream.held
                self._ready += self._stream.feed(batch)
                if self._stream.held > _MAX_HELD:
                    self._ready += self._stream.flush()
                if self._ready or not before or before < _FEW <= self._stream.held:  # it is due at another time
                    self._news.set()
                if self._ready:
                    self._taken.clear()
                    await self._taken.wait()
