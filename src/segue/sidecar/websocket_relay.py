"""A WebSocket of an agent through the tunnel: its messages travel both ways with their payloads unchanged.

Neither side sees when a link is cut. An agent whose last turn has ended may leave without a close frame, as a program
does that just ends: the provider's socket is closed for it.

Not here: the upgrade and its refusals (`segue.sidecar.request_handler`).
"""

from __future__ import annotations

import asyncio
import re

from segue.http.error_replies import is_of_responses_api, unknown_outcome_event
from segue.http.heads import ReplyHead
from segue.http.websocket import ABNORMAL_CLOSURE, WebSocketClose, WebSocketMessage
from segue.sidecar.agent_request import AgentRequest
from segue.sidecar.agent_transport import AgentGone
from segue.sidecar.body_encoder import BodyEncoder
from segue.sidecar.message_sender import MessageSender
from segue.sidecar.response_writer import OUTCOME_UNKNOWN, PIECE_BYTES
from segue.sidecar.session import AgentExchange
from segue.sidecar.stats import Outcome, Stats, reply_bytes
from segue.tunnel.events import OutcomeUnknown
from segue.tunnel.stream_compression import REPLY_BASE_BYTES, SOCKET_WINDOW_LOG, StreamDecoder, StreamError
from segue.tunnel.websocket_records import RecordError, RecordReader

#: "Service Restart" in the IANA registry of close codes (RFC 6455, 11.7): the agent may connect again.
_SERVICE_RESTART = 1012
#: The close code of an endpoint that leaves (RFC 6455, 7.4.1).
_GOING_AWAY = 1001
_LEAVE_S = 2.0
#: The events of WebSocket mode after which nothing more of a turn comes, and the message that only acknowledges them.
_TURN_END = re.compile(rb'\s*\{\s*"type"\s*:\s*"(?:response\.(?:completed|incomplete|failed)|error)"')
_ACKNOWLEDGEMENT = re.compile(rb'\s*\{\s*"type"\s*:\s*"response\.processed"')
#: After so many messages others have their turn: a few bytes of the provider's stream may be millions of messages.
_MESSAGES_AT_ONCE = 16


