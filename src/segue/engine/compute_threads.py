"""Where the threads of a model run, and who goes before them.

All threads compute each step, and wait for each other in a loop. If the system lets two of them share a processor while
another one rests, each step takes several times as long until it notices: after a pause they often wake on the same
one. So where there are as many threads as processors, each thread stays on one of its own. And a thread that has waited
for something, such as that of the event loop, runs at once: threads that compute are batch work for the system, which
takes no part of their share of a busy machine. Not here: how many of them compute a step (`thread_count`), and how they
wait (`openmp`).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection
from typing import Any

#: Batch work, in the numbers of llama.cpp: SCHED_BATCH on Linux.
_BATCH = -1


def own_processors(usable: Collection[int], threads: int, most: int) -> list[bool] | None:
    """Return which processors are for the threads, of the first `most`; None if they are to run anywhere."""
    if threads < 2 or threads != len(usable) or max(usable) >= most:  # noqa: PLR2004 - one thread has nobody to meet
        return None
    return [number in usable for number in range(most)]


class ComputeThreads:
    """The threads of a context. Make and close it in the thread that computes, which is one of them."""

    def __init__(self, llama: Any, context: Any, threads: int) -> None:  # noqa: ANN401 - types of the untyped binding
        self._context = context
        self._usable: Collection[int] = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else ()
        params = llama.GgmlThreadPoolParams(threads)
        params.prio = _BATCH
        mask = own_processors(self._usable, threads, len(params.cpumask))
        if mask is not None:
            params.cpumask, params.strict_cpu = mask, True
        self._pool: Any = llama.GgmlThreadPool(params)  # lives as long as the context uses it
        context.attach_threadpool(self._pool, self._pool)

    def close(self) -> None:
        """Release them; the thread that calls this runs as it did before."""
        self._context.detach_threadpool()
        with contextlib.suppress(OSError):  # a system that forbids it has let nothing be changed either
            if hasattr(os, "sched_setscheduler"):
                os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
            if self._usable:
                os.sched_setaffinity(0, self._usable)
