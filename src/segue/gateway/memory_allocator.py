"""The C library's allocator: a large block goes back to the system once it is free.

glibc maps a large block on its own, but it takes that for a habit: from the first one that is freed, up to 32 MiB, it
keeps blocks of that size for later (mallopt(3), M_MMAP_THRESHOLD). A process that has had many large requests at once
would stay as large as it was then. Once that is set, glibc also gives back what is free behind all other blocks, again
and again while large pieces of bodies come and go, and the kernel clears each page anew: so some of it is kept. What is
free between blocks that are not goes back when no large request is under way. Other C libraries have no such settings,
and nothing is done. Not here: what is held on purpose, and for how long.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

#: The parameters of mallopt: how much free memory is kept at the end; from which size on a block is mapped on its own.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
KEPT_BYTES = 16 * 1024 * 1024
LARGE_BYTES = 1024 * 1024
#: How often it is looked how large the process is, and by how much it has to have grown: to go through what is free
#: takes some milliseconds.
LOOK_S = 2.0
GROWN_BYTES = 64 * 1024 * 1024


def return_large_blocks() -> None:
    """Set that for this process."""
    with suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        library.mallopt(_M_MMAP_THRESHOLD, LARGE_BYTES)
        library.mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES)


async def return_free_memory(is_idle: Callable[[], bool]) -> None:
    """Give back what is free, for ever, whenever the process has grown by much and `is_idle` says that it may."""
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        return
    least = _resident_bytes()
    while True:
        await asyncio.sleep(LOOK_S)
        now = _resident_bytes()
        least = min(least, now)
        if now - least >= GROWN_BYTES and is_idle():
            await asyncio.to_thread(trim, KEPT_BYTES)
            least = _resident_bytes()


def _resident_bytes() -> int:
    """Return how much memory the process has, where the platform tells it; else 0."""
    try:
        pages = Path("/proc/self/statm").read_text("ascii").split()[1]
    except OSError:
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE")
