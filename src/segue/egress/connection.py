"""One HTTP/1.1 connection to a target (RFC 9112): requests and their answers, one after the other.

h11 reads and writes the messages, and keeps the bytes of lines as they are. httpcore's own connection would not do: it
takes an unsolicited answer (a 408 before the server hangs up) for the answer to the next request, and it reads nothing
while it writes. Not here: when a connection is opened or kept (`pool`).
"""

from __future__ import annotations

import asyncio
import re
from contextlib import suppress
from typing import Final, TypeAlias

import h11
import httpcore

from segue.egress.chunked_content import ChunkedContent
from segue.http.heads import Line, ReplyHead, has_content, values

_READ_BYTES: Final = 64 * 1024
#: A body is written in pieces, so that encrypting 64 MB does not block the event loop.
_WRITE_BYTES: Final = 256 * 1024
#: A longer body is written by a task of its own, while an early answer can already be read.
_SHORT_BYTES: Final = 64 * 1024
_HEAD_BYTES: Final = 128 * 1024
#: Answers of 1xx before the one that counts. Nothing limits them otherwise: a server could go on for ever.
_MOST_INTERIM: Final = 20

#: As h11 ends a head.
_HEAD_END: Final = re.compile(rb"\n\r?\n")

_AnyEvent: TypeAlias = h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]


