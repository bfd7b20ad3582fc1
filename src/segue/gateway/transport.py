"""The TCP connection below a request: noticing that the peer is gone, sending everything out, cutting it off.

aiohttp does the HTTP and the WebSocket handshake. Not here: what is sent.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping
from contextlib import suppress
from types import MappingProxyType

from aiohttp import web

from segue.http.blocks import BLOCK_BYTES, Pieces, cut

#: A peer that acknowledges nothing for this long is gone. The kernel's timers find out; segue sends nothing for it.
_DEAD_PEER_S = 120
#: The options for that of TCP: not every platform has every one.
_PROBES = tuple(
    (getattr(socket, name), value)
    for name, value in (
        ("TCP_KEEPIDLE", _DEAD_PEER_S // 2),
        ("TCP_KEEPINTVL", _DEAD_PEER_S // 8),
        ("TCP_KEEPCNT", 4),
        ("TCP_USER_TIMEOUT", _DEAD_PEER_S * 1000),
    )
    if hasattr(socket, name)
)
_NONE: Mapping[str, str] = MappingProxyType({})


def watch_peer(transport: asyncio.BaseTransport) -> None:
    """Make the kernel notice a peer that vanishes without closing, while its turn runs or its socket is idle."""
    connection = transport.get_extra_info("socket")
    if connection is None or connection.family not in {socket.AF_INET, socket.AF_INET6}:
        return  # the kernel tells the end of a Unix socket by itself
    with suppress(OSError):  # it is gone already
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in _PROBES:
            connection.setsockopt(socket.IPPROTO_TCP, option, value)


async def finish(request: web.Request, response: web.StreamResponse, rest: bytes = b"") -> None:
    """Send `rest` and the end of a response, and wait until the kernel has taken all of it.

    A turn counts as running until then, so that a drain cuts off nothing.
    """
    transport = request.transport
    try:
        await response.prepare(request)
        if transport is None:
            await response.write_eof(rest)
            return
        transport.set_write_buffer_limits(high=0)  # now "drained" means empty, and all is written at once if it can be
        await response.write_eof(rest)
        await request.writer.drain()
        transport.set_write_buffer_limits()
    except ConnectionError as error:
        raise peer_gone(error) from None


async def send_whole(
    request: web.Request, body: Pieces, content_type: str = "application/json", *, headers: Mapping[str, str] = _NONE
) -> web.StreamResponse:
    """Answer with a body. Of a large one no more than some blocks are buffered, however slow its reader is.

    A client that is gone is no error: there is nothing more to do for it.
    """
    size = sum(map(len, body))
    response = web.StreamResponse(headers={**headers, "Content-Type": content_type, "Content-Length": str(size)})
    try:
        last = b"".join(body) if size <= BLOCK_BYTES else await write_all_but_last(request, response, body)
        await finish(request, response, last)
    except ConnectionError:
        pass
    return response


async def write_all_but_last(request: web.Request, response: web.StreamResponse, body: Pieces) -> bytes:
    """Write the blocks of a body; return the last one, nearly always the only one, with which something else goes."""
    await response.prepare(request)
    last = b""
    for block in cut(body):
        if last:
            await write_block(response, last)
        last = block
    return last


async def write_block(response: web.StreamResponse, block: bytes) -> None:
    """Write a block, wait until the socket has room for more, and let others go on: it may have room at once."""
    await write(response, block)
    await asyncio.sleep(0)


async def write(response: web.StreamResponse, data: bytes) -> None:
    """Write some of a reply, and wait until the socket has room for more."""
    try:
        await response.write(data)
    except ConnectionError as error:
        raise peer_gone(error) from None


def peer_gone(error: ConnectionError) -> ConnectionResetError:
    """Return what to raise for an error of aiohttp's, whose own traceback is cut off.

    aiohttp waits for room in a frame that refers to the error, which refers to that frame and all that it passes. Only
    a garbage collection ends such a circle. Until one, the frames would hold what they were about to send.
    """
    error.__traceback__ = None
    return ConnectionResetError("the client is gone")


def abort(request: web.Request) -> None:
    """Reset the connection, so that the client cannot take the part that it has for the whole answer."""
    if request.transport is not None:
        request.transport.abort()
