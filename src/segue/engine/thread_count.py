"""How many threads compute a step: all, or fewer while that is faster. Pure.

A step takes over a thousand operations, and all threads wait for each other after each. If one has no processor, the
others wait, and a step takes many times as long as fewer threads would have taken. That shows: threads that compute, or
turn in a loop while they wait, use all processors that they have. So the processor time of a step, divided by its time,
is how many there were. That of a single step says little: who reads the answer needs a processor too, and threads that
have slept may wake on the same one. If for a while there were clearly fewer than threads, only so many compute the next
steps.

That is a guess, and the next steps show whether it was right: steps of about as many tokens are compared, and only
such steps are computed by fewer threads. If they are not faster, all of them compute again and go on, though they wait:
threads that sleep for a moment look the same, and cost nothing. After some time either is tried again. Not here: how
the threads wait (`openmp`), and who measures (`model`).
"""

from __future__ import annotations

from math import exp

#: With a smaller part of the processors that its threads need, a step may take longer than with fewer threads.
_ENOUGH = 0.75
#: Fewer threads are worth it if a step takes at most this part of the time.
_WORTH = 0.9
#: Steps that are longer ago than this hardly count; and one counts as this long at most, so that it takes two.
_RECENT_S, _LONGEST_STEP_S = 0.2, 0.1
#: How long fewer threads compute after all have waited, and at most; each further time that it was worth it doubles it.
_FIRST_S, _LONGEST_S = 0.25, 8.0
#: All of them have tried it for longer than this, if they did not wait at once.
_AGAIN_S = 1.0
#: How long the time of a step is remembered: the machine's other work changes.
_REMEMBERED_S = 8.0


class ThreadCount:
    """The count for one model, of `threads` at most."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._now, self._had = threads, float(threads)
        """How many compute, and how many processors they had, lately."""
        self._held_s = _FIRST_S / 2  # the last time; doubled before it is used
        self._held_until, self._held_size = 0.0, 0
        self._was_worth_it = False
        self._times: dict[tuple[int, int], tuple[float, float]] = {}
        """By threads and size of a step: how many seconds one takes, lately, and when the last one ended."""

    def begin(self, now: float, tokens: int) -> int:
        """Return how many threads compute the step of so many tokens that begins now."""
        if self._now < self._threads and (now >= self._held_until or tokens.bit_length() != self._held_size):
            self._compute_with(self._threads)
        return self._now

    def end(self, now: float, *, tokens: int, time_s: float, processor_s: float) -> None:
        """Note how long the step of so many tokens took that ends now, and the processor time of the process."""
        size = tokens.bit_length()  # steps of about as many tokens take about as long
        self._note(now, size, time_s)
        if self._now < self._threads:
            faster = self._is_faster(self._now, self._threads, size, now)
            if faster is False:
                self._now = self._threads
                return
            self._was_worth_it = self._was_worth_it or faster is True
        had = processor_s / time_s if time_s > 0 else self._now
        self._had += (had - self._had) * (1 - exp(-min(time_s, _LONGEST_STEP_S) / _RECENT_S))
        if self._now == 1 or self._had >= _ENOUGH * self._now:
            return
        fewer = max(1, min(self._now - 1, int(self._had)))
        if self._is_faster(fewer, self._now, size, now) is not False:
            self._hold(fewer, now, now - time_s, size)

    def _note(self, now: float, size: int, time_s: float) -> None:
        last_s, at = self._times.get((self._now, size), (time_s, now))
        recent_s = (last_s + time_s) / 2 if now - at <= _REMEMBERED_S else time_s
        self._times[self._now, size] = recent_s, now

    def _is_faster(self, threads: int, others: int, size: int, now: float) -> bool | None:
        """Tell whether so many threads compute a step clearly faster than others; None: who knows."""
        (one_s, one_at), (other_s, other_at) = (self._times.get((n, size), (0.0, 0.0)) for n in (threads, others))
        if not one_s or not other_s or now - min(one_at, other_at) > _REMEMBERED_S:
            return None
        return one_s <= _WORTH * other_s

    def _hold(self, fewer: int, now: float, began_at: float, size: int) -> None:
        """Let fewer threads compute; for longer than the last time if that was worth it, and not much longer ago."""
        if self._now == self._threads:
            again = self._was_worth_it and began_at < self._held_until + self._held_s + _AGAIN_S
            self._held_s = min(_LONGEST_S, 2 * self._held_s) if again else _FIRST_S
            self._was_worth_it = False
        self._held_until, self._held_size = now + self._held_s, size
        self._times.pop((fewer, size), None)  # what they take beside the other work of now
        self._compute_with(fewer)

    def _compute_with(self, threads: int) -> None:
        self._now, self._had = threads, float(threads)
