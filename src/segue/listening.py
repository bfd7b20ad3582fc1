"""Stops a server of asyncio from listening, without losing a connection that has just been accepted.

Not here: how a server begins to listen, and what becomes of its connections.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress


async def stop_listening(server: asyncio.AbstractServer) -> None:
    """Close the ports of a server. Its connections stay, and every accepted one has reached its protocol by then.

    asyncio accepts a connection in one step of the loop, and gives it a transport in the next. If the server is closed
    between the two, no transport can be made, and the socket is left open until it is collected:
    https://github.com/python/cpython/issues/109564. So the loop stops accepting first. A server of uvloop has no such
    gap.
    """
    if isinstance(server, asyncio.Server):
        loop = server.get_loop()
        for socket in server.sockets:
            with suppress(NotImplementedError):  # a loop without readers accepts otherwise
                loop.remove_reader(socket)
        for _ in range(2):  # the transport is made, and tells its protocol
            await asyncio.sleep(0)
    server.close()
