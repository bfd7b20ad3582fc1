"""Counts what aiohttp's client sends and receives on its connections, to the byte, and notes when the last byte came.

Of a connection with TLS these are the bytes within it: the plain HTTP and WebSocket traffic with its heads, framing,
masks and compression. Not here: the headers of TLS, TCP and IP.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, NamedTuple

from segue.http_client.interim_replies import InterimBound

#: The name under which a connection's transport has its meter: `transport.get_extra_info(WIRE_METER)`.
WIRE_METER = "segue_wire_meter"


class WireCount(NamedTuple):
    """Bytes to the server and from it."""

    sent_bytes: int
    received_bytes: int

    def plus(self, other: WireCount) -> WireCount:
        """Return the sum."""
        return WireCount(self.sent_bytes + other.sent_bytes, self.received_bytes + other.received_bytes)


NOTHING_CARRIED = WireCount(0, 0)


class WireMeter:
    """What went over one connection, or over several. `received_at` is in the event loop's time."""

    __slots__ = ("_taken", "connections", "received_at", "received_bytes", "sent_bytes", "whole")

    def __init__(self, whole: WireMeter | None = None) -> None:
        self.whole = whole
        """The meter of all connections, of which this is one."""
        self.connections = 0
        self.sent_bytes = 0
        self.received_bytes = 0
        self.received_at = 0.0
        self._taken = NOTHING_CARRIED

    def take(self) -> WireCount:
        """Return what was carried since the last call."""
        taken, self._taken = self._taken, WireCount(self.sent_bytes, self.received_bytes)
        return WireCount(self.sent_bytes - taken.sent_bytes, self.received_bytes - taken.received_bytes)

    def sent(self, size: int) -> None:
        """Count bytes that were written."""
        self.sent_bytes += size
        if self.whole is not None:
            self.whole.sent(size)

    def received(self, size: int, now: float) -> None:
        """Count bytes that came."""
        self.received_bytes += size
        self.received_at = now
        if self.whole is not None:
            self.whole.received(size, now)


class MeteredHandler(InterimBound):
    """aiohttp's protocol for a connection, with a meter."""

    def __init__(self, whole: WireMeter, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._meter = WireMeter(whole)
        self._clock = loop.time

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Put the meter between aiohttp and the transport."""
        if self._meter.whole is not None:
            self._meter.whole.connections += 1
        self._meter.received_at = self._clock()
        # uvloop's transports do not derive from asyncio.Transport, but have its methods
        super().connection_made(MeteredTransport(transport, self._meter))  # type: ignore[arg-type] # see above

    def data_received(self, data: bytes) -> None:
        """Count; aiohttp also calls this without data, to go on with what it has."""
        if data:
            self._meter.received(len(data), self._clock())
        super().data_received(data)


class MeteredTransport(asyncio.Transport):
    """A transport that counts what is written and passes everything on."""

    def __init__(self, inner: asyncio.Transport, meter: WireMeter) -> None:
        super().__init__()
        self._inner = inner
        self._meter = meter

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        """Count, and write."""
        self._meter.sent(len(data))
        self._inner.write(data)

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview[Any]]) -> None:
        """Count, and write pieces."""
        pieces = list(list_of_data)
        self._meter.sent(sum(map(len, pieces)))
        self._inner.writelines(pieces)

    def get_extra_info(self, name: str, default: Any = None) -> Any:  # noqa: ANN401 - the interface is asyncio's
        """Return the meter under its name, and else what the transport knows."""
        return self._meter if name == WIRE_METER else self._inner.get_extra_info(name, default)

    def write_eof(self) -> None:
        """Pass on."""
        self._inner.write_eof()

    def can_write_eof(self) -> bool:
        """Pass on."""
        return self._inner.can_write_eof()

    def abort(self) -> None:
        """Pass on."""
        self._inner.abort()

    def close(self) -> None:
        """Pass on."""
        self._inner.close()

    def is_closing(self) -> bool:
        """Pass on."""
        return self._inner.is_closing()

    def is_reading(self) -> bool:
        """Pass on."""
        return self._inner.is_reading()

    def pause_reading(self) -> None:
        """Pass on."""
        self._inner.pause_reading()

    def resume_reading(self) -> None:
        """Pass on."""
        self._inner.resume_reading()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Pass on."""
        self._inner.set_write_buffer_limits(high, low)

    def get_write_buffer_size(self) -> int:
        """Pass on."""
        return self._inner.get_write_buffer_size()

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """Pass on."""
        return self._inner.get_write_buffer_limits()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Pass on."""
        self._inner.set_protocol(protocol)

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Pass on."""
        return self._inner.get_protocol()


def meter_of(transport: asyncio.BaseTransport | None) -> WireMeter | None:
    """Return the meter of a connection."""
    meter = None if transport is None else transport.get_extra_info(WIRE_METER)
    return meter if isinstance(meter, WireMeter) else None
