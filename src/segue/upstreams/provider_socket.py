"""One WebSocket to a provider: it carries one turn after the other, and is watched between them.

One task reads messages as long as the socket lives, so that pings are answered and a close is seen at once. It puts the
messages of a turn into that turn's queue, and while the queue is full it reads nothing: TCP then slows the provider.
Between two turns nothing of a response may come: who knows whose it would be. A WebSocket has no message that cancels a
turn, so that a turn that is given up breaks its socket. Not here: which turn gets a socket (`socket_pool`), and what
its messages mean (`socket_source`).
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
from segue.upstreams.idle_sockets import SocketOwner

#: How often a silent provider is pinged. Some close a connection on which nothing comes for a minute.
HEARTBEAT_S = 20.0
#: What of a turn waits for its reader. So much is taken from the socket in one go.
_QUEUE_BYTES = 64 * 1024
#: After so many pings and pongs in a row others have their turn, and after so many the socket is given up.
_SOME_CONTROLS = 64
_MOST_CONTROLS = 4096
#: What may come between two turns. Some servers tell their rate limits.
_MOST_STRAY_BYTES = 64 * 1024
_OF_A_RESPONSE = "response."
_CONTROLS = frozenset({WSMsgType.PING, WSMsgType.PONG})


class SocketEnd(msgspec.Struct, frozen=True):
    """How a socket ended: the code of its close frame, 1006 without one; `too_large`: by a message of such a size."""

    code: int = ABNORMAL_CLOSURE
    too_large: bool = False


class _MessageHead(msgspec.Struct):
    type: str | None = None


_heads = msgspec.json.Decoder(_MessageHead)


class ProviderSocket:
    """An accepted socket, which reads until it is over; then `on_over` is called once."""

    def __init__(
        self, number: int, opened: OpenedWebSocket, owner: SocketOwner, *, on_over: Callable[[ProviderSocket], None]
    ) -> None:
        loop = asyncio.get_running_loop()
        self.number = number
        self.owner = owner
        self.opened_at = loop.time()
        self.headers = opened.headers
        self.held: HeldContext | None = None
        """What the provider holds on it after its last turn."""
        self.end: SocketEnd | None = None
        self._opened = opened
        self._on_over = on_over
        self._turn: MessageQueue[SocketEnd] | None = None
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

    def begin(self) -> MessageQueue[SocketEnd]:
        """Begin a turn; return the queue of its messages, which ends with how the socket ended."""
        assert self._turn is None, "one turn at a time"
        turn = self._turn = MessageQueue[SocketEnd](_QUEUE_BYTES)
        if self.end is not None:
            turn.end(self.end)
        return turn

    async def send(self, message: bytes) -> None:
        """Send a message. Raises `OSError` or `aiohttp.ClientError` if the socket is over."""
        await self._opened.socket.send_frame(message, WSMsgType.TEXT)

    def end_turn(self) -> None:
        """Note that the turn has ended: what comes from now on is of none."""
        turn, self._turn = self._turn, None
        self._stray_bytes = 0
        if turn is not None:
            turn.clear()

    def drop(self) -> None:
        """Break the connection at once."""
        self._finish(SocketEnd())

    async def aclose(self) -> None:
        """Close a socket without a turn, as the protocol says; break one with a turn."""
        orderly = self.end is None and self._turn is None
        self._closing = True
        self._reading.cancel()  # first: what it would receive is the answer to the close
        await asyncio.gather(self._reading, return_exceptions=True)
        try:
            if orderly:
                await self._opened.socket.close()
        finally:
            self._finish(SocketEnd())

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
            assert isinstance(message.data, bytes), "texts come as bytes"
            controls, turn = 0, self._turn
            if turn is not None:
                turn.put(message.data)
                if turn.full:
                    await self._wait_for(turn)
            elif not self._is_stray(message.data):
                return SocketEnd()
        return SocketEnd()

    async def _answer(self, ping: bytes) -> None:
        """Answer a ping (RFC 6455, 5.5.3). Where that fails, the next read says why."""
        with suppress(OSError, aiohttp.ClientError):
            await self._opened.socket.pong(ping)

    async def _wait_for(self, turn: MessageQueue[SocketEnd]) -> None:
        self._stalled = True
        try:
            await turn.wait_for_room()
        finally:
            self._stalled = False

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
        if self._turn is not None:
            self._turn.end(end)
        self._on_over(self)


def _end_of(kind: WSMsgType, data: object) -> SocketEnd:
    """Return how a socket ended on which this came in place of a text."""
    if kind is WSMsgType.CLOSE and isinstance(data, int):
        return SocketEnd(data)
    return SocketEnd(too_large=isinstance(data, aiohttp.WebSocketError) and data.code == WSCloseCode.MESSAGE_TOO_BIG)
