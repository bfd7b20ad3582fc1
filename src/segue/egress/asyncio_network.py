"""The network of asyncio behind the interface of httpcore, with as little as possible between a socket and its reader.

A stream of events is read and passed on piece by piece, so what each read costs is paid for every event. httpcore's own
backend takes several times as long for it. Not here: what is sent, and TLS contexts (`network`).
"""

from __future__ import annotations

import asyncio
import select
import socket
import ssl
import sys
from collections.abc import Callable, Iterable
from typing import Any, Final, cast

import aiohappyeyeballs
import httpcore

from segue.egress.network import PushingStream

#: How much may lie here unread before reading pauses.
_MAX_UNREAD_BYTES: Final = 256 * 1024
#: The next address is tried after so long (RFC 8305, 5).
_NEXT_ADDRESS_S: Final = 0.25


class AsyncioNetwork(httpcore.AsyncNetworkBackend):
    """Opens TCP connections on the running event loop."""

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - the interface is httpcore's
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect to the first address of a host that accepts.

        Raises:
            httpcore.ConnectError, httpcore.ConnectTimeout: there is no connection.
        """
        assert local_address is None, "nobody asks for one"
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(timeout):
                addresses = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
                connected = await aiohappyeyeballs.start_connection(addresses, happy_eyeballs_delay=_NEXT_ADDRESS_S)
        except TimeoutError:
            raise httpcore.ConnectTimeout(f"{host} did not accept in time") from None
        except OSError as error:
            raise httpcore.ConnectError(str(error)) from error
        for option in ((socket.IPPROTO_TCP, socket.TCP_NODELAY, 1), *(socket_options or ())):
            connected.setsockopt(*option)
        transport, wire = await loop.create_connection(_Wire, sock=connected)
        return _AsyncioStream(transport, wire)


class _Wire(asyncio.Protocol):
    """What has come on a connection, and whether more can be written."""

    def __init__(self) -> None:
        self.unread = b""
        self.heard_at = 0.0
        """When something has come last, by the event loop."""
        self.arrived: Callable[[], bool] | None = None
        """What to call then; it returns False where the reader has to go on."""
        self.eof = False
        self.lost: Exception | None = None
        """Why the connection is gone; it is not, as long as this is None."""
        self.paused = False
        self.over_tls = False
        self._transport: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()
        self.reading = True
        """It is not paused because too much lies here."""
        self._reader: asyncio.Future[None] | None = None
        self._writer: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin; over TLS a second time."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's do not descend from asyncio's

    def data_received(self, data: bytes) -> None:
        """Keep what came, until somebody takes it."""
        self.unread = self.unread + data if self.unread else data
        self.heard_at = self._loop.time()
        if self.arrived is None or not self.arrived():
            _wake(self._reader)
        if len(self.unread) > _MAX_UNREAD_BYTES and self.reading and self._transport is not None:
            self.reading = False
            self._transport.pause_reading()

    def eof_received(self) -> bool:
        """Note the end; over TLS the transport closes then, and else it can still be written to."""
        self.eof = True
        _wake(self._reader)
        return not self.over_tls

    def connection_lost(self, exc: Exception | None) -> None:
        """Note that nothing more comes or goes."""
        self.lost = exc or ConnectionError("it is closed")
        _wake(self._reader)
        _wake(self._writer)

    def pause_writing(self) -> None:
        """Hold the writer back."""
        self.paused = True

    def resume_writing(self) -> None:
        """Let the writer go on."""
        self.paused = False
        _wake(self._writer)

    def take(self, limit: int) -> bytes:
        """Return what came, at most so much, and make room for more."""
        data, self.unread = self.unread[:limit], self.unread[limit:]
        if not self.reading and self._transport is not None and not self._transport.is_closing():
            self.reading = True
            self._transport.resume_reading()
        return data

    def readable(self) -> asyncio.Future[None] | None:
        """Return what is done when something has come, or nothing more will; None: that is so now."""
        if self.unread or self.eof or self.lost:
            return None
        self._reader = self._loop.create_future()
        return self._reader

    async def writable(self) -> None:
        """Wait until there is room."""
        if self.paused and self.lost is None:
            self._writer = self._loop.create_future()
            await self._writer


class _AsyncioStream(PushingStream):
    """One connection. One task reads and one writes."""

    def __init__(self, transport: asyncio.Transport, wire: _Wire) -> None:
        self._transport = transport
        self._wire = wire

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109 - the interface is httpcore's
        """Return what has come; `b""`: the peer has ended.

        Raises:
            httpcore.ReadError, httpcore.ReadTimeout: nothing will come, or nothing came.
        """
        while (data := self.take(max_bytes)) is None:
            await self.wait(timeout)
        return data

    def call_on_arrival(self, arrived: Callable[[], bool] | None) -> None:
        """Call this as soon as bytes have come."""
        self._wire.arrived = arrived

    def take(self, max_bytes: int) -> bytes | None:
        """Return what has come, without waiting.

        Raises:
            httpcore.ReadError: nothing will come.
        """
        wire = self._wire
        data = wire.unread
        if data and wire.reading and len(data) <= max_bytes:
            wire.unread = b""
            return data
        if data:
            return wire.take(max_bytes)
        if wire.eof:
            return b""
        if wire.lost is not None:
            raise httpcore.ReadError("the connection is closed") from wire.lost
        return None

    async def wait(self, silence_s: float | None = None) -> None:
        """Return when there may be something to take.

        Raises:
            httpcore.ReadTimeout: nothing has come for so long.
        """
        waiting = self._wire.readable()
        if waiting is None:
            return
        silence = None if silence_s is None else _Silence(self._wire, waiting, silence_s)
        try:
            await waiting
        finally:
            if silence is not None:
                silence.timer.cancel()

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109 - the interface is httpcore's
        """Write, and wait until there is room for more.

        Raises:
            httpcore.WriteError, httpcore.WriteTimeout: not all of it can have arrived.
        """
        wire = self._wire
        if not buffer:
            return
        if wire.lost is None and not self._transport.is_closing():
            self._transport.write(buffer)
            if wire.paused:
                try:
                    async with asyncio.timeout(timeout):
                        await wire.writable()
                except TimeoutError:
                    raise httpcore.WriteTimeout("it takes nothing") from None
        if wire.lost is not None or self._transport.is_closing():
            raise httpcore.WriteError("the connection is closed") from wire.lost

    async def aclose(self) -> None:
        """Close at once; who still reads or writes gets an error."""
        self._transport.abort()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - the interface is httpcore's
    ) -> httpcore.AsyncNetworkStream:
        """Begin TLS.

        Raises:
            httpcore.ConnectError, httpcore.ConnectTimeout: the handshake failed.
        """
        wire = self._wire
        if wire.unread:  # it is not authenticated, and would be read as the first bytes that are
            await self.aclose()
            raise httpcore.ConnectError("the server spoke before the TLS handshake")
        wire.over_tls = True
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(timeout):
                transport = await loop.start_tls(self._transport, wire, ssl_context, server_hostname=server_hostname)
        except TimeoutError:
            await self.aclose()
            raise httpcore.ConnectTimeout("the TLS handshake took too long") from None
        except (OSError, ssl.SSLError) as error:
            await self.aclose()
            raise httpcore.ConnectError(str(error)) from error
        if transport is None:
            raise httpcore.ConnectError("the connection was closed within the TLS handshake")
        wire.connection_made(transport)
        return _AsyncioStream(transport, wire)

    def get_extra_info(self, info: str) -> Any:  # noqa: ANN401 - the interface is httpcore's
        """Return what httpcore names so: of the socket and of TLS."""
        match info:
            case "is_readable":
                wire = self._wire
                return bool(wire.unread or wire.eof or wire.lost) or _is_readable(self._socket)
            case "ssl_object" | "socket":
                return self._transport.get_extra_info(info)
            case "server_addr":
                return self._transport.get_extra_info("peername")
            case "client_addr":
                return self._transport.get_extra_info("sockname")
            case _:
                return None

    @property
    def _socket(self) -> socket.socket | None:
        found: socket.socket | None = self._transport.get_extra_info("socket")
        return found


class _Silence:
    """The timer of one wait, which ends it when nothing has come for so long, not for anybody."""

    def __init__(self, wire: _Wire, waiter: asyncio.Future[None], silence_s: float) -> None:
        self._wire = wire
        self._waiter = waiter
        self._silence_s = silence_s
        self.timer = waiter.get_loop().call_later(silence_s, self._look, wire.heard_at)

    def _look(self, heard_at: float) -> None:
        if self._waiter.done():
            return
        loop, again_at = self._waiter.get_loop(), self._wire.heard_at
        if again_at == heard_at:
            self._waiter.set_exception(httpcore.ReadTimeout("nothing came in time"))
        else:
            self.timer = loop.call_at(again_at + self._silence_s, self._look, again_at)


def _wake(waiter: asyncio.Future[None] | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)


def _is_readable(connected: socket.socket | None) -> bool:
    """Tell whether the kernel has something that the event loop has not read yet: data, or the end."""
    if connected is None or connected.fileno() < 0:
        return True
    if sys.platform == "win32":
        return bool(select.select([connected], [], [], 0)[0])
    poll = select.poll()  # which takes descriptors of any number
    poll.register(connected.fileno(), select.POLLIN)
    return bool(poll.poll(0))
