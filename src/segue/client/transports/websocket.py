"""One WebSocket to a Responses server: it carries the turns of several lanes at the same time.

One task reads messages and gives each to its lane's queue. While a queue is full nothing is read, so that TCP stalls
the server; if other lanes wait for their events meanwhile, the lane whose reader is slow loses its stream. Another task
watches that the server lives. A lane that is alone cancels its turn by breaking the connection. Of the others the rest
is dropped as it comes, which is soon over if the server takes a message that stops one turn. Not here: which connection
a lane goes to (`connection_pool`), and whose a message is (`demultiplexer`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import suppress

import aiohttp
import msgspec
from aiohttp import WSMsgType

from segue.client.capabilities import ServerCapabilities
from segue.client.recovery import Delivered, FaultKind, TurnFault
from segue.client.transports.demultiplexer import (
    BreakConnection,
    Deliver,
    Demultiplexer,
    FailLane,
    RetireConnection,
    RoutingEffect,
)
from segue.client.transports.interface import TransportFault
from segue.client.transports.seats import Seats
from segue.client.transports.server_errors import WordReader
from segue.client.transports.upgrade import OpenedSocket
from segue.http_client.message_queue import MessageQueue
from segue.http_client.websocket_liveness import watch_liveness
from segue.http_client.wire_meter import NOTHING_CARRIED, WireCount
from segue.protocol.lanes import tag

#: The closes that say that a server has nothing more to say (RFC 6455, 7.4.1): normal, going away, and no code.
_ORDERLY = frozenset({1000, 1001, 1005})
#: The server takes no new lane on this connection.
_NO_MORE_NAMES = "websocket_stream_limit_reached"
_TOO_LARGE = 413
#: The code of a close after a message that is too big to process (RFC 6455, 7.4.1).
_TOO_BIG = 1009
#: No server takes so little. What is smaller was not too big: a proxy may close like this over an answer, too.
_LEAST_TOO_BIG_BYTES = 64 * 1024


class SocketLimits(msgspec.Struct, frozen=True, kw_only=True):
    """How much of a turn waits for its reader, and how long one lane may keep the others waiting."""

    heartbeat_s: float = 20.0
    queue_bytes: int = 4 * 1024 * 1024
    slow_lane_s: float = 30.0


class LaneConnection:
    """One connection. It is made of an accepted socket, and reads until that is over or `aclose` is called."""

    def __init__(self, number: int, opened: OpenedSocket, words: WordReader, limits: SocketLimits) -> None:
        self._loop = asyncio.get_running_loop()
        self.number = number
        self.capabilities: ServerCapabilities = opened.capabilities
        self.seats = Seats(opened.capabilities.lanes)
        self.opened_at = self.used_at = self._loop.time()
        self.closed = False
        self.retired = False
        """No further request may be sent: the server has said so, or may close after an error."""
        self._retires_after_errors = not opened.told
        self._opened, self._socket, self._meter = opened, opened.socket, opened.meter
        self._words, self._limits = words, limits
        self._demultiplexer = Demultiplexer(words)
        self._streams: dict[str, LaneStream] = {}  # by the name of the lane; those that were abandoned are not in it
        self._stopping: set[asyncio.Task[None]] = set()
        self._stalled = False
        self._watching = self._loop.create_task(
            watch_liveness(
                opened, limits.heartbeat_s, is_over=lambda: self.closed, is_reading=lambda: not self._stalled
            )
        )
        self._reading = self._loop.create_task(self._read())

    @property
    def busy(self) -> list[str]:
        """The names of the lanes whose turns run, abandoned ones too."""
        return self._demultiplexer.running

    async def request(self, lane: int, start: bytes, body: bytes, *, resumed: bool = False) -> LaneStream:
        """Send a message in a lane that has a seat: `body` is a JSON object, and `start` what stands for its brace.

        Raises `TransportFault`.
        """
        name = None if self.closed or self.retired else self.seats.name_of(lane, self.busy)
        if name is None:
            raise TransportFault(_fault("connection_gone", "no"))
        message = b"".join((start, memoryview(body)[1:-1], tag(name) or b"}"))  # a body may be megabytes: one copy
        most = self.capabilities.message_bytes
        if most is not None and len(message) > most:
            text = f"The message is larger than the {most:,} bytes that the server takes on a WebSocket."
            raise TransportFault(_too_large(text, "no"))
        stream = LaneStream(self, lane, name, MessageQueue(self._limits.queue_bytes))
        stream.message_bytes = len(message)
        self._demultiplexer.begin(name, resumed=resumed)
        self._streams[name] = stream
        self.used_at = self._loop.time()
        await self._send(stream, message)
        return stream

    def abandon(self, stream: LaneStream) -> None:
        """Cancel a turn that nobody reads any more, as far as that can be done."""
        if self._streams.get(stream.name) is not stream:
            return  # it has ended
        if self.busy == [stream.name] and set(self.seats.lanes) <= {stream.lane}:
            self.drop()
            return
        del self._streams[stream.name]
        self._demultiplexer.abandon(stream.name)
        stream.queue.clear()
        if self.capabilities.offers("cancel"):
            stopping = self._loop.create_task(self._stop(stream.name))
            self._stopping.add(stopping)
            stopping.add_done_callback(self._stopping.discard)

    def drop(self) -> None:
        """Break the connection at once."""
        self.closed = True
        self._opened.abort()

    async def aclose(self) -> None:
        """Close the connection; turns that still run end with a fault."""
        orderly = not self.closed and not self.busy
        self.closed = True
        self._reading.cancel()  # first: what it would receive is the answer to the close
        self._watching.cancel()
        try:
            await asyncio.gather(self._reading, self._watching, return_exceptions=True)
            if orderly:
                await self._socket.close()
        finally:
            self._opened.abort()

    # --- sending -----------------------------------------------------------------------------------------------------

    async def _stop(self, name: str) -> None:
        """Ask the server to stop the turn of a lane. Where that fails, the reader says why."""
        with suppress(OSError, aiohttp.ClientError):
            await self._socket.send_frame(b'{"type":"segue.cancel"' + (tag(name) or b"}"), WSMsgType.TEXT)

    async def _send(self, stream: LaneStream, message: bytes) -> None:
        sent_before = self._meter.sent_bytes
        try:
            await self._socket.send_frame(message, WSMsgType.TEXT)
        except BaseException as error:
            if not isinstance(error, OSError | aiohttp.ClientError):
                self.abandon(stream)  # cancelled: the server may have it, or still get it
                raise
            if self._streams.get(stream.name) is stream:
                del self._streams[stream.name]
                self._demultiplexer.forget(stream.name)
            delivered: Delivered = "no" if self._meter.sent_bytes == sent_before else "maybe"
            raise TransportFault(self._lost(delivered)) from error
        finally:
            stream.count(self._meter.take())

    # --- reading -----------------------------------------------------------------------------------------------------

    async def _read(self) -> None:
        """Give messages to their lanes until the connection is over; then end every turn that still runs."""
        fault = None
        try:
            while fault is None:
                message = await self._socket.receive()
                if message.type is WSMsgType.TEXT:
                    fault = await self._route(message.data)
                else:
                    fault = self._end_of(message.type, message.data, message.extra)
        finally:  # also after a mistake of ours: nobody may wait for events that are not read
            if not self.closed:
                self.drop()
            self._watching.cancel()
            self._fail_all(self._lost("maybe") if fault is None else fault)

    def _end_of(self, kind: WSMsgType, code: object, reason: str | None) -> TurnFault:
        """Return the fault of the turns that run when a message of this kind comes in place of an event."""
        match kind:
            case WSMsgType.CLOSE:
                assert isinstance(code, int), "aiohttp has read it"
                if code == _TOO_BIG:
                    self._refuse_too_big()
                lost = self._lost("maybe", "stream_ended" if code in _ORDERLY else "connection_lost")
                return msgspec.structs.replace(lost, close_code=code, message=self._words.quote(reason or ""))
            case WSMsgType.ERROR | WSMsgType.BINARY:
                return msgspec.structs.replace(
                    _fault("unreadable", "maybe"), message="What the server sent is no message of this API."
                )
            case _:  # it is gone without a close; aiohttp calls this 1000
                return self._lost("maybe")

    async def _route(self, data: bytes) -> TurnFault | None:
        """Give one message to its lane; return a fault if the connection must be broken."""
        for effect in self._demultiplexer.receive(data, time.time()):
            match effect:
                case Deliver(name, event, last):
                    await self._deliver(name, event, last=last)
                case BreakConnection(fault):
                    return fault
                case _:
                    self._apply(effect)
        return None

    def _apply(self, effect: RoutingEffect) -> None:
        match effect:
            case FailLane(name, fault):
                stream = self._streams.pop(name)
                stream.count(self._meter.take())
                stream.queue.end(fault)
                self.used_at = self._loop.time()
                self.retired = self.retired or self._retires_after_errors
                if fault.code == _NO_MORE_NAMES:
                    self.seats.closed = True
                    self.seats.leave(stream.lane)
            case RetireConnection():
                self.retired = True
            case _:
                raise AssertionError(effect)

    async def _deliver(self, name: str, event: bytes, *, last: bool) -> None:
        stream = self._streams[name]
        stream.count(self._meter.take())
        stream.queue.put(event)
        if last:
            del self._streams[name]
            stream.queue.end()
            self.used_at = self._loop.time()
        elif stream.queue.full:
            await self._wait_for(stream)

    async def _wait_for(self, stream: LaneStream) -> None:
        """Wait until the reader of a full queue has taken something; not for ever, if others wait for this lane."""
        self._stalled = True
        try:
            while stream.queue.full:
                try:
                    async with asyncio.timeout(self._limits.slow_lane_s):
                        await stream.queue.wait_for_room()
                except TimeoutError:
                    if len(self._streams) > 1:
                        self._end_slow(stream)
                        return
        finally:
            self._stalled = False

    def _end_slow(self, stream: LaneStream) -> None:
        self._demultiplexer.abandon(stream.name)
        del self._streams[stream.name]
        message = "The events were not read for too long, while other turns on the connection waited."
        stream.queue.end(msgspec.structs.replace(self._lost("maybe"), message=message))

    def _refuse_too_big(self) -> None:
        """End the turn whose create the server did not take. It is the only one of which nothing has come."""
        waiting = self._demultiplexer.waiting
        stream = self._streams.get(waiting[0]) if len(waiting) == 1 else None
        if stream is None or stream.message_bytes < _LEAST_TOO_BIG_BYTES:
            return
        text = f"The message has {stream.message_bytes:,} bytes, which is more than the server takes on a WebSocket."
        del self._streams[stream.name]
        self._demultiplexer.forget(stream.name)
        stream.queue.end(_too_large(text, "maybe"))

    def _fail_all(self, fault: TurnFault) -> None:
        for name, stream in tuple(self._streams.items()):
            del self._streams[name]
            self._demultiplexer.forget(name)
            stream.queue.end(fault)

    def _lost(self, delivered: Delivered, kind: FaultKind = "connection_lost") -> TurnFault:
        silent_s = max(0.0, self._loop.time() - self._meter.received_at)
        return TurnFault(kind=kind, transport="websocket", delivered=delivered, silent_s=silent_s)


class LaneStream:
    """The events of one request on a connection."""

    def __init__(self, connection: LaneConnection, lane: int, name: str, queue: MessageQueue[TurnFault]) -> None:
        self.lane = lane
        self.name = name
        self.queue = queue
        self.message_bytes = 0
        self._connection = connection
        self._carried = NOTHING_CARRIED

    @property
    def wire_sent_bytes(self) -> int:
        """What the socket carried for the request. What several turns share is counted for one of them."""
        return self._carried.sent_bytes

    @property
    def wire_received_bytes(self) -> int:
        """What the socket carried of the answer so far; as above."""
        return self._carried.received_bytes

    def count(self, carried: WireCount) -> None:
        """Add what was carried."""
        self._carried = self._carried.plus(carried)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        event = await self.queue.get()
        if event is None:
            raise StopAsyncIteration
        if isinstance(event, TurnFault):
            raise TransportFault(event)
        return event

    async def aclose(self) -> None:
        """Stop reading; a turn that still runs is cancelled, as far as that can be done."""
        self._connection.abandon(self)
        self.queue.clear()


def _too_large(text: str, delivered: Delivered) -> TurnFault:
    return TurnFault(
        kind="refused", transport="websocket", delivered=delivered, status=_TOO_LARGE, code="message_too_large",
        message=text,
    )  # fmt: skip


def _fault(kind: FaultKind, delivered: Delivered) -> TurnFault:
    return TurnFault(kind=kind, transport="websocket", delivered=delivered)
