"""One WebSocket to a provider: it carries one turn after the other, in each of its lanes if the provider offers lanes.

One task reads messages as long as the socket lives, so that pings are answered and a close is seen at once. It puts the
messages of a turn into that turn's queue. While the queues of all turns are full it reads nothing: TCP then slows the
provider. While others have room it reads on, so that a slow reader does not stop its neighbours; if a queue becomes far
too long, its turn is given up. A turn that is given up is cancelled if the provider offers that; else it runs to its
end unread. On a socket without lanes it breaks its socket, and between two turns nothing of a response may come: who
knows whose it would be. Not here: which turn gets a lane (`socket_pool`), whose a message is (`lane_traffic`), and what
the messages of a turn mean (`socket_source`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

import aiohttp
import msgspec
from aiohttp import WSCloseCode, WSMsgType

from segue.dialects.responses.held_context import HeldContext
from segue.http.websocket import ABNORMAL_CLOSURE
from segue.http_client.message_queue import EACH_BYTES, MessageQueue
from segue.http_client.websocket_liveness import watch_liveness
from segue.http_client.websocket_opening import OpenedWebSocket
from segue.protocol.codec import UNREADABLE
from segue.upstreams.lane_offer import ONE_LANE, OfferedLanes
from segue.upstreams.lane_traffic import LANE_NAMES, LaneTraffic, Received, without_lane
from segue.upstreams.socket_lanes import LaneAt, SocketOwner

#: How often a silent provider is pinged. Some close a connection on which nothing comes for a minute.
HEARTBEAT_S = 20.0
#: What of a turn waits for its reader. So much is taken from the socket in one go.
_QUEUE_BYTES = 64 * 1024
#: How far a reader may fall behind its neighbours on the same socket. It is the answer of a very long turn.
_MOST_QUEUED_BYTES = 1024 * 1024
#: After so many pings and pongs in a row others have their turn, and after so many the socket is given up.
_SOME_CONTROLS = 64
_MOST_CONTROLS = 4096
#: What may come between two turns. Some servers tell their rate limits.
_MOST_STRAY_BYTES = 64 * 1024
_OF_A_RESPONSE = "response."
_CONTROLS = frozenset({WSMsgType.PING, WSMsgType.PONG})


class SocketEnd(msgspec.Struct, frozen=True):
    """How a socket ended for a turn: the code of its close frame, 1006 without one.

    `too_large`: by a message of such a size. `outrun`: it goes on, but the turn's reader was too slow for it.
    """

    code: int = ABNORMAL_CLOSURE
    too_large: bool = False
    outrun: bool = False


class _MessageHead(msgspec.Struct):
    type: str | None = None


_heads = msgspec.json.Decoder(_MessageHead)


class SocketEvents(msgspec.Struct, frozen=True):
    """What a socket tells its pool.

    `on_over`: it is over. `on_rest`: the turn of a lane that nobody read has ended, and whether with an error.
    `on_given_up`: nobody may read the turn of a lane any longer. `on_retired`: its server may close it, so that no turn
    should begin on it.
    """

    on_over: Callable[[ProviderSocket], None]
    on_rest: Callable[[LaneAt, bool], None]
    on_given_up: Callable[[LaneAt], None]
    on_retired: Callable[[int], None]


class SocketLane:
    """One lane of a socket, in which one turn runs after the other."""

    def __init__(self, socket: ProviderSocket, number: int) -> None:
        self.socket = socket
        self.at = LaneAt(socket.number, number)
        self.name = LANE_NAMES[number] if socket.offered.count > 1 else None
        """Its `stream_id`; None on a socket without lanes."""
        self.held: HeldContext | None = None
        """What the provider holds in it after its last turn."""
        self.written = False
        """Whether anything of the last message was written."""

    def begin(self) -> MessageQueue[SocketEnd]:
        """Begin a turn; return the queue of its messages, which ends with how the socket ended."""
        return self.socket.begin(self.at.lane)

    async def send(self, message: bytes) -> None:
        """Send the message that asks for the turn. Raises `OSError` or `aiohttp.ClientError` if the socket is over."""
        self.written = False
        sent_before = self.socket.sent_bytes
        try:
            await self.socket.send(message)
        finally:  # if it was not written, nothing was awaited, and nobody else wrote anything
            self.written = self.socket.sent_bytes > sent_before

    def end_turn(self, turn: MessageQueue[SocketEnd]) -> bool:
        """Note that a turn has ended, or is given up; return whether it still had the lane."""
        return self.socket.end_turn(self.at.lane, turn)

    @property
    def at_rest(self) -> bool:
        """Whether the provider has said that the turn is over. Without lanes that is not known."""
        return self.socket.is_at_rest(self.at.lane)

    @property
    def alone_unanswered(self) -> bool:
        """Whether what the server says of a message that it did not take can be about that of this lane only."""
        return self.socket.is_alone_unanswered(self.at.lane)


class ProviderSocket:
    """An accepted socket, which reads until it is over, and tells what happens (`events`)."""

    def __init__(
        self,
        number: int,
        opened: OpenedWebSocket,
        owner: SocketOwner,
        *,
        events: SocketEvents,
        offered: OfferedLanes = ONE_LANE,
        clearing: Callable[[str], bytes] | None = None,
    ) -> None:
        loop = asyncio.get_running_loop()
        self.number = number
        self.owner = owner
        self.offered = offered
        self.headers = opened.headers
        self.lanes = [SocketLane(self, lane) for lane in range(offered.count)]
        self.end: SocketEnd | None = None
        self.blamed = False
        """Whether it was noted that it broke, of which several turns may tell."""
        self._opened = opened
        self._events = events
        self._clearing = clearing
        self._turns: dict[int, MessageQueue[SocketEnd]] = {}
        self._traffic = LaneTraffic(offered.count) if offered.count > 1 else None
        self._begun = asyncio.Event()  # set when a turn begins
        self._sends: set[asyncio.Task[None]] = set()
        self._stops: dict[int, asyncio.Task[None]] = {}  # that stop the turn of a lane
        self._stalled = False
        self._closing = False
        self._stray_bytes = 0
        self._watching = loop.create_task(
            watch_liveness(
                opened,
                HEARTBEAT_S,
                is_over=lambda: self.end is not None,
                is_reading=lambda: not self._stalled,
            )
        )
        self._reading = loop.create_task(self._read())

    @property
    def sent_bytes(self) -> int:
        """What was written to its connection so far."""
        return self._opened.meter.sent_bytes

    def begin(self, lane: int) -> MessageQueue[SocketEnd]:
        """Begin a turn in a lane; return the queue of its messages, which ends with how the socket ended."""
        assert lane not in self._turns, "one turn at a time"
        turn = self._turns[lane] = MessageQueue[SocketEnd](_QUEUE_BYTES)
        self._begun.set()
        if self.end is not None:
            turn.end(self.end)
        elif self._traffic is not None:
            self._traffic.ask(lane)
        return turn

    async def send(self, message: bytes) -> None:
        """Send a message. Raises `OSError` or `aiohttp.ClientError` if the socket is over."""
        await self._opened.socket.send_frame(message, WSMsgType.TEXT)

    def end_turn(self, lane: int, turn: MessageQueue[SocketEnd]) -> bool:
        """Note that a turn has ended, or is given up: nobody reads what comes of it. Return whether it had the lane."""
        turn.clear()
        if self._turns.get(lane) is not turn:
            return False
        del self._turns[lane]
        self._stray_bytes = 0
        if self._traffic is not None:
            self._traffic.give_up(lane)
        return True

    def stop(self, lane: int) -> None:
        """Stop a turn that was given up, if its server offers that."""
        if self.offered.cancels:
            message = b'{"type":"segue.cancel","stream_id":"%b"}' % LANE_NAMES[lane].encode()
            self._stops[lane] = self._send_unread(message)

    def clear(self, lane: int) -> bool:
        """Let the server drop what a lane holds, with a turn that nobody reads; return whether that can be done."""
        if self._traffic is None or self._clearing is None:
            return False
        self._traffic.ask(lane)
        self._traffic.give_up(lane)
        self._send_unread(self._clearing(LANE_NAMES[lane]))
        return True

    def _send_unread(self, message: bytes) -> asyncio.Task[None]:
        """Send a message to whose answer nobody waits. Where that fails, the next read says why."""
        task = asyncio.get_running_loop().create_task(self._send_quietly(message))
        self._sends.add(task)
        task.add_done_callback(self._sends.discard)
        return task

    def is_at_rest(self, lane: int) -> bool:
        """Tell whether the provider has said that the turn of a lane is over."""
        return self._traffic is not None and self._traffic.is_at_rest(lane)

    def is_alone_unanswered(self, lane: int) -> bool:
        """Tell whether no other turn waits for its first answer."""
        return self._traffic is None or self._traffic.is_alone_unanswered(lane)

    def drop(self) -> None:
        """Break the connection at once."""
        self._finish(SocketEnd())

    async def aclose(self) -> None:
        """Close a socket without a turn, as the protocol says; break one with a turn."""
        orderly = self.end is None and not self._turns
        self._closing = True
        self._reading.cancel()  # first: what it would receive is the answer to the close
        await asyncio.gather(self._reading, return_exceptions=True)
        try:
            if orderly:
                await self._opened.socket.close()
        finally:
            self._finish(SocketEnd())

    async def _send_quietly(self, message: bytes) -> None:
        with suppress(OSError, aiohttp.ClientError):
            await self.send(message)

    async def _read(self) -> None:
        """Read until the socket is over. Also after a mistake of ours nobody may wait for what is not read."""
        end = SocketEnd()
        try:
            end = await self._pass_messages()
        finally:
            if not self._closing:
                self._finish(end)

    async def _pass_messages(self) -> SocketEnd:
        """Give messages to their turns; return how the socket ended."""
        controls = 0  # in a row
        traffic = self._traffic
        while controls < _MOST_CONTROLS:
            message = await self._opened.socket.receive()
            if message.type in _CONTROLS:
                controls += 1
                if message.type is WSMsgType.PING:
                    await self._answer(bytes(message.data))
                if controls % _SOME_CONTROLS == 0:
                    await asyncio.sleep(0)
                continue
            if message.type is not WSMsgType.TEXT:
                return _end_of(message.type, message.data)
            data = message.data
            assert isinstance(data, bytes), "texts come as bytes"
            controls = 0
            fine = self._take(data) if traffic is None else self._take_in_lane(traffic.receive(data), data)
            if not fine:
                return SocketEnd()
            if self._turns and all(turn.full for turn in self._turns.values()):
                await self._wait_for_room()
        return SocketEnd()

    def _take(self, data: bytes) -> bool:
        """Take a message on a socket without lanes; return whether it may go on."""
        turn = self._turns.get(0)
        if turn is None:
            return self._is_stray(data)
        turn.put(data)
        return True

    def _take_in_lane(self, received: Received, data: bytes) -> bool:
        """Take a message of one of the lanes; return whether the socket may go on."""
        if received.retires:
            self._events.on_retired(self.number)
        match received.what:
            case "event":
                event = without_lane(data, received.lanes[0])
                if event is None:
                    return False
                self._put(received.lanes[0], event)
            case "unread" if received.at_rest:
                self._rest(received.lanes[0], failed=received.failed)
            case "connection":
                for lane in received.lanes:
                    self._give_up(lane, SocketEnd())
            case "violation":
                return False
            case "stray":
                self._stray_bytes += len(data) + EACH_BYTES
                return self._stray_bytes <= _MOST_STRAY_BYTES
            case _:
                pass  # of a turn that nobody reads
        return True

    def _rest(self, lane: int, *, failed: bool) -> None:
        """Tell that a lane is free once what was to stop its turn has left: it would stop the next one."""
        stop = self._stops.pop(lane, None)
        if stop is None or stop.done():
            self._events.on_rest(LaneAt(self.number, lane), failed)
        else:
            stop.add_done_callback(lambda _: self._rest(lane, failed=failed))

    def _put(self, lane: int, data: bytes) -> None:
        """Give a message to the reader of a lane, or give its turn up if it is far behind its neighbours."""
        turn = self._turns[lane]
        self._stray_bytes = 0
        turn.put(data)
        if turn.full and turn.size_bytes >= _MOST_QUEUED_BYTES and len(self._turns) > 1:
            self._give_up(lane, SocketEnd(outrun=True))

    def _give_up(self, lane: int, end: SocketEnd) -> None:
        """Take a turn from its reader, who is told so."""
        turn = self._turns[lane]
        self.end_turn(lane, turn)
        turn.clear(end)
        self._events.on_given_up(LaneAt(self.number, lane))

    async def _answer(self, ping: bytes) -> None:
        """Answer a ping (RFC 6455, 5.5.3). Where that fails, the next read says why."""
        with suppress(OSError, aiohttp.ClientError):
            await self._opened.socket.pong(ping)

    async def _wait_for_room(self) -> None:
        """Wait until a reader has room: of the turns that run, or of one that begins."""
        self._stalled = True
        self._begun.clear()
        loop = asyncio.get_running_loop()
        waits = [turn.wait_for_room() for turn in self._turns.values()]
        tasks = [loop.create_task(one) for one in (self._until_begun(), *waits)]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._stalled = False
            for task in tasks:
                task.cancel()

    async def _until_begun(self) -> None:
        await self._begun.wait()

    def _is_stray(self, data: bytes) -> bool:
        """Tell whether a message between two turns does no harm: it is of no response, no error, and not much."""
        self._stray_bytes += len(data) + EACH_BYTES
        if self._stray_bytes > _MOST_STRAY_BYTES:
            return False
        try:
            kind = _heads.decode(data).type
        except UNREADABLE:
            return False
        return kind is not None and kind != "error" and not kind.startswith(_OF_A_RESPONSE)

    def _finish(self, end: SocketEnd) -> None:
        if self.end is not None:
            return
        self.end = end
        self._watching.cancel()
        self._opened.abort()
        for turn in self._turns.values():
            turn.end(end)
        self._events.on_over(self)


def _end_of(kind: WSMsgType, data: object) -> SocketEnd:
    """Return how a socket ended on which this came in place of a text."""
    if kind is WSMsgType.CLOSE and isinstance(data, int):
        return SocketEnd(data)
    return SocketEnd(too_large=isinstance(data, aiohttp.WebSocketError) and data.code == WSCloseCode.MESSAGE_TOO_BIG)
