"""The events of a turn as server-sent events: the one writer of every stream over HTTP.

Not here: the format of one event (`segue.http.sse`), and where the events come from (`turns`).
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from types import MappingProxyType

from aiohttp import web

from segue.gateway.admin.metrics import TransportMeter
from segue.gateway.redacted_traceback import redacted_traceback
from segue.gateway.transport import abort, finish
from segue.http.sse import write_event
from segue.protocol.events import Event
from segue.protocol.problems import Refused

_log = logging.getLogger("segue.gateway")

SSE_HEADERS: Mapping[str, str] = MappingProxyType(
    {"Content-Type": "text/event-stream", "Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
)
DONE = write_event("", b"[DONE]")


async def send_events(
    request: web.Request,
    batches: AsyncGenerator[Sequence[Event], None],
    meter: TransportMeter,
    *,
    is_over: Callable[[], bool] = lambda: False,
) -> web.StreamResponse:
    """Send a turn's events as they come, one write for each batch, and `[DONE]` when the turn is over.

    The reply begins with the first batch, so that a turn that is refused before gets a status of its own. A stream that
    breaks later is reset. If `is_over` says after a batch that it was the last one, `[DONE]` leaves in the same write.
    """
    response, done = web.StreamResponse(headers=SSE_HEADERS), False
    try:
        async with aclosing(batches):
            async for batch in batches:
                if not response.prepared:
                    await response.prepare(request)
                # Whole events only: some parsers lose an event whose blank line comes with the next piece.
                data = b"".join([write_event(event.type, event.data) for event in batch])
                meter.sent(len(batch), len(data))
                done = is_over()
                await response.write(data + DONE if done else data)
        await finish(request, response, b"" if done else DONE)
    except Exception as error:
        if not response.prepared:
            raise
        if not isinstance(error, ConnectionError | Refused):
            _log.error("action=stream error=%s", redacted_traceback(error))
        abort(request)
    return response