class WebSocketRelay:
    """Relays the messages of one open WebSocket."""

    def __init__(
        self,
        request: AgentRequest,
        exchange: AgentExchange,
        bodies: BodyEncoder,
        *,
        stats: Stats,
        max_message_bytes: int,
    ) -> None:
        self._request = request
        self._exchange = exchange
        self._sender = MessageSender(exchange, bodies)
        self._stats = stats
        self._decoder = StreamDecoder(SOCKET_WINDOW_LOG, prefix=exchange.prefix)
        self._beginning = bytearray()
        self._records = RecordReader(max_message_bytes)
        self._position = 0
        self._closed = False  # the provider was told that the agent leaves
        self._turn_ended = False  # and the agent has asked for nothing since
        self._asked_to: int | None = None
        """How far the upload went when the agent had asked for the turn that runs; None: there is none."""
        self.sent_bytes = 0
        """How many payload bytes the agent was sent."""
        self.received_bytes = 0
        """How many payload bytes the agent sent."""

    async def run(self, head: ReplyHead) -> Outcome:
        """Accept the WebSocket, and relay messages until either side ends it."""
        self._stats.agent_bytes_out += reply_bytes(head)
        await self._request.accept(head)
        upward = asyncio.get_running_loop().create_task(self._upward())
        upward.add_done_callback(lambda _: self._exchange.changed.set())
        try:
            return await self._downward(upward)
        except AgentGone:
            if self._exchange.ending is not None or not (self._closed or self._turn_ended):
                raise
            upward.cancel()
            await asyncio.gather(upward, return_exceptions=True)
            await self._leave()
            return "completed"
        finally:
            upward.cancel()
            await asyncio.gather(upward, return_exceptions=True)
            self._exchange.session.cancel(self._exchange)
            await self._sender.aclose()

    async def _upward(self) -> None:
        """Relay the agent's messages until it closes; raise `AgentGone` if it was cut."""
        exchange = self._exchange
        while True:
            while exchange.ending is None and not exchange.session.has_room(exchange):
                await exchange.writable.wait()
            message = await self._request.receive()
            await self._sender.ready()
            if exchange.ending is not None:
                return
            if isinstance(message, WebSocketClose):
                self._closed = True
                self._sender.close(message)
                return
            self.received_bytes += len(message.data)
            self._stats.agent_bytes_in += len(message.data)
            is_asking = not _ACKNOWLEDGEMENT.match(message.data)
            self._turn_ended = self._turn_ended and not is_asking
            await self._sender.send(message)
            if is_asking and self._asked_to is None:
                self._asked_to = self._sender.sent_bytes

    async def _leave(self) -> None:
        """Close the provider's socket for an agent that is gone, and give it a moment to answer."""
        exchange = self._exchange
        self._request.abort()
        if not self._closed:
            if self._sender.is_waiting():
                return  # `run` gives the exchange up
            self._closed = True
            self._sender.close(WebSocketClose(_GOING_AWAY, b""))
        try:
            async with asyncio.timeout(_LEAVE_S):
                while exchange.ending is None:
                    exchange.changed.clear()
                    exchange.session.consume_to(exchange, exchange.log.end)  # nobody reads it
                    exchange.log.release(exchange.log.end)
                    await exchange.changed.wait()
        except TimeoutError:
            pass  # `run` gives the exchange up

    async def _downward(self, upward: asyncio.Task[None]) -> Outcome:
        """Relay the provider's messages until it closes, the agent is gone, or the exchange has ended."""
        exchange = self._exchange
        while True:
            data = exchange.log.read(self._position)
            if data:
                outcome = await self._pass_on(data)
                if outcome is not None:
                    return outcome
            elif exchange.ending is not None:
                return await self._end()
            else:
                if upward.done():
                    upward.result()  # raises `AgentGone`, unless the agent has closed and waits for the answer
                self._sender.check()
                exchange.changed.clear()
                await exchange.changed.wait()

    async def _pass_on(self, data: bytes) -> Outcome | None:
        """Relay messages to the agent; return how its WebSocket ended, if it has."""
        self._decoder.feed(data)
        while piece := self._decoder.read(PIECE_BYTES):
            if not isinstance(piece, StreamError) and len(self._beginning) < REPLY_BASE_BYTES:
                self._keep(piece)
            records = piece if isinstance(piece, StreamError) else self._records.feed(piece)
            if isinstance(records, StreamError | RecordError):
                self._request.abort()
                return "cut"
            for number, record in enumerate(records, 1):
                if isinstance(record, WebSocketClose):
                    return await self._close(record)
                if number % _MESSAGES_AT_ONCE == 0:
                    await asyncio.sleep(0)
                if _TURN_END.match(record.data):
                    self._turn_ended, self._asked_to = True, None
                await self._request.send(record)
                self.sent_bytes += len(record.data)
                self._stats.agent_bytes_out += len(record.data)
                self._sender.note_received(record)
        self._position += len(data)
        self._exchange.session.consume_to(self._exchange, self._position)
        self._exchange.log.release(self._position)
        return None

    def _keep(self, piece: bytes) -> None:
        """Let later replies build on the first bytes of this one."""
        self._beginning += piece[: REPLY_BASE_BYTES - len(self._beginning)]
        if len(self._beginning) == REPLY_BASE_BYTES:
            self._exchange.session.keep_reply(self._exchange, bytes(self._beginning))

    def _may_have_run(self, ending: OutcomeUnknown) -> bool:
        """Tell whether a turn is under way that the gateway may have forwarded."""
        if self._asked_to is None:
            return False
        return ending.taken_bytes is None or ending.taken_bytes >= self._asked_to

    async def _close(self, close: WebSocketClose) -> Outcome:
        """Close as the provider did; cut the agent's socket if the provider's was cut."""
        if close.code == ABNORMAL_CLOSURE:
            self._request.abort()
            return "cut"
        await self._request.close(close.code, close.reason)
        return "completed"

    async def _end(self) -> Outcome:
        """End a WebSocket that had no close message: as a restart if the node is gone, otherwise as a cut.

        After a restart, agents ask for the turn again, which may have run: an error keeps them from it.
        """
        ending = self._exchange.ending
        if isinstance(ending, OutcomeUnknown):
            if self._may_have_run(ending) and is_of_responses_api(self._request.head.target):
                await self._request.send(WebSocketMessage("text", unknown_outcome_event(OUTCOME_UNKNOWN)))
            await self._request.close(_SERVICE_RESTART, b"the gateway is gone")
        else:
            self._request.abort()
        return "cut"
