"""Reads the body of a request, as long as it goes on coming.

Not here: how long a head may take (`connections`), and what a body says.
"""

from __future__ import annotations

import asyncio

from aiohttp import web

from segue.protocol.problems import Problem, Refused

#: What has to come within the limit of time: a body that drips is one that stalls.
PROGRESS_BYTES = 4096


async def read_body(request: web.Request, limit: int, *, stall_s: float) -> bytes:
    """Return the body. Raises `HTTPRequestEntityTooLarge`, or `Refused` if it stalls."""
    if (request.content_length or 0) > limit:
        raise web.HTTPRequestEntityTooLarge(limit, request.content_length or 0)
    pieces: list[bytes] = []
    size, due = 0, PROGRESS_BYTES
    try:
        async with asyncio.timeout(stall_s) as timeout:
            while piece := await request.content.readany():
                pieces.append(piece)
                size += len(piece)
                if size > limit:
                    raise web.HTTPRequestEntityTooLarge(limit, size)
                if size >= due:
                    due = size + PROGRESS_BYTES
                    timeout.reschedule(asyncio.get_running_loop().time() + stall_s)
    except TimeoutError:
        message = f"The body stopped coming: less than {PROGRESS_BYTES} bytes in {stall_s:g} s. Send it again."
        raise Refused(Problem("request_timeout", message)) from None
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)
