"""The events of a turn as server-sent events: the one writer of every stream over HTTP.

A lean stream is compressed if its client accepts gzip (RFC 9110, 12.5.3), each write so that it can be read at once. A
whole stream is not: most clients say that they accept gzip, and few care. Not here: the format of one event
(`segue.http.sse`), and where the events come from (`turns`).
"""

from __future__ import annotations

import asyncio
import logging
import zlib
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from types import MappingProxyType

from aiohttp import web

from segue.gateway.admin.metrics import TransportMeter
from segue.gateway.redacted_traceback import redacted_traceback
from segue.gateway.transport import abort, finish
from segue.gateway.turns.lean_batches import lean_batches
from segue.http.sse import write_event
from segue.protocol.events import Event
from segue.protocol.problems import Refused
from segue.protocol.requests import StreamForm

_log = logging.getLogger("segue.gateway")

SSE_HEADERS: Mapping[str, str] = MappingProxyType(
    {"Content-Type": "text/event-stream", "Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
)
DONE = write_event("", b"[DONE]")

#: How much is compressed at once.
_SLICE_BYTES = 128 * 1024
_GZIP_HEADERS = {**SSE_HEADERS, "Content-Encoding": "gzip", "Vary": "Accept-Encoding"}


async def send_events(
    request: web.Request,
    batches: AsyncGenerator[Sequence[Event], None],
    meter: TransportMeter,
    *,
    is_over: Callable[[], bool] = lambda: False,
    gzip: _StreamGzip | None = None,
    compact: bool = False,
) -> web.StreamResponse:
    """Send a turn's events as they come, one write for each batch, and `[DONE]` when the turn is over.

    The reply begins with the first batch, so that a turn that is refused before gets a status of its own. A stream that
    breaks later is reset. If `is_over` says after a batch that it was the last one, `[DONE]` leaves in the same write.
    The types of compact events are in their data only.
    """
    response, done = web.StreamResponse(headers=SSE_HEADERS if gzip is None else _GZIP_HEADERS), False
    try:
        async with aclosing(batches):
            async for batch in batches:
                if not response.prepared:
                    await response.prepare(request)
                # Whole events only: some parsers lose an event whose blank line comes with the next piece.
                data = b"".join([write_event("" if compact else event.type, event.data) for event in batch])
                meter.sent(len(batch), len(data))
                done = is_over()
                if done:
                    data += DONE
                await response.write(data if gzip is None else await gzip.write(data))
        rest = b"" if done else DONE
        await finish(request, response, rest if gzip is None else gzip.end(rest))
    except Exception as error:
        if not response.prepared:
            raise
        if not isinstance(error, ConnectionError | Refused):
            _log.error("action=stream error=%s", redacted_traceback(error))
        abort(request)
    return response


async def send_in_form(
    request: web.Request, batches: AsyncGenerator[Sequence[Event], None], meter: TransportMeter, *, form: StreamForm
) -> web.StreamResponse:
    """Send a turn's events as a lean stream, unless it is to be whole."""
    if form == "whole":
        return await send_events(request, batches, meter)
    gzip = _StreamGzip() if _accepts_gzip(request.headers.get("Accept-Encoding", "")) else None
    return await send_events(request, lean_batches(batches, form=form), meter, gzip=gzip, compact=form == "compact")


class _StreamGzip:
    """Compresses one stream. Each write ends where its reader can decode all of it (RFC 1951, 2.3: an empty block)."""

    def __init__(self) -> None:
        self._deflate = zlib.compressobj(wbits=31)  # 31: with the wrapping of gzip

    async def write(self, data: bytes) -> bytes:
        pieces = [self._deflate.compress(data[:_SLICE_BYTES])]
        for at in range(_SLICE_BYTES, len(data), _SLICE_BYTES):
            await asyncio.sleep(0)  # a large event must not hold up everybody else
            pieces.append(self._deflate.compress(data[at : at + _SLICE_BYTES]))
        return b"".join((*pieces, self._deflate.flush(zlib.Z_SYNC_FLUSH)))

    def end(self, data: bytes) -> bytes:
        return self._deflate.compress(data) + self._deflate.flush()


def _accepts_gzip(accepted: str) -> bool:
    """Return whether an `Accept-Encoding` names gzip with a weight that is not zero."""
    for one in accepted.lower().replace(" ", "").split(","):
        coding, _, weight = one.partition(";")
        if coding == "gzip":
            return weight not in {"q=0", "q=0.0", "q=0.00", "q=0.000"}
    return False
