"""The C library's allocator: a large block goes back to the system once it is free.

glibc maps a large block on its own, but it takes that for a habit: from the first one that is freed, up to 32 MiB, it
keeps blocks of that size for later (mallopt(3), M_MMAP_THRESHOLD). A process that has had many large requests at once
would stay as large as it was then. Once that is set, glibc also gives back what is free behind all other blocks, again
and again while large pieces of bodies come and go, and the kernel clears each page anew: so some of it is kept. Other C
libraries have no such settings, and nothing is done. Not here: what is held on purpose, and for how long.
"""

from __future__ import annotations

import ctypes
from contextlib import suppress

#: The parameters of mallopt: how much free memory is kept at the end; from which size on a block is mapped on its own.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
KEPT_BYTES = 16 * 1024 * 1024
LARGE_BYTES = 1024 * 1024


def return_large_blocks() -> None:
    """Set that for this process."""
    with suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        library.mallopt(_M_MMAP_THRESHOLD, LARGE_BYTES)
        library.mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES)
