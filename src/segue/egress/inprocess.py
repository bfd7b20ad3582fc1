"""Connections to a server in the same process, without a socket: a transport with two bounded buffers in memory.

The server is any `asyncio.Protocol`, such as aiohttp's; it sees no difference except in `get_extra_info`. Both
directions have backpressure, as on a socket. Not here: HTTP, and who may connect.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

import httpcore

#: The bytes that the client has not read yet: at the high mark the server is paused, at the low mark it resumes.
_HIGH_BYTES: Final = 64 * 1024
_LOW_BYTES: Final = 16 * 1024
#: The server gets its data in pieces like those of a socket.
_PIECE_BYTES: Final = 64 * 1024


ProtocolFactory: TypeAlias = Callable[[], asyncio.Protocol]


def connect_in_process(factory: ProtocolFactory, extra: Mapping[str, object]) -> MemoryStream:
    """Connect to the server whose protocol `factory` makes; its transport returns `extra` by `get_extra_info`."""
    transport = MemoryTransport(factory(), extra)
    transport.begin()
    return MemoryStream(transport)


class MemoryTransport(asyncio.Transport):
    """The server's end. `outgoing` holds what it writes until the client reads it."""

    def __init__(self, protocol: asyncio.BaseProtocol, extra: Mapping[str, object]) -> None:
        super().__init__({"peername": ("127.0.0.1", 0), "sockname": ("127.0.0.1", 0), **extra})
        self._protocol = protocol
        self._loop = asyncio.get_running_loop()
        self._high, self._low = _HIGH_BYTES, _LOW_BYTES
        self._paused = False
        self._eof = False  # the server writes no more
        self._lost = False
        self.aborted = False
        self.outgoing = bytearray()
        self.may_read = asyncio.Event()  # there are bytes, or there is the end
        self.may_write = asyncio.Event()
        self.may_write.set()

    def begin(self) -> None:
        """Give the server its connection."""
        self._protocol.connection_made(self)

    # --- the client's side

    def deliver(self, data: bytes) -> None:
        """Pass bytes to the server; wait for `may_write` before."""
        assert isinstance(self._protocol, asyncio.Protocol)
        self._protocol.data_received(data)

    def take(self, most: int) -> bytes:
        """Take bytes that the server wrote; `b""` if there are none."""
        data = bytes(self.outgoing[:most])
        del self.outgoing[:most]
        if self._paused and len(self.outgoing) <= self._low:
            self._paused = False
            self._protocol.resume_writing()
        if not self.outgoing and not self._eof:
            self.may_read.clear()
        return data

    def hang_up(self) -> None:
        """Close the client's side."""
        self.outgoing.clear()
        self._lose(None)

    # --- the server's side: asyncio.Transport

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        """Send to the client; bytes after the end are dropped, as on a socket."""
        if self._eof or not data:
            return
        self.outgoing += data
        self.may_read.set()
        if len(self.outgoing) > self._high and not self._paused:
            self._paused = True
            self._protocol.pause_writing()

    def can_write_eof(self) -> bool:
        """Return true: one direction can end before the other."""
        return True

    def write_eof(self) -> None:
        """Write nothing more."""
        self._eof = True
        self.may_read.set()

    def close(self) -> None:
        """End both directions; the client still reads what was written."""
        self._lose(None)

    def abort(self) -> None:
        """Cut both directions."""
        if not self._lost:
            self.aborted = True
            self.outgoing.clear()
        self._lose(None)

    def is_closing(self) -> bool:
        """Tell whether the connection is closed, or about to be."""
        return self._lost

    def pause_reading(self) -> None:
        """Stop the client from sending."""
        if not self._lost:
            self.may_write.clear()

    def resume_reading(self) -> None:
        """Let the client send again."""
        self.may_write.set()

    def is_reading(self) -> bool:
        """Tell whether the client may send."""
        return self.may_write.is_set() and not self._lost

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Set the marks at which the server is paused and resumed."""
        if high is None:
            high = _HIGH_BYTES if low is None else 4 * low
        self._high, self._low = high, high // 4 if low is None else low

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """Return the marks, the low one first."""
        return self._low, self._high

    def get_write_buffer_size(self) -> int:
        """Return how many bytes the client has not read yet."""
        return len(self.outgoing)

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Return the server's protocol."""
        return self._protocol

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Replace the server's protocol."""
        self._protocol = protocol

    def _lose(self, error: Exception | None) -> None:
        if self._lost:
            return
        self._lost = self._eof = True
        self.may_read.set()
        self.may_write.set()
        self._loop.call_soon(self._protocol.connection_lost, error)


class MemoryStream(httpcore.AsyncNetworkStream):
    """The client's end."""

    def __init__(self, transport: MemoryTransport) -> None:
        self._transport = transport
        self._closed = False

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109 - the interface is httpcore's
        """Return bytes that the server sent; `b""` if it has closed."""
        try:
            async with asyncio.timeout(timeout):
                await self._transport.may_read.wait()
        except TimeoutError:
            raise httpcore.ReadTimeout("nothing came") from None
        if self._closed or self._transport.aborted:
            raise httpcore.ReadError("the connection was cut")
        return self._transport.take(max_bytes)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109 - the interface is httpcore's
        """Send to the server, as fast as it reads."""
        for start in range(0, len(buffer), _PIECE_BYTES):
            try:
                async with asyncio.timeout(timeout):
                    await self._transport.may_write.wait()
            except TimeoutError:
                raise httpcore.WriteTimeout("the server reads nothing") from None
            if self._transport.is_closing():
                raise httpcore.WriteError("the connection was closed")
            self._transport.deliver(bytes(buffer[start : start + _PIECE_BYTES]))
            await asyncio.sleep(0)  # the server gets its turn before the next piece, as it would between two reads

    async def aclose(self) -> None:
        """Close the connection."""
        self._closed = True
        self._transport.hang_up()

    def get_extra_info(self, info: str) -> Any:  # noqa: ANN401 - the interface is httpcore's
        """Tell whether bytes, or the end, can be read; a connection without a socket has no other info."""
        return self._transport.may_read.is_set() if info == "is_readable" else None
