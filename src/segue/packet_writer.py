"""The writing half of a link of the tunnel, for the shells of both ends: it sends what its end has to send.

    writer = PacketWriter(end, socket, is_over=...)
    task = loop.create_task(writer.run())
    ...
    writer.wake()  # there may be something to send
    writer.write_now()  # and somebody waits for it

While the socket takes what it gets, a wake-up is one call of the event loop and no step of a task; and what somebody
waits for is written at once (`write_now`). When the socket is full, the task waits for room. Not here: what there is to
send (`segue.tunnel`).
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Sequence
from typing import Final, Protocol, cast

import aiohttp
from aiohttp import web
from aiohttp.base_protocol import BaseProtocol

from segue.http.websocket import binary_frame
from segue.tunnel.frames import MAX_PACKET_BYTES

#: How long a full socket may take nothing before the link is checked.
STUCK_S: Final = 5.0


class PacketSource(Protocol):
    """An end of the tunnel, as its writer sees it."""

    @property
    def has_to_send(self) -> bool:
        """There may be a packet before the next deadline."""

    def next_packet(self, now: float) -> bytes | None:
        """Return the next packet; None: there is none now."""

    def next_deadline(self) -> float | None:
        """Return when there may be one though nothing has happened."""

    def handle_timeout(self, now: float) -> Sequence[object]:
        """Return why the link cannot be used any more, if it cannot."""


class PacketSocket:
    """A WebSocket of aiohttp that carries packets. `masked`: it is a client's (RFC 6455, 5.3).

    Packets are framed here, since each is one short binary message; all other frames are aiohttp's.
    """

    def __init__(
        self,
        socket: web.WebSocketResponse | aiohttp.ClientWebSocketResponse[bool],
        transport: asyncio.Transport,
        *,
        masked: bool,
    ) -> None:
        self._socket = socket
        self._transport = transport
        self._masked = masked
        transport.set_write_buffer_limits(high=MAX_PACKET_BYTES)

    @property
    def closed(self) -> bool:
        """Nothing can be sent any more."""
        return self._socket.closed or self._transport.is_closing()

    @property
    def has_room(self) -> bool:
        """At most one packet waits in this process: a heartbeat cannot overtake what is there."""
        return self._transport.get_write_buffer_size() <= MAX_PACKET_BYTES

    def write(self, packet: bytes) -> None:
        """Send a packet. `ConnectionError`: it cannot be sent."""
        if self.closed:
            raise ConnectionResetError("the socket is closed")
        self._transport.write(binary_frame(packet, secrets.token_bytes(4) if self._masked else None))

    async def wait_for_room(self) -> None:
        """Return when less waits. `ConnectionError`: it will never be sent."""
        protocol = cast("BaseProtocol", self._transport.get_protocol())
        await protocol._drain_helper()  # noqa: SLF001 - what aiohttp's own writer waits for

    def abort(self) -> None:
        """Drop the connection without a close handshake."""
        self._transport.abort()


class PacketWriter:
    """Writes to one socket, as long as `run` runs.

    `is_over`: after what there is now, nothing more is to be sent. `before_packet` is called before each packet, and
    after the last one: what it makes the end send may be in the next. `count` gets the size of each packet.
    """

    def __init__(
        self,
        source: PacketSource,
        socket: PacketSocket,
        *,
        is_over: Callable[[], bool] = lambda: False,
        before_packet: Callable[[], object] = lambda: None,
        count: Callable[[int], object] = lambda _: None,
    ) -> None:
        self._source = source
        self._socket = socket
        self._is_over = is_over
        self._before_packet = before_packet
        self._count = count
        self._loop = asyncio.get_running_loop()
        self._stirred = asyncio.Event()
        self._resting = False  # the task waits, and a call may write
        self._called = False
        self._wanted = False  # something was to be sent since the last call
        self._fault: BaseException | None = None
        self._alarm: asyncio.Handle | None = None
        self._alarm_at = 0.0

    def wake(self) -> None:
        """Send what there is to send, as soon as the event loop comes to it."""
        self._wanted = True
        if not self._called:
            self._called = True
            self._loop.call_soon(self._turn)

    def write_now(self) -> None:
        """Send what there is to send at once, the first time in a turn of the event loop.

        What else comes in this turn travels together in the next one.
        """
        if self._called:
            self._wanted = True
            return
        self._called = True
        self._go_on()
        self._loop.call_soon(self._turn)

    def note_received(self) -> None:
        """After the source has got a packet: send what is to be sent, if only to answer that, when it is due."""
        if self._source.has_to_send or not self._resting:
            self.wake()
        else:
            self._set_alarm(self._source.next_deadline())

    async def run(self) -> None:
        """Send packets until the socket is closed, the link is dead, or nothing more is to be sent.

        Raises:
            ConnectionError: the socket was lost.
        """
        try:
            while not (self._socket.closed or self._fault):
                self._stirred.clear()
                if self._source.handle_timeout(self._loop.time()):
                    self._socket.abort()  # the peer is gone: it would not answer a close
                    return
                if not self._write():
                    await self._until_room()
                elif self._is_over():
                    return
                else:
                    self._resting = True
                    await self._stirred.wait()
                    self._resting = False
        finally:
            self._resting = False
            self._silence_alarm()
        if self._fault is not None:
            raise self._fault

    def _turn(self) -> None:
        self._called = False
        if self._wanted:
            self._go_on()

    def _go_on(self) -> None:
        """Write in place of the task, if it waits, and if that can be done at once."""
        self._wanted = False
        if not self._resting:
            self._stirred.set()
            return
        try:
            if not self._write() or self._socket.closed or self._is_over():
                self._stirred.set()
        except Exception as fault:  # noqa: BLE001 - the task raises it: whoever waits for that gets it
            self._fault = fault
            self._stirred.set()

    def _write(self) -> bool:
        """Write what there is, as long as there is room; return whether that was all."""
        self._before_packet()
        while self._socket.has_room:
            packet = self._source.next_packet(self._loop.time())
            if packet is not None:
                self._socket.write(packet)
                self._count(len(packet))
                self._before_packet()  # what waited for this packet to leave
            if packet is None or not self._source.has_to_send:
                self._set_alarm(self._source.next_deadline())
                return True
        return False

    async def _until_room(self) -> None:
        try:
            async with asyncio.timeout(STUCK_S):  # a socket that takes nothing must not block the check for a dead link
                await self._socket.wait_for_room()
                await asyncio.sleep(0)
        except TimeoutError:
            pass  # the caller looks whether the link is dead

    # --- deadlines: one timer, since a new one for each packet would cost more than the packet -----------------------

    def _set_alarm(self, deadline: float | None) -> None:
        """Wake the task at this time at the latest. It may be earlier: then it looks again."""
        if deadline is not None and (self._alarm is None or deadline < self._alarm_at):
            self._silence_alarm()
            self._alarm, self._alarm_at = self._loop.call_at(deadline, self._ring), deadline

    def _ring(self) -> None:
        self._alarm = None
        self._stirred.set()

    def _silence_alarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
