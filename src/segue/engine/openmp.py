"""How the threads of a model in this process wait for each other: a setting of the OpenMP runtime (libgomp, on Linux).

Not here: whether the user has decided that for this process, which is in the environment (`config`).
"""

from __future__ import annotations

import os

#: Turns of the spin loop before a thread that waits goes to sleep.
_SPIN_COUNT = 30_000


def shorten_spinning() -> None:
    """Make threads that wait for each other sleep soon. Call it before the first model is loaded.

    libgomp's threads spin while they wait, by default ten times as long. When the machine has other work, they take the
    processor from the threads that they wait for, thousands of times in each step. If they sleep at once, each of them
    wakes too late on a machine that is idle: a step takes a fifth longer. This is about a millisecond: more than
    threads wait for one that has a processor. If one has none, that is noticed (`thread_count`).
    """
    os.putenv("GOMP_SPINCOUNT", str(_SPIN_COUNT))  # libgomp reads it when it is loaded
