"""The C library's allocator: a large block goes back to the system once it is free.

glibc maps a large block on its own, but it takes that for a habit: from the first one that is freed, up to 32 MiB, it
keeps blocks of that size for later (mallopt(3), M_MMAP_THRESHOLD). A process that has had many large requests at once
would stay as large as it was then. Other C libraries have no such setting, and nothing is done. Not here: what is held
on purpose, and for how long.
"""

from __future__ import annotations

import ctypes
from contextlib import suppress

#: The parameter of mallopt, and the size from which blocks are mapped on their own, whatever was freed before.
_M_MMAP_THRESHOLD = -3
LARGE_BYTES = 1024 * 1024


def return_large_blocks() -> None:
    """Set that for this process."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, LARGE_BYTES)
