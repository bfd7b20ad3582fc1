"""Server-sent events: the form in which events go out over HTTP, and how a response is brought to its end."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from aiohttp import web

from segue.protocol.events import Event

SSE_HEADERS: Mapping[str, str] = MappingProxyType(
    {"Content-Type": "text/event-stream", "Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
)
DONE = b"data: [DONE]\n\n"


def sse_frame(event: Event) -> bytes:
    """Write one event. One block is one piece of a write: some parsers lose one whose blank line comes later."""
    return b"event: %b\ndata: %b\n\n" % (event.type.encode(), event.data)


async def finish(request: web.Request, response: web.StreamResponse) -> None:
    """Hand the rest of a response to the kernel: a turn lasts until then, so that draining cuts off nothing."""
    await response.prepare(request)
    await response.write_eof()
    transport = request.transport
    if transport is not None:
        transport.set_write_buffer_limits(high=0)  # now "drained" means empty
        await request.writer.drain()
        transport.set_write_buffer_limits()
