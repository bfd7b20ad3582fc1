"""How many threads compute a step: all, or fewer while other processes have processors. Pure.

A step takes over a thousand operations, and all threads wait for each other after each. If one has no processor, the
others wait, and a step takes many times as long as fewer threads would have taken. That shows: threads that compute, or
turn in a loop while they wait, use all processors that they have. So the processor time of a step, divided by its time,
is how many there were. If there were clearly fewer than threads, only so many compute the next steps. After a while all
of them try it again. Not here: how the threads wait (`openmp`), and who measures (`model`).
"""

from __future__ import annotations

#: With a smaller part of the processors that its threads need, a step has waited for other processes.
_ENOUGH = 0.8
#: How long fewer threads compute after the first step that waited, and at most; each further one doubles it.
_FIRST_S, _LONGEST_S = 0.25, 8.0


class ThreadCount:
    """The count for one model, of `threads` at most."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._hold_s = _FIRST_S / 2  # doubled before it is used
        self._left_s = 0.0  # of the present hold
        #: How many threads compute the next step.
        self.now = threads

    def computed(self, *, time_s: float, processor_s: float) -> None:
        """Note how long a step took, and the processor time of the process meanwhile, all threads together."""
        self._left_s -= time_s
        had = processor_s / time_s if time_s > 0 else self.now
        if self.now > 1 and had < _ENOUGH * self.now:
            self._hold_s = min(_LONGEST_S, 2 * self._hold_s) if self.now == self._threads else self._hold_s
            self._left_s = self._hold_s
            self.now = max(1, min(self.now - 1, int(had)))
        elif self.now == self._threads:
            self._hold_s = max(_FIRST_S / 2, self._hold_s / 2)
        elif self._left_s <= 0:
            self.now = self._threads
