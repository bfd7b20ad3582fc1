"""Reads the body of a reply without losing its end.

When a connection breaks, aiohttp raises at once, and what had arrived before and was not read yet is gone. So a server
that resets a connection right after its answer would take that answer back. Not here: bounds of time and size.
"""

from __future__ import annotations

import aiohttp


async def read_piece(content: aiohttp.StreamReader) -> bytes:
    """Return what has arrived of a body, waiting for the first byte; empty at its end.

    Raises:
        OSError, aiohttp.ClientError: the connection is broken, and all that arrived before has been returned.
    """
    try:
        return await content.readany()
    except (OSError, aiohttp.ClientError):
        arrived = content._read_nowait(-1)  # noqa: SLF001 - every public way to it raises
        if arrived:
            return arrived
        raise
