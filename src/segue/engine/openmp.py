"""How the threads of a model in this process wait for each other: a setting of the OpenMP runtime (libgomp, on Linux).

Not here: whether the user has decided that for this process, which is in the environment (`config`).
"""

from __future__ import annotations

import os

#: Turns of the spin loop before a thread that waits goes to sleep.
_SPIN_COUNT = 100_000


def shorten_spinning() -> None:
    """Make threads that wait for each other sleep soon. Call it before the first model is loaded.

    libgomp's threads spin while they wait, by default three times as long. When the machine has other work, they take
    the processor from the threads that they wait for, thousands of times in each step. If they sleep too soon, they
    wake late, and sometimes on the processor that the others are on: with a third of this, an answer is written a
    quarter more slowly. This is about four milliseconds: as long as Linux lets another process have a processor before
    it looks again. If one has none for longer, that is noticed (`thread_count`).
    """
    os.putenv("GOMP_SPINCOUNT", str(_SPIN_COUNT))  # libgomp reads it when it is loaded
