"""How many threads compute a step: all, or fewer while other processes have processors. Pure.

A step takes over a thousand operations, and all threads wait for each other after each. If one has no processor, the
others wait, and a step takes many times as long as fewer threads would have taken. That shows: threads that compute, or
turn in a loop while they wait, use all processors that they have. So the processor time of a step, divided by its time,
is how many there were. That of a single step says little: who reads the answer needs a processor too, and threads that
have slept may wake on the same one. If for a while there were clearly fewer than threads, only so many compute the next
steps. After some time all of them try it again. Not here: how the threads wait (`openmp`), and who measures (`model`).
"""

from __future__ import annotations

from math import exp

#: With a smaller part of the processors that its threads need, a step takes longer than with fewer threads.
_ENOUGH = 0.75
#: Steps that are longer ago than this hardly count; and one counts as this long at most, so that it takes two.
_RECENT_S, _LONGEST_STEP_S = 0.2, 0.1
#: How long fewer threads compute after all have waited, and at most; each further time doubles it.
_FIRST_S, _LONGEST_S = 0.25, 8.0
#: All of them have tried it for longer than this, if they did not wait at once.
_AGAIN_S = 1.0


class ThreadCount:
    """The count for one model, of `threads` at most."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._held_s = _FIRST_S / 2  # the last time; doubled before it is used
        self._held_until = 0.0
        self._compute_with(threads)

    def begin(self, now: float) -> int:
        """Return how many threads compute the step that begins now."""
        if self._now < self._threads and now >= self._held_until:
            self._compute_with(self._threads)
        return self._now

    def end(self, now: float, *, time_s: float, processor_s: float) -> None:
        """Note how long the step took that ends now, and the processor time of the process meanwhile."""
        had = processor_s / time_s if time_s > 0 else self._now
        self._had += (had - self._had) * (1 - exp(-min(time_s, _LONGEST_STEP_S) / _RECENT_S))
        if self._now == 1 or self._had >= _ENOUGH * self._now:
            return
        if self._now == self._threads:  # held for longer than the last time, if that was not much longer ago
            again = now - time_s < self._held_until + self._held_s + _AGAIN_S
            self._held_s = min(_LONGEST_S, 2 * self._held_s) if again else _FIRST_S
        self._held_until = now + self._held_s
        self._compute_with(max(1, min(self._now - 1, int(self._had))))

    def _compute_with(self, threads: int) -> None:
        self._now = threads
        self._had = float(threads)  # processors, lately
