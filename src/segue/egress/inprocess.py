"""Connections to a server in the same process, without a socket: a transport that is two bounded buffers in memory.

The server is any `asyncio.Protocol`, such as aiohttp's; it notices no difference, but for what `get_extra_info` says.
Each end slows the other down as a socket would. Not here: HTTP, and who may connect.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

import httpcore

#: What a server may have written that was not read yet, before it is asked to pause, and when it may go on.
_HIGH_BYTES: Final = 64 * 1024
_LOW_BYTES: Final = 16 * 1024
#: The server is given its data in pieces like those of a socket.
_PIECE_BYTES: Final = 64 * 1024


Factory: TypeAlias = Callable[[], asyncio.Protocol]


def connect_in_process(factory: Factory, extra: Mapping[str, object]) -> MemoryStream:
    """Connect to the server that `factory` makes a protocol of; `extra` is what its transport tells of the client."""
    transport = MemoryTransport(factory(), extra)
    transport.begin()
    return MemoryStream(transport)


class MemoryTransport(asyncio.Transport):
    """The server's end. What it writes waits in `outgoing` until the client reads it."""

    def __init__(self, protocol: asyncio.BaseProtocol, extra: Mapping[str, object]) -> None:
        super().__init__({"peername": ("127.0.0.1", 0), "sockname": ("127.0.0.1", 0), **extra})
        self._protocol = protocol
        self._loop = asyncio.get_running_loop()
        self._high, self._low = _HIGH_BYTES, _LOW_BYTES
        self._is_asked_to_pause = False
        self._has_ended = False  # nothing more comes from the server
        self._is_lost = False
        self.was_aborted = False
        self.outgoing = bytearray()
        self.may_read = asyncio.Event()  # there is something, or never will be
        self.may_write = asyncio.Event()
        self.may_write.set()

    def begin(self) -> None:
        """Tell the server of its connection."""
        self._protocol.connection_made(self)

    # --- the client's side

    def deliver(self, data: bytes) -> None:
        """Give the server bytes; the caller has waited for `may_write`."""
        assert isinstance(self._protocol, asyncio.Protocol)
        self._protocol.data_received(data)

    def take(self, most: int) -> bytes:
        """Take what the server wrote; `b""`: there is nothing."""
        data = bytes(self.outgoing[:most])
        del self.outgoing[:most]
        if self._is_asked_to_pause and len(self.outgoing) <= self._low:
            self._is_asked_to_pause = False
            self._protocol.resume_writing()
        if not self.outgoing and not self._has_ended:
            self.may_read.clear()
        return data

    def hang_up(self) -> None:
        """The client has gone."""
        self.outgoing.clear()
        self._lose(None)

    # --- the server's side: asyncio.Transport

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        """Send to the client; after the end it is dropped, as on a socket."""
        if self._has_ended or not data:
            return
        self.outgoing += data
        self.may_read.set()
        if len(self.outgoing) > self._high and not self._is_asked_to_pause:
            self._is_asked_to_pause = True
            self._protocol.pause_writing()

    def can_write_eof(self) -> bool:
        """One direction can end before the other."""
        return True

    def write_eof(self) -> None:
        """Write nothing more."""
        self._has_ended = True
        self.may_read.set()

    def close(self) -> None:
        """End both directions; the client still reads what was written."""
        self._lose(None)

    def abort(self) -> None:
        """Cut both directions."""
        if not self._is_lost:
            self.was_aborted = True
            self.outgoing.clear()
        self._lose(None)

    def is_closing(self) -> bool:
        """Whether the connection is lost, or about to be."""
        return self._is_lost

    def pause_reading(self) -> None:
        """Take nothing from the client for now."""
        if not self._is_lost:
            self.may_write.clear()

    def resume_reading(self) -> None:
        """Take from the client again."""
        self.may_write.set()

    def is_reading(self) -> bool:
        """Whether the client may send."""
        return self.may_write.is_set() and not self._is_lost

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Set when the server is asked to pause, and when it may go on."""
        if high is None:
            high = _HIGH_BYTES if low is None else 4 * low
        self._high, self._low = high, high // 4 if low is None else low

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """Return the limits, the low one first."""
        return self._low, self._high

    def get_write_buffer_size(self) -> int:
        """Return how much the client has not read yet."""
        return len(self.outgoing)

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Return who is told."""
        return self._protocol

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Tell somebody else from now on."""
        self._protocol = protocol

    def _lose(self, error: Exception | None) -> None:
        if self._is_lost:
            return
        self._is_lost = self._has_ended = True
        self.may_read.set()
        self.may_write.set()
        self._loop.call_soon(self._protocol.connection_lost, error)


class MemoryStream(httpcore.AsyncNetworkStream):
    """The client's end."""

    def __init__(self, transport: MemoryTransport) -> None:
        self._transport = transport
        self._is_closed = False

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109 - the interface is httpcore's
        """Return what the server sent; `b""`: it has closed."""
        try:
            async with asyncio.timeout(timeout):
                await self._transport.may_read.wait()
        except TimeoutError:
            raise httpcore.ReadTimeout("nothing came") from None
        if self._is_closed or self._transport.was_aborted:
            raise httpcore.ReadError("the connection was cut")
        return self._transport.take(max_bytes)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109 - the interface is httpcore's
        """Send to the server, as fast as it takes it."""
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
        """Hang up."""
        self._is_closed = True
        self._transport.hang_up()

    def get_extra_info(self, info: str) -> Any:  # noqa: ANN401 - the interface is httpcore's
        """Tell whether something, or the end, can be read; nothing else is known of a connection without a socket."""
        return self._transport.may_read.is_set() if info == "is_readable" else None
