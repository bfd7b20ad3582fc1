"""Responses over HTTP: a create is a POST that is answered with server-sent events, or with one JSON document.

A stream that is closed before its end breaks its connection, which is how a client cancels. One that was read to its
end leaves its connection for the next request. Not here: how requests are sent (`http_exchange`), and what a fault
leads to (`segue.client.recovery`).
"""

from __future__ import annotations

import asyncio
import re
import ssl
import time
from collections import deque
from collections.abc import AsyncIterator
from typing import Any, Literal

import aiohttp
import msgspec
from yarl import URL

from segue.client.capabilities import PLAIN_SERVER, ServerCapabilities
from segue.client.recovery import TurnFault
from segue.client.settings import ConnectionSettings
from segue.client.transports.capabilities_reader import fetch_capabilities, told_capabilities
from segue.client.transports.event_scan import scan
from segue.client.transports.http_exchange import ServerExchanges, fault_of
from segue.client.transports.interface import Connected, EventStream, TransportFault
from segue.client.transports.server_errors import MAX_BODY_BYTES, ServerWords
from segue.http.content_decoding import ContentDecoder, DecodingError, decoder_for
from segue.http.event_coding import GZIP, PRESET, preset_decoder
from segue.http.heads import Line
from segue.http.sse import SseReader
from segue.http_client.body import JsonBody
from segue.http_client.reply_body import read_piece
from segue.http_client.wire_meter import NOTHING_CARRIED, WireCount, WireMeter, meter_of
from segue.protocol.codec import UNREADABLE
from segue.protocol.compact_events import CompactReader
from segue.protocol.requests import LeanForm

_STREAM, _JSON = "text/event-stream", "application/json"
_OK, _REDIRECTS, _NOT_FOUND = 200, 300, 404
_DONE = b"[DONE]"
#: An id may come from a peer, and becomes a part of a path.
_ID = re.compile(r"[A-Za-z0-9_-]{1,512}")
#: How long the end of a stream may take to come after its last event, and how much may come; else the connection is
#: closed instead of kept.
_TAIL_S = 2.0
_MOST_TAIL_BYTES = 64 * 1024


class _Document(msgspec.Struct):
    object: str | None = None
    error: Any = None