class HttpConnection:
    """A connection. `silence_s` is the timeout for the next byte of an answer; None: no timeout."""

    def __init__(self, stream: httpcore.AsyncNetworkStream, *, silence_s: float | None) -> None:
        self.sent = False
        """A byte of the present request was, or may have been, written."""
        self._stream = stream
        self._silence_s = silence_s
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=_HEAD_BYTES)
        self._writer: asyncio.Task[None] | None = None
        self._timeout: asyncio.Timeout | None = None
        self._ahead = b""
        """What has come behind a head, and is not for `_http` yet."""
        self._chunks: ChunkedContent | None = None
        self._content_ended = False
        """The end of the content was read from `_http`."""

    async def ask(self, request: h11.Request, body: bytes = b"") -> ReplyHead:
        """Send a request and return the head of its answer, with all lines; skip interim answers.

        Raises:
            h11.RemoteProtocolError, httpcore.TimeoutException, httpcore.NetworkError: there is no answer.
        """
        self.sent = self._content_ended = False
        begin = self._http.send(request)
        assert begin is not None
        self.sent = True
        if len(body) > _SHORT_BYTES:
            self._writer = asyncio.get_running_loop().create_task(self._write_long(begin, body))
        else:
            with suppress(
                httpcore.WriteError
            ):  # the server may have refused the request and hung up: its answer is read below
                await self._stream.write(begin + self._body(body) + self._end(), self._silence_s)
        for _ in range(_MOST_INTERIM + 1):
            match await self._head_event():
                case h11.InformationalResponse(status_code=101) as event:
                    return _reply_head(event)
                case h11.Response() as event:
                    head = _reply_head(event)
                    self._begin_content(head, request.method)
                    return head
                case _:
                    pass
        raise h11.RemoteProtocolError("more interim answers than anybody needs")

    async def read(self) -> bytes:
        """Return what has come of the content, at most 64 KB, as soon as something has; `b""` at its end.

        Raises:
            h11.RemoteProtocolError, httpcore.TimeoutException, httpcore.NetworkError: the content is cut off.
        """
        while self._chunks is not None:
            piece = await self._read_chunks(self._chunks)
            if piece:
                return piece
        if self._content_ended:
            return b""
        event: _AnyEvent = await self._event()
        pieces: list[bytes] = []
        while isinstance(event, h11.Data):
            pieces.append(bytes(event.data))
            try:
                event = self._http.next_event()
            except h11.RemoteProtocolError:  # it is raised again when the caller has taken what came before
                break
        self._content_ended = event is not h11.NEED_DATA and not isinstance(event, h11.Data)
        return b"".join(pieces)

    def upgrade(self) -> tuple[httpcore.AsyncNetworkStream, bytes]:
        """After a 101: return the network stream, and the bytes that were already read from it."""
        return self._stream, self._ahead

    def is_alive(self) -> bool:
        """Tell whether a kept connection is still usable: if anything can be read now, the server has hung up or will.

        Call this right before you write a request: then hardly any request is written to a dead connection.
        """
        return not self._stream.get_extra_info("is_readable")

    async def finish(self) -> bool:
        """After an answer: prepare the next request, or close. Return whether the connection can be used again."""
        done = self._http.our_state is h11.DONE and self._http.their_state is h11.DONE
        if not done or self._http.trailing_data[0] or self._ahead:
            await self.aclose()
            return False
        self._http.start_next_cycle()
        return True

    async def aclose(self) -> None:
        """Close at once: unsent bytes are dropped, and a reader gets an error."""
        if self._writer is not None:
            self._writer.cancel()
        await self._stream.aclose()

    async def _head_event(self) -> h11.Event | type[h11.PAUSED]:
        """Return what the next head is; `_http` gets no byte behind it."""
        while True:
            end = _HEAD_END.search(self._ahead)
            if end is not None or len(self._ahead) > _HEAD_BYTES:
                size = len(self._ahead) if end is None else end.end()
                given, self._ahead = self._ahead[:size], self._ahead[size:]
                self._http.receive_data(given)
                return await self._event()
            data = await self._receive()
            if not data:
                raise httpcore.ReadError("closed without an answer")
            self._ahead += data

    def _begin_content(self, head: ReplyHead, method: bytes) -> None:
        """Have the content read: by `_http`, or beside it if it is chunked."""
        if has_content(method, head.status) and values(head.lines, b"transfer-encoding"):
            self._chunks = ChunkedContent()
            self._chunks.feed(self._ahead)
        elif self._ahead:  # no bytes at all would tell h11 that the connection has ended
            self._http.receive_data(self._ahead)
        self._ahead = b""

    async def _read_chunks(self, chunks: ChunkedContent) -> bytes:
        """Return content that has come in chunks; `b""`: look again, in `_http` if there are no chunks any more."""
        try:
            piece = chunks.read()
        except ValueError as error:
            raise h11.RemoteProtocolError(str(error)) from None
        if chunks.ended:
            self._chunks = None
            self._http.receive_data(chunks.rest)
        elif not piece:
            data = await self._receive()
            if data:
                chunks.feed(data)
            else:
                self._chunks = None
                self._http.receive_data(b"")
        return piece

    def _body(self, data: bytes) -> bytes:
        return (self._http.send(h11.Data(data=data)) or b"") if data else b""

    def _end(self) -> bytes:
        return self._http.send(h11.EndOfMessage()) or b""

    async def _write_long(self, begin: bytes, body: bytes) -> None:
        """Write a long request. If that fails, the reader of the answer gets an error."""
        try:
            await self._stream.write(begin, self._silence_s)
            for start in range(0, len(body), _WRITE_BYTES):
                await self._stream.write(self._body(body[start : start + _WRITE_BYTES]), self._silence_s)
            self._end()
        except httpcore.TimeoutException:
            await self._stream.aclose()
        except (httpcore.NetworkError, h11.LocalProtocolError, OSError):
            pass  # the server may have answered before it closed; the reader tells which
        finally:
            self._writer = None
            if self._timeout is not None:
                self._timeout.reschedule(self._deadline())

    def _deadline(self) -> float | None:
        """Return when the answer times out: its time begins when the request is written."""
        if self._silence_s is None or self._writer is not None:
            return None
        return asyncio.get_running_loop().time() + self._silence_s

    async def _event(self) -> h11.Event | type[h11.PAUSED]:
        while True:
            event = self._http.next_event()
            if event is not h11.NEED_DATA:
                assert not isinstance(event, type) or event is h11.PAUSED
                return event
            self._http.receive_data(await self._receive())

    async def _receive(self) -> bytes:
        if self._silence_s is None:
            return await self._stream.read(_READ_BYTES)
        try:
            async with asyncio.timeout_at(self._deadline()) as self._timeout:
                return await self._stream.read(_READ_BYTES)
        except TimeoutError:
            raise httpcore.ReadTimeout("nothing came") from None
        finally:
            self._timeout = None


def _reply_head(event: h11.Response | h11.InformationalResponse) -> ReplyHead:
    lines = tuple(Line(bytes(name), bytes(value)) for name, value in event.headers.raw_items())
    return ReplyHead(event.status_code, bytes(event.reason), lines)
