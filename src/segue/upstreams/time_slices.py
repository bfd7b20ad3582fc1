"""Time slices for a thread beside the event loop: it works for one slice, and then lets the loop go round once.

Both need the interpreter, and only one of them has it. A thread that computes takes it back for a whole switch interval
each time the loop has to wait for a system call, so that a loop with many small things to do hardly moves. With slices,
all that is ready in the loop is done before the thread goes on. Where nothing is ready, that costs the thread a few per
cent.

A turn takes some rounds of the loop, and one slice before each would make it several times as long. So while the loop
has work, a thread also rests, the longer the more its tenant has computed: all threads of a tenant together take a
quarter of the time, and the turns of others the rest. It is measured by processor time, since some of the work is
single calls that nothing interrupts. Not here: what is done in a thread, and how many there are.
"""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Self

#: How long a thread works at a time. A turn takes some rounds of the loop, and waits so long in each at most.
SLICE_S = 0.001
#: A loop that takes longer is stopping.
_ROUND_S = 1.0
#: A round in which there is nothing to do is shorter, with what it takes to wake the loop and the thread.
_IDLE_ROUND_S = 0.0003
#: So many times what its threads have computed, a tenant has to wait, while the loop has work.
_SHARE = 4
#: A thread does not rest longer for one slice, so that each piece of work comes to its end.
MOST_REST_S = 0.25
#: Of more tenants it is looked for those that rest no longer.
_MANY = 64


class TimeAccounts:
    """Until when the threads of each tenant are to rest for what they have computed. Any thread may ask."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rests_until: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self._rests_until)

    def book(self, tenant: str, computed_s: float, now: float) -> float:
        """Note what a thread of a tenant has computed until now, and return how long it is to rest."""
        with self._lock:
            until = max(self._rests_until.get(tenant, 0.0), now - computed_s) + _SHARE * computed_s
            rest_s = min(max(0.0, until - now), MOST_REST_S)
            if len(self._rests_until) > _MANY:
                self._rests_until = {other: at for other, at in self._rests_until.items() if at > now}
            self._rests_until[tenant] = now + rest_s
        return rest_s


class TimeSlices:
    """The slices of one piece of work beside a loop: a thread does it within `with`, and calls `pause` when it can.

    Work that others wait for in their turns, as for the steps of a model, has no accounts, and does not rest.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        accounts: TimeAccounts | None = None,
        tenant: str = "",
        *,
        slice_s: float = SLICE_S,
    ) -> None:
        self._loop = loop
        self._accounts = accounts
        self._tenant = tenant
        self._slice_s = slice_s
        self._noted_s: float | None = None  # what the thread had computed when that was booked last
        self._ends_at = 0.0

    def __enter__(self) -> Self:
        """Begin when the loop has done what is ready, and the other threads of the tenant have had their rest."""
        self._noted_s = time.thread_time()
        self.pause()
        return self

    def __exit__(self, *raised: object) -> None:
        """Book what is left: the tenant's next piece of work rests for it."""
        self._book()

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
        ended = time.perf_counter()
        if ended - began > _IDLE_ROUND_S:
            rest_s = self._book()
            if rest_s > 0:
                time.sleep(rest_s)
        else:
            self._noted_s = time.thread_time()  # nobody was held up by it
        self._ends_at = time.perf_counter() + self._slice_s

    def _book(self) -> float:
        if self._accounts is None:
            return 0.0
        before, self._noted_s = self._noted_s, time.thread_time()
        computed_s = 0.0 if before is None else self._noted_s - before
        return self._accounts.book(self._tenant, computed_s, time.perf_counter())