class HttpTransport:
    """One server over HTTP. It makes its first connection when the first request is sent."""

    def __init__(self, settings: ConnectionSettings, *, tls: ssl.SSLContext | None = None) -> None:
        self.server = ServerExchanges(settings, tls=tls)
        self._capabilities: ServerCapabilities | None = None
        self._asking = asyncio.Lock()
        self._tails: set[asyncio.Task[None]] = set()

    @property
    def kind(self) -> Literal["http"]:
        """Which transport it is."""
        return "http"

    @property
    def meter(self) -> WireMeter:
        """What all connections have carried."""
        return self.server.meter

    async def connect(self, *, lane: int, near: int | None = None, fresh: bool = False) -> Connected:  # noqa: ARG002 - over HTTP a lane has no connection
        """Ask the server what it offers, unless it is known. A server that is no gateway is asked only once."""
        async with self._asking:
            known = self._capabilities
            if known is not None and (known.epoch is None or not fresh):
                return Connected(0, known)
            found = await fetch_capabilities(self.server)
            if found is None and known is not None:  # a gateway that is away, or a proxy before it
                message = "The server does not say which of its lives this is."
                raise TransportFault(
                    TurnFault(kind="connect_failed", transport="http", delivered="no", message=message)
                )
            self._capabilities = found
            return Connected(0, found or PLAIN_SERVER)

    async def create(self, body: bytes, *, lane: int, connection: int) -> EventStream:  # noqa: ARG002 - as above
        """Send a create. `body` is a JSON object with at least one member."""
        upload, coding = JsonBody((b'{"stream":true,', body[1:])), self._coding()
        response = await self.server.send(
            "POST", self.server.responses_url(), body=upload, accept=_STREAM, coding=coding
        )
        return await self._open(response, upload, coding)

    async def resume(
        self,
        response_id: str,
        starting_after: int,
        *,
        lane: int,  # noqa: ARG002 - as above
        connection: int,  # noqa: ARG002 - as above
        lean: LeanForm = False,
    ) -> EventStream:
        """Ask for the events of a response after a number; -1 means all."""
        query = {"stream": "true"}
        if starting_after >= 0:
            query["starting_after"] = str(starting_after)
        if lean:
            query["lean"] = lean if lean == "compact" else "true"
        url = self._response_url(response_id).update_query(query)
        coding = self._coding()
        return await self._open(await self.server.send("GET", url, accept=_STREAM, coding=coding), None, coding)

    async def retrieve(self, response_id: str) -> bytes:
        """Return a stored response object."""
        response = await self.server.send("GET", self._response_url(response_id), accept=_JSON)
        if not _is_document(response):
            raise await self.server.refusal(response)
        return await self._read_document(response)

    async def forget(self, response_id: str) -> None:
        """Delete a response; one that is not there is no fault."""
        response = await self.server.send("DELETE", self._response_url(response_id), accept=_JSON)
        if not _OK <= response.status < _REDIRECTS and response.status != _NOT_FOUND:
            raise await self.server.refusal(response)
        await self.server.read(response, MAX_BODY_BYTES)

    def release(self, lane: int) -> None:
        """Forget a lane: over HTTP it holds nothing."""

    async def aclose(self) -> None:
        """Close all connections."""
        for tail in tuple(self._tails):
            tail.cancel()
        try:
            await asyncio.gather(*self._tails, return_exceptions=True)
        finally:
            await self.server.aclose()

    # --- private -----------------------------------------------------------------------------------------------------

    def _response_url(self, response_id: str) -> URL:
        if not _ID.fullmatch(response_id):
            message = "The id of the response has characters that no id has."
            raise TransportFault(TurnFault(kind="unreadable", transport="http", delivered="no", message=message))
        return self.server.responses_url(response_id=response_id)

    def _coding(self) -> str:
        """Return the content codings to ask for: a gateway that offers lean streams flushes them after each event.

        Of any other server, compression may hold events back.
        """
        known = self._capabilities
        if not self.server.deflated or known is None or not known.offers("lean"):
            return "identity"
        return f"{PRESET}, {GZIP}" if known.offers("compact") else GZIP

    async def _open(self, response: aiohttp.ClientResponse, upload: JsonBody | None, coding: str) -> EventStream:
        self._capabilities = told_capabilities(response.headers) or self._capabilities
        if response.status == _OK and response.content_type == _STREAM and _is_plain(response, coding):
            return _SseStream(self, response, upload)
        if _is_document(response):
            meter = _meter_of(response, upload)
            document = await self._read_document(response)
            return _DocumentStream(document, NOTHING_CARRIED if meter is None else meter.take())
        raise await self.server.refusal(response)

    async def _read_document(self, response: aiohttp.ClientResponse) -> bytes:
        """Read a response object. Raises `TransportFault` if the document is none."""
        data = await self.server.read(response, self.server.settings.max_message_bytes)
        try:
            document = msgspec.json.decode(data, type=_Document)
        except UNREADABLE:
            document = None
        if document is None or document.object != "response":
            raise self.server.refused(response.status, response.headers, data, transport="http")
        return data

    def keep(self, response: aiohttp.ClientResponse) -> None:
        """Read what follows the last event of a stream, so that its connection can be used again."""

        def finish(tail: asyncio.Task[None]) -> None:
            self._tails.discard(tail)
            response.release()  # which breaks the connection if the answer has not ended

        tail = asyncio.create_task(_read_tail(response))
        self._tails.add(tail)
        tail.add_done_callback(finish)


