"""The near end of a WebSocket to a target (RFC 6455): its frames; whole messages are passed on.

It speaks no extension: what one hop compressed, the next one need not compress too. Not here: connecting, and the
handshake (`segue.http.websocket`).
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from typing import Final, Literal

from wsproto.connection import CLIENT, Connection, ConnectionState
from wsproto.events import BytesMessage, CloseConnection, Event, Ping, Pong, TextMessage
from wsproto.frame_protocol import CloseReason

from segue.egress.errors import NETWORK_ERRORS, EgressError, egress_error
from segue.egress.limits import EgressLimits
from segue.egress.pool import Lease
from segue.http.heads import ReplyHead, end_to_end
from segue.http.websocket import ABNORMAL_CLOSURE, WebSocketClose, WebSocketMessage

#: What a close frame never carries (RFC 6455, 7.4.1): no close frame came, or TLS failed.
_NEVER_SENT: Final = frozenset({ABNORMAL_CLOSURE, 1015})
_CODES: Final = range(1000, 5000)

_READ_BYTES: Final = 64 * 1024
_WRITE_BYTES: Final = 256 * 1024


class OutboundWebSocket:
    """A WebSocket. Receive until there is a `WebSocketClose`, or abort: either frees the connection.

    One task receives and others send. Both directions have backpressure.
    """

    def __init__(self, head: ReplyHead, *, lease: Lease, limits: EgressLimits) -> None:
        self.head = ReplyHead(head.status, head.reason, end_to_end(head.lines, "websocket"))
        self._stream, begin = lease.connection.upgrade()
        self._lease = lease
        self._limits = limits
        self._protocol = Connection(CLIENT, trailing_data=begin)
        self._events = deque(self._protocol.events())
        self._parts: list[bytes] = []
        self._size = 0
        self._writing = asyncio.Lock()
        self._pong: Pong | None = None
        self._timeout: asyncio.Timeout | None = None
        self._close_at: float | None = None
        self._end: WebSocketClose | None = None

    async def receive(self) -> WebSocketMessage | WebSocketClose:
        """Return the next message, or the close; its code is 1006 if the connection was cut without a close frame."""
        while self._end is None:
            while self._events:
                received = await self._take(self._events.popleft())
                if received is not None:
                    return received
            data = await self._read()
            if not data:
                return await self._ended(WebSocketClose(ABNORMAL_CLOSURE, b""))
            self._protocol.receive_data(data)
            self._events.extend(self._protocol.events())
        return self._end

    async def send(self, message: WebSocketMessage) -> None:
        """Send a message, and return when the target keeps up.

        Raises:
            EgressError: the WebSocket is closed, or a text message is not UTF-8.
        """
        try:
            data: str | bytes = message.data.decode("utf-8") if message.opcode == "text" else message.data
        except UnicodeDecodeError:
            raise EgressError("invalid_request", "a text message is not in UTF-8", sent=False) from None
        event = TextMessage(data=data) if isinstance(data, str) else BytesMessage(data=data)
        async with self._writing:
            if self._protocol.state is not ConnectionState.OPEN:
                raise EgressError("upstream_closed", f"{self._lease.name} has closed the WebSocket", sent=False)
            try:
                await self._write(event)
            except NETWORK_ERRORS as error:
                raise egress_error(error, self._lease.name, sent=True) from error

    async def close(self, code: int, reason: bytes = b"") -> None:
        """Send a close frame; `receive` then returns the messages that still come, and soon the target's close.

        A code that no close frame carries, such as 1006, cuts the connection.
        """
        if code in _NEVER_SENT or code not in _CODES:
            await self.abort()
            return
        try:
            async with asyncio.timeout(self._limits.close_s), self._writing:
                if self._protocol.state is not ConnectionState.OPEN:
                    return
                self._close_at = asyncio.get_running_loop().time() + self._limits.close_s
                if self._timeout is not None:
                    self._timeout.reschedule(self._close_at)
                await self._write(_close_event(code, reason))
        except NETWORK_ERRORS:  # a timeout is one of them: the target reads nothing; `receive` returns the close
            await self.abort()

    async def abort(self) -> None:
        """Cut the connection; `receive` returns 1006 if no close came before."""
        await self._ended(WebSocketClose(ABNORMAL_CLOSURE, b""))

    async def _take(self, event: Event) -> WebSocketMessage | WebSocketClose | None:
        match event:
            case TextMessage(data=text):
                return await self._gather("text", text.encode("utf-8"), last=event.message_finished)
            case BytesMessage(data=data):
                return await self._gather("binary", bytes(data), last=event.message_finished)
            case Ping():
                await self._answer(event.response())
            case CloseConnection(code=code, reason=reason):
                return await self._take_close(WebSocketClose(int(code), (reason or "").encode("utf-8")))
            case _:
                pass
        return None

    async def _gather(
        self, opcode: Literal["text", "binary"], data: bytes, *, last: bool
    ) -> WebSocketMessage | WebSocketClose | None:
        self._size += len(data)
        if self._size > self._limits.message_bytes:
            return await self._take_close(
                WebSocketClose(CloseReason.MESSAGE_TOO_BIG, b"the message is too big to be passed on")
            )
        self._parts.append(data)
        if not last:
            return None
        message = WebSocketMessage(opcode, b"".join(self._parts))
        self._parts, self._size = [], 0
        return message

    async def _take_close(self, close: WebSocketClose) -> WebSocketClose:
        """Answer a close frame with its own code, or send one that says what is wrong; then end."""
        with suppress(*NETWORK_ERRORS):  # a timeout is one of them: a target that closes need not read any more
            async with asyncio.timeout(self._limits.close_s), self._writing:
                if self._protocol.state in (ConnectionState.OPEN, ConnectionState.REMOTE_CLOSING):
                    await self._write(_close_event(close.code, close.reason))
        return await self._ended(close)

    async def _answer(self, pong: Pong) -> None:
        """Answer a ping at once; while a message is being sent, answer only the last one, after it (RFC 6455, 5.5.3).

        Waiting for that message here would deadlock with a target that reads nothing while it writes.
        """
        if self._writing.locked():
            self._pong = pong
            return
        async with self._writing:
            if self._protocol.state is ConnectionState.OPEN:
                with suppress(*NETWORK_ERRORS):  # the next read fails too
                    await self._write(pong)

    async def _read(self) -> bytes:
        try:
            async with asyncio.timeout_at(self._close_at) as self._timeout:
                return await self._stream.read(_READ_BYTES)
        except NETWORK_ERRORS:  # a timeout is one of them: the target did not answer our close frame
            return b""
        finally:
            self._timeout = None

    async def _write(self, event: Event) -> None:
        """Write one event; the caller holds the lock. If it fails in the middle of a frame, the WebSocket ends."""
        data = self._protocol.send(event)
        try:
            for start in range(0, len(data), _WRITE_BYTES):
                await self._stream.write(data[start : start + _WRITE_BYTES])
        except BaseException:
            await self._ended(WebSocketClose(ABNORMAL_CLOSURE, b""))
            raise
        pong, self._pong = self._pong, None
        if pong is not None and self._protocol.state is ConnectionState.OPEN:
            await self._write(pong)

    async def _ended(self, close: WebSocketClose) -> WebSocketClose:
        if self._end is None:
            self._end = close
            await self._lease.aclose()
        return self._end


def _close_event(code: int, reason: bytes) -> CloseConnection:
    if code == CloseReason.NO_STATUS_RCVD:
        return CloseConnection(code=CloseReason.NO_STATUS_RCVD)
    return CloseConnection(code=code, reason=reason.decode("utf-8", "replace"))
