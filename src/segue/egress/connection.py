"""One HTTP/1.1 connection to a target (RFC 9112): requests and their answers, one after the other.

An answer that comes before the request is out is read at once, and an answer that nobody asked for (a 408 before the
server hangs up) is never taken for that to the next request. What comes can be passed on before the task that reads is
woken (`pass_on`). Not here: what a head means (`segue.http.reply_rules`), and when a connection is opened or kept
(`pool`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import httpcore
import msgspec

from segue.egress.errors import NETWORK_ERRORS
from segue.egress.network import PushingStream
from segue.http.heads import Line, ReplyHead
from segue.http.message_content import MessageContent, content_of
from segue.http.reply_rules import BadReply, read_reply_head, reply_head_end

_READ_BYTES: Final = 64 * 1024
#: A body is written in pieces, so that encrypting 64 MB does not block the event loop.
_WRITE_BYTES: Final = 256 * 1024
#: A longer body is written by a task of its own, while an early answer can already be read.
_SHORT_BYTES: Final = 64 * 1024
_HEAD_BYTES: Final = 128 * 1024
#: Answers of 1xx before the one that counts. Nothing limits them otherwise: a server could go on for ever.
_MOST_INTERIM: Final = 20
_SWITCHING_PROTOCOLS: Final = 101
_FIRST_FINAL_STATUS: Final = 200


class OutboundRequest(msgspec.Struct, frozen=True):
    """A request without its body, as it is sent. `upgrades`: it asks for another protocol."""

    method: bytes
    head: bytes
    upgrades: bool = False


class HttpConnection:
    """A connection. `silence_s` is the timeout for the next byte of an answer; None: no timeout."""

    def __init__(self, stream: httpcore.AsyncNetworkStream, *, silence_s: float | None) -> None:
        self.sent = False
        """A byte of the present request was, or may have been, written."""
        self._stream = stream
        self._pushing = stream if isinstance(stream, PushingStream) else None
        self._silence_s = silence_s
        self._written = False
        """The present request was written to its end."""
        self._writer: asyncio.Task[None] | None = None
        self._timeout: asyncio.Timeout | None = None
        self._ahead = b""
        """What has come, and is not of the content."""
        self._searched = 0
        self._interim = 0
        self._request: OutboundRequest | None = None
        self._head: ReplyHead | None = None
        """The head of the answer, once it is here."""
        self.passed_on: tuple[Line, ...] | None = None
        """The lines of the answer that are passed on, if it is a usual one with content in no coding."""
        self._pass_on: Callable[[ReplyHead], bool] | None = None
        self._content: MessageContent | None = None
        self._persistent = False

    async def ask(
        self, request: OutboundRequest, body: bytes = b"", *, pass_on: Callable[[ReplyHead], bool] | None = None
    ) -> ReplyHead:
        """Send a request and return the head of its answer, with all lines; skip interim answers.

        `pass_on` is called with the head whenever something has come of the answer. It may `take` that, and returns
        False where the task that reads has to go on.

        Raises:
            httpcore.RemoteProtocolError, httpcore.TimeoutException, httpcore.NetworkError: there is no answer.
        """
        self._content, self._persistent, self._written = None, False, False
        self.passed_on = None
        self._request, self._head, self._interim, self._searched = request, None, 0, 0
        self.sent = True
        if self._pushing is not None and pass_on is not None:
            self._pass_on = pass_on
            self._pushing.call_on_arrival(self._on_arrival)
        if len(body) > _SHORT_BYTES:
            self._writer = asyncio.get_running_loop().create_task(self._write_long(request.head, body))
        else:
            with suppress(
                httpcore.WriteError
            ):  # the server may have refused the request and hung up: its answer is read below
                await self._stream.write(request.head + body, self._silence_s)
                self._written = True
        while (head := self._take_head()) is None:
            await self._wait()
        return head

    async def read(self) -> bytes:
        """Return what has come of the content, at most 64 KB, as soon as something has; `b""` at its end.

        Raises:
            httpcore.RemoteProtocolError, httpcore.TimeoutException, httpcore.NetworkError: the content is cut off.
        """
        while (piece := self.take()) is None:
            await self._wait()
        return piece

    def take(self) -> bytes | None:
        """Return what has come of the content, as `read` does; None: nothing has come yet.

        Raises:
            httpcore.RemoteProtocolError, httpcore.NetworkError: the content is cut off.
        """
        content = self._content
        assert content is not None, "ask() comes first"
        try:
            while True:
                piece = content.read()
                if piece or content.complete:
                    return piece
                data = None if self._pushing is None else self._pushing.take(_READ_BYTES)
                if data is None:
                    return None
                self._add(data)
        except ValueError as error:
            raise httpcore.RemoteProtocolError(str(error)) from None

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
        self._ignore_arrivals()
        content = self._content
        done = self._written and self._persistent and content is not None and content.complete
        if content is None or not done or content.rest:
            await self.aclose()
            return False
        return True

    async def aclose(self) -> None:
        """Close at once: unsent bytes are dropped, and a reader gets an error."""
        self._ignore_arrivals()
        if self._writer is not None:
            self._writer.cancel()
        await self._stream.aclose()

    # --- what comes --------------------------------------------------------------------------------------------------

    def _on_arrival(self) -> bool:
        """Have what has come passed on before any task is woken; False: the task that reads has to go on.

        It meets the same fault, if there is one.
        """
        try:
            head = self._take_head()
            return (head is None or self._pass_on is None or self._pass_on(head)) and self._timeout is None
        except NETWORK_ERRORS:
            return False

    def _ignore_arrivals(self) -> None:
        if self._pushing is not None and self._pass_on is not None:
            self._pushing.call_on_arrival(None)
            self._pass_on = None

    def _take_head(self) -> ReplyHead | None:
        """Return the head of the answer when it is here, and take no byte behind it; None: it has not come yet."""
        while self._head is None:
            if len(self._ahead) == self._searched:
                if self._searched > _HEAD_BYTES:  # looked at here, so that whoever takes next meets it again
                    raise httpcore.RemoteProtocolError("the head is too large")
                data = None if self._pushing is None else self._pushing.take(_READ_BYTES)
                if data is None:
                    return None
                if not data:
                    raise httpcore.ReadError("closed without an answer")
                self._ahead += data
            end = reply_head_end(self._ahead, self._searched)
            if end is not None:
                self._take_one_head(end)
                continue
            self._searched = len(self._ahead)
        return self._head

    def _take_one_head(self, end: int) -> None:
        """Take a head: that of the answer, or one of an interim answer, which is skipped."""
        assert self._request is not None, "it is what is answered"
        received = read_reply_head(self._ahead[:end], self._request.method)
        if isinstance(received, BadReply):
            raise httpcore.RemoteProtocolError(received.reason)
        if received.head.status >= _FIRST_FINAL_STATUS:
            self._content = content_of(received.framing, self._ahead[end:])
            self._head, self._ahead, self._persistent = received.head, b"", received.persistent
            self.passed_on = received.passed_on
            return
        if received.head.status == _SWITCHING_PROTOCOLS:
            if not self._request.upgrades:
                raise httpcore.RemoteProtocolError("it switches to a protocol that nobody asked for")
            self._head = received.head
        elif self._interim == _MOST_INTERIM:
            raise httpcore.RemoteProtocolError("more interim answers than anybody needs")
        self._ahead, self._searched, self._interim = self._ahead[end:], 0, self._interim + 1

    def _add(self, data: bytes) -> None:
        """Add what has come next to the head or to the content; `b""`: its end."""
        if self._content is None:
            if not data:
                raise httpcore.ReadError("closed without an answer")
            self._ahead += data
        elif data:
            self._content.feed(data)
        else:
            self._content.end()

    async def _write_long(self, begin: bytes, body: bytes) -> None:
        """Write a long request. If that fails, the reader of the answer gets an error."""
        try:
            await self._stream.write(begin, self._silence_s)
            for start in range(0, len(body), _WRITE_BYTES):
                await self._stream.write(body[start : start + _WRITE_BYTES], self._silence_s)
            self._written = True
        except httpcore.TimeoutException:
            await self._stream.aclose()
        except (httpcore.NetworkError, OSError):
            pass  # the server may have answered before it closed; the reader tells which
        finally:
            self._writer = None
            if self._timeout is not None and self._silence_s is not None:
                self._timeout.reschedule(asyncio.get_running_loop().time() + self._silence_s)

    async def _wait(self) -> None:
        """Return when something more has come."""
        if self._silence_s is None or self._writer is None:
            await self._receive(self._silence_s)
            return
        try:
            async with asyncio.timeout_at(None) as self._timeout:  # until the request is written
                await self._receive(None)
        except TimeoutError:
            raise httpcore.ReadTimeout("nothing came") from None
        finally:
            self._timeout = None

    async def _receive(self, silence_s: float | None) -> None:
        if self._pushing is not None:
            await self._pushing.wait(silence_s)
            return
        data = await self._stream.read(_READ_BYTES, silence_s)
        try:
            self._add(data)
        except ValueError as error:
            raise httpcore.RemoteProtocolError(str(error)) from None