class _SseStream:
    """The events of an answer that is a stream."""

    def __init__(self, transport: HttpTransport, response: aiohttp.ClientResponse, upload: JsonBody | None) -> None:
        self._transport = transport
        self._response = response
        self._upload = upload
        self._decoder = _decoder_for(response)
        self._reader = SseReader(transport.server.settings.max_message_bytes)
        self._ready: deque[bytes | TurnFault] = deque()
        self._compact = CompactReader()
        self._started = False
        self._ended = False  # what is in `_ready` is all there is
        self._meter = _meter_of(response, upload)
        self._carried = NOTHING_CARRIED

    @property
    def wire_sent_bytes(self) -> int:
        """What the socket carried for the request."""
        return self._carried.sent_bytes

    @property
    def wire_received_bytes(self) -> int:
        """What the socket carried of the answer so far."""
        return self._carried.received_bytes

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        while not self._ready:
            if self._ended:
                raise StopAsyncIteration
            await self._read()
        event = self._ready.popleft()
        if isinstance(event, TurnFault):
            self._drop()
            raise TransportFault(event)
        return event

    async def aclose(self) -> None:
        """Stop reading; break the connection if the stream has not ended."""
        self._ready.clear()
        if not self._ended:
            self._ended = True
            self._drop()

    def _drop(self) -> None:
        """Break the connection, even in the middle of the upload, unless it has been given back already."""
        if self._upload is not None and self._response.connection is not None:
            self._upload.abort()
        self._response.close()

    async def _read(self) -> None:
        """Read some more; put the events that are whole now, or what went wrong, where they are taken from."""
        server = self._transport.server
        try:
            async with asyncio.timeout(server.settings.idle_timeout_s):
                piece = await self._next_piece()
        except (OSError, aiohttp.ClientError) as error:
            self._end(fault_of(error, "http", silent_s=self._silent_s()))
            return
        except DecodingError:
            self._end(_unreadable("The stream is not compressed as its head says."))
            return
        finally:
            if self._meter is not None:
                self._carried = self._carried.plus(self._meter.take())
        if not piece:
            self._end(TurnFault(kind="stream_ended", transport="http"))
            return
        for event in self._reader.feed(piece):
            self._take(event.data)
            if self._ended:
                return
        if self._reader.overflowed:
            self._end(_unreadable("An event of the stream is too large."))

    async def _next_piece(self) -> bytes:
        """Return some of the stream; empty at its end. What is compressed expands only as it is read."""
        content, decoder = self._response.content, self._decoder
        if decoder is None:
            return await read_piece(content)
        while not (piece := decoder.read()):
            data = await read_piece(content)
            if not data:
                return b""
            decoder.feed(data)
        return piece

    def _take(self, data: bytes) -> None:
        if data == _DONE:
            self._end(TurnFault(kind="stream_ended", transport="http"))
            return
        read = self._compact.event(data)
        event = None if read is None else scan(read)
        if read is None or event is None:
            self._end(_unreadable("The server sent something in the stream that is no event."))
        elif event.error:
            self._end(self._error(read))
        else:
            self._started = self._started or event.of_response
            self._ready.append(read)
            if event.terminal:
                self._ended = True
                self._transport.keep(self._response)

    def _silent_s(self) -> float | None:
        return None if self._meter is None else asyncio.get_running_loop().time() - self._meter.received_at

    def _error(self, data: bytes) -> TurnFault:
        words = self._transport.server.words.read_event(data, time.time()) or ServerWords()
        return words.fault("failed" if self._started else "refused", "http")

    def _end(self, fault: TurnFault) -> None:
        self._ended = True
        self._ready.append(fault)


class _DocumentStream:
    """An answer that is one JSON document in place of a stream."""

    def __init__(self, document: bytes, carried: WireCount) -> None:
        self._document: bytes | None = document
        self.wire_sent_bytes, self.wire_received_bytes = carried

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        document, self._document = self._document, None
        if document is None:
            raise StopAsyncIteration
        return document

    async def aclose(self) -> None:
        """Drop the document."""
        self._document = None


async def _read_tail(response: aiohttp.ClientResponse) -> None:
    """Read a few bytes up to the end of an answer; give up if there is more."""
    size = 0
    try:
        async with asyncio.timeout(_TAIL_S):
            while size <= _MOST_TAIL_BYTES and (piece := await response.content.readany()):
                size += len(piece)
    except (OSError, aiohttp.ClientError):
        pass  # then the connection is not kept


def _meter_of(response: aiohttp.ClientResponse, upload: JsonBody | None) -> WireMeter | None:
    """Return the meter of an answer's connection; an answer that is here whole may have given its connection back."""
    if upload is not None:
        return meter_of(upload.transport)
    return None if response.connection is None else meter_of(response.connection.transport)


def _is_plain(response: aiohttp.ClientResponse, coding: str = "identity") -> bool:
    """Tell whether an answer is not compressed, or as it was asked for."""
    return response.headers.get("Content-Encoding", "identity").lower() in {"identity", *coding.split(", ")}


def _decoder_for(response: aiohttp.ClientResponse) -> ContentDecoder | None:
    named = response.headers.get("Content-Encoding", "")
    if named.lower() == PRESET:
        return preset_decoder()
    return decoder_for((Line(b"Content-Encoding", named.encode("latin-1", "replace")),)) if named else None


def _is_document(response: aiohttp.ClientResponse) -> bool:
    return _OK <= response.status < _REDIRECTS and response.content_type == _JSON and _is_plain(response)


def _unreadable(message: str) -> TurnFault:
    return TurnFault(kind="unreadable", transport="http", message=message)
