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
#: So many looks are between two tries, at most.
MOST_LOOKS = 32


def return_large_blocks() -> None:
    """Set that for this process."""
    with suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        library.mallopt(_M_MMAP_THRESHOLD, LARGE_BYTES)
        library.mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES)


class TrimPace:
    """When it is worth going through what is free, at one look after another. Pure.

    What one look finds held may be free at the next, when the process has not grown. So it is tried again as long as
    the process is large, but less and less often while that gives nothing back.
    """

    def __init__(self, resident_bytes: int) -> None:
        self._least = resident_bytes
        self._looks = 1
        self._left = 1

    def is_due(self, resident_bytes: int) -> bool:
        """Note how large the process is at a look; return whether to try."""
        self._least = min(self._least, resident_bytes)
        self._left = max(0, self._left - 1)
        return not self._left and resident_bytes - self._least >= GROWN_BYTES

    def tried(self, given_back_bytes: int) -> None:
        """Note what a try has given back."""
        self._looks = 1 if given_back_bytes >= GROWN_BYTES // 8 else min(2 * self._looks, MOST_LOOKS)
        self._left = self._looks


async def return_free_memory(is_idle: Callable[[], bool]) -> None:
    """Give back what is free, for ever, whenever the process has grown by much and `is_idle` says that it may."""
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        return
    pace = TrimPace(_resident_bytes())
    while True:
        await asyncio.sleep(LOOK_S)
        before = _resident_bytes()
        if pace.is_due(before) and is_idle():
            await asyncio.to_thread(trim, KEPT_BYTES)
            pace.tried(before - _resident_bytes())


def _resident_bytes() -> int:
    """Return how much memory the process has, where the platform tells it; else 0."""
    try:
        pages = Path("/proc/self/statm").read_text("ascii").split()[1]
    except OSError:
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE")
