"""A WebSocket client that uses as little CPU as possible, to measure servers with.

It masks with zeros (a valid mask that changes nothing), looks only at the beginning of an event to see whether it is
the last, and notes when each one arrived. It reads one turn at a time, as uncompressed and unfragmented text, and fails
on everything else. Use it for measuring only.
"""

from __future__ import annotations

import asyncio
import struct
import time
from typing import cast

import msgspec

_TEXT = 0x81  # FIN and the opcode of a text frame (RFC 6455, 5.2)
_MASKED = 0x80
_MASK = bytes(4)
_LAST = tuple(b'{"type":"response.%b"' % status for status in (b"completed", b"incomplete", b"failed"))
_ERROR = b'{"error":'
_DELTA = b'{"type":"response.output_text.delta"'
_DONE = b'{"type":"response.output_item.done"'
_HANDSHAKE = (
    "GET /v1/responses HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


class TurnRefusedError(RuntimeError):
    """The server refused the turn or the upgrade; the message is its answer."""


class TimedReply(msgspec.Struct, frozen=True):
    """The answer to one turn: its events, each with the time it arrived (`time.perf_counter_ns`)."""

    begun_ns: int
    events: list[bytes]
    arrived_ns: list[int]
    bytes_up: int
    bytes_down: int

    @property
    def response_id(self) -> str:
        """The id of the response."""
        _, _, rest = self.events[-1].partition(b'"id":"')
        return rest.partition(b'"')[0].decode()

    @property
    def first_s(self) -> float:
        """Seconds to the first piece of text."""
        pairs = zip(self.events, self.arrived_ns, strict=True)
        return next((at - self.begun_ns for event, at in pairs if event.startswith(_DELTA)), 0) / 1e9

    @property
    def time_s(self) -> float:
        """Seconds to the last event."""
        return (self.arrived_ns[-1] - self.begun_ns) / 1e9

    def latencies_ns(self) -> list[int]:
        """For the stamped model: how long each delta was on its way."""
        pairs = zip(self.events, self.arrived_ns, strict=True)
        return [at - int(_between(event, b'"delta":"', b'"')) for event, at in pairs if event.startswith(_DELTA)]

    def item_bytes(self) -> int:
        """The bytes of the finished items."""
        done = (event for event in self.events if event.startswith(_DONE))
        return sum(len(_between(event, b'"item":', b',"sequence_number"')) for event in done)


class MeasuringSocket(asyncio.Protocol):
    """One connection."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiter: asyncio.Future[None] = self._loop.create_future()
        self._upgraded = False
        self._buffer = bytearray()
        self._events: list[bytes] = []
        self._arrived_ns: list[int] = []
        self._bytes_down = 0

    async def turn(self, create: bytes) -> TimedReply:
        """Send one create and read events up to the last one.

        Raises:
            TurnRefusedError: the server answered with an error, or the response failed.
        """
        frame = _frame(create)
        self._events, self._arrived_ns, self._bytes_down = [], [], 0
        self._waiter = self._loop.create_future()
        begun_ns = time.perf_counter_ns()
        self._transport.write(frame)
        await self._waiter
        last = self._events[-1]
        if last.startswith((_ERROR, _LAST[-1])):
            raise TurnRefusedError(last.decode())
        return TimedReply(begun_ns, self._events, self._arrived_ns, len(frame), self._bytes_down)

    def close(self) -> None:
        """Drop the connection."""
        self._transport.abort()

    async def upgrade(self, host: str, port: int) -> None:
        """Shake hands."""
        self._transport.write(_HANDSHAKE.format(host=host, port=port).encode())
        await self._waiter

    # --- asyncio.Protocol --------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's do not derive from it

    def data_received(self, data: bytes) -> None:
        """Split the data into events; the last one ends the turn."""
        now = time.perf_counter_ns()
        self._buffer += data
        self._bytes_down += len(data)
        if not self._upgraded:
            self._read_head()
            return
        while (payload := self._take_frame()) is not None:
            self._events.append(payload)
            self._arrived_ns.append(now)
            if payload.startswith(_LAST) or payload.startswith(_ERROR):
                self._finish(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """End the running turn, if there is one."""
        self._finish(exc or ConnectionResetError("the server closed the connection"))

    def _read_head(self) -> None:
        head, end, rest = self._buffer.partition(b"\r\n\r\n")
        if not end:
            return
        if not head.startswith(b"HTTP/1.1 101 "):
            self._finish(TurnRefusedError(bytes(self._buffer).decode()))
            return
        self._upgraded = True
        self._buffer = rest
        self._finish(None)

    def _take_frame(self) -> bytes | None:
        """Take one whole frame from the buffer, if there is one."""
        buffer = self._buffer
        if len(buffer) < 2:  # noqa: PLR2004 - RFC 6455, 5.2: the smallest frame
            return None
        if buffer[0] != _TEXT:
            self._finish(TurnRefusedError(f"not a text message: {bytes(buffer[:200])!r}"))
            self._transport.abort()
            return None
        size, start = buffer[1], 2
        if size == 126:  # noqa: PLR2004 - RFC 6455, 5.2: the longer forms of a length
            size, start = int.from_bytes(buffer[2:4], "big"), 4
        elif size == 127:  # noqa: PLR2004 - as above
            size, start = int.from_bytes(buffer[2:10], "big"), 10
        if len(buffer) < start + size:
            return None
        payload = bytes(buffer[start : start + size])
        del buffer[: start + size]
        return payload

    def _finish(self, error: Exception | None) -> None:
        if self._waiter.done():
            return
        if error is None:
            self._waiter.set_result(None)
        else:
            self._waiter.set_exception(error)
            self._waiter.exception()  # nobody may be waiting


async def connect(host: str, port: int) -> MeasuringSocket:
    """Open a connection in WebSocket mode."""
    _, socket = await asyncio.get_running_loop().create_connection(MeasuringSocket, host, port)
    await socket.upgrade(host, port)
    return socket


def _frame(payload: bytes) -> bytes:
    size = len(payload)
    if size < 126:  # noqa: PLR2004 - RFC 6455, 5.2: the three forms of a length
        head = struct.pack("!BB", _TEXT, _MASKED | size)
    elif size < 0x10000:  # noqa: PLR2004 - as above
        head = struct.pack("!BBH", _TEXT, _MASKED | 126, size)
    else:
        head = struct.pack("!BBQ", _TEXT, _MASKED | 127, size)
    return b"".join((head, _MASK, payload))


def _between(text: bytes, start: bytes, end: bytes) -> bytes:
    return text.partition(start)[2].partition(end)[0]
