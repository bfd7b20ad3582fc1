"""The TCP connection below a request: noticing that the peer is gone, sending everything out, cutting it off.

aiohttp does the HTTP and the WebSocket handshake. Not here: what is sent.
"""

from __future__ import annotations

import socket
from contextlib import suppress

from aiohttp import web

#: A peer that acknowledges nothing for this long is gone. The kernel's timers find out; segue sends nothing for it.
_DEAD_PEER_S = 120


def watch_peer(request: web.Request) -> None:
    """Make the kernel notice a peer that vanished without closing, while its turn runs or its socket is idle."""
    connection = None if request.transport is None else request.transport.get_extra_info("socket")
    if connection is None or connection.family not in {socket.AF_INET, socket.AF_INET6}:
        return  # the kernel tells the end of a Unix socket by itself
    with suppress(OSError):  # it is gone already
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in (
            ("TCP_KEEPIDLE", _DEAD_PEER_S // 2),
            ("TCP_KEEPINTVL", _DEAD_PEER_S // 8),
            ("TCP_KEEPCNT", 4),
            ("TCP_USER_TIMEOUT", _DEAD_PEER_S * 1000),
        ):
            option = getattr(socket, name, None)  # not every platform has every option
            if option is not None:
                connection.setsockopt(socket.IPPROTO_TCP, option, value)


async def finish(request: web.Request, response: web.StreamResponse, rest: bytes = b"") -> None:
    """Send `rest` and the end of a response, and wait until the kernel has taken all of it.

    A turn counts as running until then, so that a drain cuts off nothing.
    """
    await response.prepare(request)
    await response.write_eof(rest)
    transport = request.transport
    if transport is not None:
        transport.set_write_buffer_limits(high=0)  # now "drained" means empty
        await request.writer.drain()
        transport.set_write_buffer_limits()


def abort(request: web.Request) -> None:
    """Reset the connection, so that the client cannot take the part that it has for the whole answer."""
    if request.transport is not None:
        request.transport.abort()
