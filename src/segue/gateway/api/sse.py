"""The events of a turn as server-sent events: the one writer of every stream over HTTP.

A lean stream is compressed if its client accepts that (RFC 9110, 12.5.3), each write so that it can be read at once. A
whole stream is not: most clients say that they accept gzip, and few care. The head of a compact stream says only what
is needed, since it may be a half of the reply. Not here: the format of one event (`segue.http.sse`), the codings
(`segue.http.event_coding`), and where the events come from (`turns`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from types import MappingProxyType

from aiohttp import web

from segue.gateway.admin.metrics import TransportMeter
from segue.gateway.redacted_traceback import redacted_traceback
from segue.gateway.transport import abort, finish
from segue.gateway.turns.lean_batches import lean_batches
from segue.http.event_coding import EventEncoder, StreamCoding, stream_coding
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
#: What a cache must know of a reply that it may keep. That of a POST it may not, since none says how long it is fresh
#: (RFC 9111, 3; RFC 9110, 9.3.3).
_FOR_CACHES = frozenset({"Cache-Control", "Vary"})
#: After one of these, a turn has no more events.
_LAST = frozenset({"response.completed", "response.incomplete", "response.failed"})


async def send_events(
    request: web.Request,
    batches: AsyncGenerator[Sequence[Event], None],
    meter: TransportMeter,
    *,
    coding: StreamCoding | None = None,
    compact: bool = False,
) -> web.StreamResponse:
    """Send a turn's events as they come, one write for each batch, and the end of the reply with the last one.

    The reply begins with the first batch, so that a turn that is refused before gets a status of its own. A stream that
    breaks later is reset. The types of compact events are in their data only.
    """
    response, done = web.StreamResponse(headers=_headers(request.method, coding, compact=compact)), False
    encoder = None if coding is None else _SlicedEncoder(coding)
    try:
        async with aclosing(batches):
            async for batch in batches:
                if not response.prepared:
                    await response.prepare(request)
                # Whole events only: some parsers lose an event whose blank line comes with the next piece.
                data = b"".join([write_event("" if compact else event.type, event.data) for event in batch])
                meter.sent(len(batch), len(data))
                if batch[-1].type not in _LAST:
                    await response.write(data if encoder is None else await encoder.write(data))
                    continue
                done = True
                await _end(request, response, data + DONE, encoder)
        if not done:
            await _end(request, response, DONE, encoder)
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
    compact = form == "compact"
    coding = stream_coding(request.headers.get("Accept-Encoding", ""), preset=compact)
    return await send_events(request, lean_batches(batches, form=form), meter, coding=coding, compact=compact)


async def _end(request: web.Request, response: web.StreamResponse, rest: bytes, encoder: _SlicedEncoder | None) -> None:
    """Send the rest of a stream and its end in one write: who reads the last event can use the connection again."""
    await finish(request, response, rest if encoder is None else await encoder.write(rest, last=True))


def _headers(method: str, coding: StreamCoding | None, *, compact: bool) -> dict[str, str]:
    headers = dict(SSE_HEADERS)
    if coding is not None:
        headers |= {"Content-Encoding": coding, "Vary": "Accept-Encoding"}
    if compact and method == "POST":
        headers = {name: value for name, value in headers.items() if name not in _FOR_CACHES}
    return headers


class _SlicedEncoder:
    """Encodes one stream, a large event in slices: it must not hold up everybody else."""

    def __init__(self, coding: StreamCoding) -> None:
        self._encoder = EventEncoder(coding)

    async def write(self, data: bytes, *, last: bool = False) -> bytes:
        pieces = [self._encoder.feed(data[:_SLICE_BYTES])]
        for at in range(_SLICE_BYTES, len(data), _SLICE_BYTES):
            await asyncio.sleep(0)
            pieces.append(self._encoder.feed(data[at : at + _SLICE_BYTES]))
        return b"".join((*pieces, self._encoder.end() if last else self._encoder.flush()))
