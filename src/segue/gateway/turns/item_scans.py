"""Looking through the items of a history: beside the event loop if they are many, so that nobody waits for it.

Not here: what is looked for (`compaction`, `truncation`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, TypeVar

T = TypeVar("T")

#: So many bytes of small items are looked through in a few milliseconds.
FEW_BYTES: Final = 256 * 1024


async def scan_items(look: Callable[[], T], size_bytes: int) -> T:
    """Return what `look` returns, which looks through items of this size; in a thread if they are many."""
    return look() if size_bytes < FEW_BYTES else await asyncio.to_thread(look)
