"""Time slices for a thread beside the event loop: it works for one slice, and then lets the loop go round once.

Both need the interpreter, and only one of them has it. A thread that computes takes it back for a whole switch interval
each time the loop has to wait for a system call, so that a loop with many small things to do hardly moves. With slices,
all that is ready in the loop is done before the thread goes on. Where nothing is ready, that costs the thread a few per
cent.

A turn takes some rounds of the loop, and one slice before each would make it several times as long. So while the loop
has work, the thread also rests, the longer the more it has computed: it takes a quarter of the time, and the turns of
others the rest. It is measured by processor time, since some of the work is single calls that nothing interrupts. Not
here: what is done in a thread, and how many there are.
"""

from __future__ import annotations

import asyncio
import threading
import time

#: How long a thread works at a time. A turn takes some rounds of the loop, and waits so long in each at most.
SLICE_S = 0.001
#: A loop that takes longer is stopping.
_ROUND_S = 1.0
#: A round in which there is nothing to do is shorter, with what it takes to wake the loop and the thread.
_IDLE_ROUND_S = 0.0003
#: How long a thread rests for the time that it has computed, while the loop has work.
_RESTS = 3
#: It does not rest longer for one slice, so that each piece of work comes to its end.
MOST_REST_S = 0.1


def rest_s(computed_s: float, round_s: float) -> float:
    """Return how long to rest after a slice of so much processor time and a round of the loop of this length."""
    return min(_RESTS * computed_s, MOST_REST_S) if round_s > _IDLE_ROUND_S else 0.0


class TimeSlices:
    """The slices of one piece of work beside a loop. The thread calls `pause` as often as it can.

    Work that others wait for in their turns, as for the steps of a model, does not rest (`most_rest_s` is 0).
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, slice_s: float = SLICE_S, *, most_rest_s: float = MOST_REST_S
    ) -> None:
        self._loop = loop
        self._slice_s = slice_s
        self._most_rest_s = most_rest_s
        self._computed_s: float | None = None  # what the thread had computed when the slice began
        self._ends_at = 0.0

    def pause(self) -> None:
        """Go on at once within a slice; at its end, when the loop has done what is ready."""
        began = time.perf_counter()
        if began < self._ends_at:
            return
        round_over = threading.Event()
        try:
            self._loop.call_soon_threadsafe(round_over.set)
        except RuntimeError:  # the loop is closed: nobody is held up
            return
        round_over.wait(_ROUND_S)
        self._rest(time.perf_counter() - began)
        self._ends_at = time.perf_counter() + self._slice_s

    def _rest(self, round_s: float) -> None:
        computed_s = time.thread_time()
        if self._computed_s is not None:
            rest = min(rest_s(computed_s - self._computed_s, round_s), self._most_rest_s)
            if rest > 0:
                time.sleep(rest)
        self._computed_s = computed_s
