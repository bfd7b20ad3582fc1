"""The socket of one agent: it buffers what arrives, applies backpressure to writers, and notices a hang-up at once.

It always reads, also while a reply is awaited, since only a reader learns of the end. An agent that shuts down its
sending half counts as having hung up, even if it would still read: clients cancel in that way, and most servers read it
so. Reading pauses only when an agent sends far more than the sidecar takes. Not here: HTTP.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from typing import cast

#: How much may lie here unread before reading pauses.
_MAX_UNREAD_BYTES = 256 * 1024
#: A write returns when no more than this is left to be taken by the kernel.
_MAX_UNSENT_BYTES = 64 * 1024
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER with no time: close() sends RST


class AgentGone(Exception):
    """The agent has hung up, or its connection was cut."""


class AgentTransport(asyncio.Protocol):
    """One connection. It calls `on_connected` once, and afterwards the server calls it."""

    def __init__(self, on_connected: Callable[[AgentTransport], None]) -> None:
        self._on_connected = on_connected
        self._transport: asyncio.Transport | None = None
        self._unread = bytearray()
        self._paused = False
        self._arrived = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self.has_room = True
        """`write_now` may be called: the agent is there, and the socket takes more."""
        self._ended = asyncio.Event()
        self.gone = asyncio.Event()
        """Set as soon as the agent has hung up."""
        self.woken: set[asyncio.Event] = set()
        """Set then too: what those wait for who must not go on waiting without their agent."""

    # ------------------------------------------------------------------------------------------ asyncio's side of it

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's do not descend from asyncio's
        self._transport.set_write_buffer_limits(high=_MAX_UNSENT_BYTES, low=_MAX_UNSENT_BYTES // 4)
        if self.connection is not None:
            self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._on_connected(self)

    def data_received(self, data: bytes) -> None:
        """Keep what arrived."""
        self._unread += data
        self._arrived.set()
        if len(self._unread) > _MAX_UNREAD_BYTES and not self._paused:
            self._paused = True
            self.transport.pause_reading()

    def eof_received(self) -> bool:
        """Treat the end of what the agent sends as a hang-up."""
        self._hang_up()
        return True  # the listener closes the transport

    def pause_writing(self) -> None:
        """Hold writers back."""
        self.has_room = False
        self._room.clear()

    def resume_writing(self) -> None:
        """Let writers go on."""
        self.has_room = not (self.gone.is_set() or self.transport.is_closing())
        self._room.set()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """End."""
        self._hang_up()
        self._ended.set()

    def _hang_up(self) -> None:
        self.has_room = False
        for event in (self.gone, self._arrived, self._room, *self.woken):
            event.set()

    # ---------------------------------------------------------------------------------------------- the server's side

    @property
    def transport(self) -> asyncio.Transport:
        """The transport below, once connected."""
        assert self._transport is not None, "asyncio connects a protocol before it is used"
        return self._transport

    @property
    def peer(self) -> str | None:
        """The address that the agent comes from, if it is known."""
        name = self.transport.get_extra_info("peername")
        return str(name[0]) if isinstance(name, tuple) else None

    @property
    def connection(self) -> socket.socket | None:
        """The socket below, if there is one."""
        found: socket.socket | None = self.transport.get_extra_info("socket")
        return found

    async def wait_readable(self) -> None:
        """Return when there is something to read; raise `AgentGone` if nothing more will be."""
        while not self._unread:
            if self.gone.is_set():
                raise AgentGone
            self._arrived.clear()
            await self._arrived.wait()

    async def read(self) -> bytes:
        """Return what has arrived, at least a byte; raise `AgentGone` if nothing more will be."""
        await self.wait_readable()
        data = bytes(self._unread)
        self._unread.clear()
        if self._paused and not self.transport.is_closing():
            self._paused = False
            self.transport.resume_reading()
        return data

    async def write(self, data: bytes) -> None:
        """Send in one write, and return when the socket has room for more."""
        if self.gone.is_set() or self.transport.is_closing():
            raise AgentGone
        if data:
            self.transport.write(data)
        if not self._room.is_set():
            await self._room.wait()
            if self.gone.is_set():
                raise AgentGone

    def write_now(self, data: bytes) -> None:
        """Send in one write; see `has_room` before."""
        assert self._transport is not None, "asyncio connects a protocol before it is used"
        self._transport.write(data)

    def reset(self) -> None:
        """Cut the connection so that the agent sees an error (RST), not an end."""
        self.has_room = False
        connection = None if self.transport.is_closing() else self.connection
        if connection is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self.transport.abort()

    def cut(self) -> None:
        """End the connection after everything in the buffer was sent; `aclose` limits how long that takes."""
        self.has_room = False
        self.transport.close()

    def abort(self) -> None:
        """End the connection without sending the rest of the buffer."""
        self.has_room = False
        self.transport.abort()

    async def aclose(self, linger_s: float) -> None:
        """Close after everything in the buffer was sent.

        For a while, read and drop what the agent still sends: closing on unread bytes would reset the connection, and
        the agent could lose the reply (RFC 9112, 9.6).
        """
        try:
            async with asyncio.timeout(linger_s):
                if not (self.gone.is_set() or self.transport.is_closing()):
                    self.transport.write_eof()
                    while True:
                        await self.read()
        except (AgentGone, TimeoutError, OSError):
            pass  # the agent has left, or had its time
        self.transport.close()
        try:
            async with asyncio.timeout(linger_s):
                await self._ended.wait()
        except TimeoutError:
            self.transport.abort()
            await self._ended.wait()
