"""The events of a turn as server-sent events: the one writer of every stream over HTTP.

A large event leaves in blocks, each when the socket has taken the one before, so a slow reader holds next to nothing.

A lean stream is compressed if its client accepts that (RFC 9110, 12.5.3), each write so that it can be read at once. A
whole stream is not: most clients say that they accept gzip, and few care. The head of a compact stream says only what
is needed, since it may be a half of the reply. Not here: the format of one event (`segue.http.sse`), the codings
(`segue.http.event_coding`), silences (`keep_alive`), and where the events come from (`turns`).
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Mapping, Sequence
from types import MappingProxyType

from aiohttp import web

from segue.gateway.admin.metrics import TransportMeter
from segue.gateway.api.keep_alive import COMMENT, KeepAlive
from segue.gateway.redacted_traceback import redacted_traceback
from segue.gateway.transport import abort, finish, write, write_block
from segue.gateway.turns.lean_batches import lean_batches
from segue.http.blocks import BLOCK_BYTES, Pieces, blocks
from segue.http.event_coding import EventEncoder, StreamCoding, stream_coding
from segue.http.sse import event_pieces, write_event
from segue.protocol.events import Event
from segue.protocol.problems import Refused
from segue.protocol.requests import StreamForm

_log = logging.getLogger("segue.gateway")

SSE_HEADERS: Mapping[str, str] = MappingProxyType(
    {"Content-Type": "text/event-stream", "Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
)
DONE = write_event("", b"[DONE]")

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
    keep_alive_s: float = 0.0,
) -> web.StreamResponse:
    """Send a turn's events as they come, one write for each batch, and the end of the reply with the last one.

    The reply begins with the first batch, so that a turn that is refused before gets a status of its own. A stream that
    breaks later is reset. The types of compact events are in their data only. `keep_alive_s`: see `KeepAlive`.
    """
    response, done = web.StreamResponse(headers=_headers(request.method, coding, compact=compact)), False
    encoder = None if coding is None else EventEncoder(coding)
    silence = KeepAlive(
        request, response, keep_alive_s, lambda: COMMENT if encoder is None else encoder.feed(COMMENT) + encoder.flush()
    )
    try:
        try:
            async for batch in batches:
                silence.end()
                if not response.prepared:
                    await response.prepare(request)
                pieces = _pieces_of(batch, compact=compact)
                size = sum(map(len, pieces))
                meter.sent(len(batch), size)
                if size <= BLOCK_BYTES:  # nearly always
                    last = b"".join(pieces)
                else:
                    texts = [_pieces_of((event,), compact=compact) for event in batch]
                    last = await _write_all_but_last(response, texts, encoder)
                if batch[-1].type not in _LAST:
                    await write(response, last if encoder is None else encoder.feed(last) + encoder.flush())
                    silence.begin()
                    continue
                done = True
                await _end(request, response, last + DONE, encoder)
        finally:
            await batches.aclose()
        if not done:
            await _end(request, response, DONE, encoder)
    except Exception as error:
        if not response.prepared:
            raise
        if not isinstance(error, ConnectionError | Refused):
            _log.error("action=stream error=%s", redacted_traceback(error))
        abort(request)
    finally:
        silence.close()
    return response


async def send_in_form(
    request: web.Request,
    batches: AsyncGenerator[Sequence[Event], None],
    meter: TransportMeter,
    *,
    form: StreamForm,
    keep_alive_s: float = 0.0,
) -> web.StreamResponse:
    """Send a turn's events as a lean stream, unless it is to be whole."""
    if form == "whole":
        return await send_events(request, batches, meter, keep_alive_s=keep_alive_s)
    compact = form == "compact"
    coding = stream_coding(request.headers.get("Accept-Encoding", ""), preset=compact)
    lean = lean_batches(batches, form=form)
    return await send_events(request, lean, meter, coding=coding, compact=compact, keep_alive_s=keep_alive_s)


async def _write_all_but_last(
    response: web.StreamResponse, texts: Sequence[Pieces], encoder: EventEncoder | None
) -> bytes:
    """Write the blocks of a batch; return the last one, with which something else goes."""
    last = b""
    for block in blocks(texts):
        if last:
            await write_block(response, last if encoder is None else encoder.feed(last))
        last = block
    return last


async def _end(request: web.Request, response: web.StreamResponse, rest: bytes, encoder: EventEncoder | None) -> None:
    """Send the rest of a stream and its end in one write: who reads the last event can use the connection again."""
    await finish(request, response, rest if encoder is None else encoder.feed(rest) + encoder.end())


def _pieces_of(batch: Sequence[Event], *, compact: bool) -> list[bytes | memoryview]:
    """Return the texts of a batch, not joined yet: a large event is not copied."""
    pieces: list[bytes | memoryview] = []
    for event in batch:  # a call for each event is felt
        kind = "" if compact else event.type
        if event.echo or len(event.data) > BLOCK_BYTES:
            pieces += event_pieces(kind, event.pieces())
        else:
            pieces.append(write_event(kind, event.data))
    return pieces


def _headers(method: str, coding: StreamCoding | None, *, compact: bool) -> dict[str, str]:
    headers = dict(SSE_HEADERS)
    if coding is not None:
        headers |= {"Content-Encoding": coding, "Vary": "Accept-Encoding"}
    if compact and method == "POST":
        headers = {name: value for name, value in headers.items() if name not in _FOR_CACHES}
    return headers
