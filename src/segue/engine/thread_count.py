"""How many threads compute a step: all, or one fewer while other processes want the processors. Pure.

A token of an answer takes over a thousand small operations, and all threads wait for each other after each. If one of
them has no processor, all the others wait, many times as long as one fewer would have taken. It shows: a thread that
waits is not on a processor, so a step takes much longer than the processor time of the thread that leads it. Then one
thread fewer computes the next steps, and after a while all try it again. A prompt has large operations, which lose
less, and is always computed by all. Not here: how the threads wait (`openmp`), and who measures (`worker`).
"""

from __future__ import annotations

#: A step of more tokens than this has large operations.
_FEW_TOKENS = 8
#: A step that takes so many times the processor time of its thread has waited for others.
_WAITED = 1.6
#: Steps of one thread fewer after the first that waited, and at most; each further one doubles them.
_FIRST_STEPS, _MOST_STEPS = 8, 256


class ThreadCount:
    """The count for one model, of `threads` at most."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._left = 0  # steps of one thread fewer
        self._steps = _FIRST_STEPS  # how many there are the next time

    def of_step(self, tokens: int) -> int:
        """Return how many threads compute a step of so many tokens."""
        return max(1, self._threads - 1) if tokens <= _FEW_TOKENS and self._left else self._threads

    def computed(self, tokens: int, *, wall_s: float, processor_s: float) -> None:
        """Note how long a step took, and how long its thread was on a processor."""
        if tokens > _FEW_TOKENS:
            return
        if self._left:
            self._left -= 1
        elif wall_s > _WAITED * processor_s:
            self._left = self._steps
            self._steps = min(_MOST_STEPS, 2 * self._steps)
        else:
            self._steps = max(_FIRST_STEPS, self._steps // 2)
