"""Time slices for a thread beside the event loop: it works for one slice, and then lets the loop go round once.

Both need the interpreter, and only one of them has it. A thread that computes takes it back for a whole switch interval
each time the loop has to wait for a system call, so that a loop with many small things to do hardly moves. With slices,
all that is ready in the loop is done before the thread goes on. Where nothing is ready, that costs the thread a few per
cent. Not here: what is done in a thread, and how many there are.
"""

from __future__ import annotations

import asyncio
import threading
import time

#: How long a thread works at a time. A turn takes some rounds of the loop, and waits so long in each at most.
SLICE_S = 0.001
#: A loop that takes longer is stopping.
_ROUND_S = 1.0


class TimeSlices:
    """The slices of one piece of work beside a loop. The thread calls `pause` as often as it can."""

    def __init__(self, loop: asyncio.AbstractEventLoop, slice_s: float = SLICE_S) -> None:
        self._loop = loop
        self._slice_s = slice_s
        self._ends_at = 0.0

    def pause(self) -> None:
        """Go on at once within a slice; at its end, when the loop has done what is ready."""
        if time.perf_counter() < self._ends_at:
            return
        round_over = threading.Event()
        try:
            self._loop.call_soon_threadsafe(round_over.set)
        except RuntimeError:  # the loop is closed: nobody is held up
            return
        round_over.wait(_ROUND_S)
        self._ends_at = time.perf_counter() + self._slice_s
