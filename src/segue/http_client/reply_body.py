"""Reads the body of a reply without losing its end; and of an error as much as may matter.

When a connection breaks, aiohttp raises at once, and what had arrived before and was not read yet is gone. So a server
that resets a connection right after its answer would take that answer back. Not here: bounds of a whole
reply.
"""

from __future__ import annotations

import asyncio

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


async def read_start(response: aiohttp.ClientResponse, *, limit: int, patience_s: float) -> bytes:
    """Read as much of the body of an error as may matter, within this time; what cannot be read does not."""
    read = b""
    try:
        async with asyncio.timeout(patience_s):
            while len(read) < limit and (piece := await response.content.readany()):
                read += piece
    except (OSError, aiohttp.ClientError):
        pass  # the status says enough
    return read[:limit]
