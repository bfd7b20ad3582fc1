"""A WebSocket of an agent through the tunnel: its messages travel both ways with their payloads unchanged.

Neither side sees when a link is cut. An agent whose last turn has ended may leave without a close frame, as a program
does that just ends: the provider's socket is closed for it.

Not here: the upgrade and its refusals (`segue.sidecar.request_handler`).
"""

from __future__ import annotations

import asyncio
import re
from typing import Literal

from segue.http.heads import ReplyHead
from segue.http.websocket import ABNORMAL_CLOSURE, WebSocketClose, WebSocketMessage
from segue.sidecar.agent_request import AgentRequest
from segue.sidecar.agent_transport import AgentGone
from segue.sidecar.body_encoder import BodyEncoder, EncodedBody
from segue.sidecar.response_writer import PIECE_BYTES
from segue.sidecar.session import AgentExchange
from segue.sidecar.stats import Outcome, Stats, reply_bytes
from segue.tunnel.documents import encode_document, may_be_missed
from segue.tunnel.events import OutcomeUnknown
from segue.tunnel.socket_opening import END_OF_OPENINGS, encode_opening, stream_prefix
from segue.tunnel.socket_transcript import SocketTranscript
from segue.tunnel.stream_compression import (
    REPLY_BASE_BYTES,
    SOCKET_WINDOW_LOG,
    StreamDecoder,
    StreamEncoder,
    StreamError,
)
from segue.tunnel.websocket_records import RecordError, RecordReader, encode_record

#: "Service Restart" in the IANA registry of close codes (RFC 6455, 11.7): the agent may connect again.
_SERVICE_RESTART = 1012
#: The close code of an endpoint that leaves (RFC 6455, 7.4.1).
_GOING_AWAY = 1001
_LEAVE_S = 2.0
#: The first message of so many bytes is sent against a base. Agents may send a small one before it, to warm up.
_LARGE_BYTES = 4096
#: After so many smaller messages the stream begins all the same: it is better for many small ones.
_MAX_SMALL = 4
#: The events of WebSocket mode after which nothing more of a turn comes, and the message that only acknowledges them.
_TURN_END = re.compile(rb'\s*\{\s*"type"\s*:\s*"(?:response\.(?:completed|incomplete|failed)|error)"')
_ACKNOWLEDGEMENT = re.compile(rb'\s*\{\s*"type"\s*:\s*"response\.processed"')


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
        self._bodies = bodies
        self._stats = stats
        self._decoder = StreamDecoder(SOCKET_WINDOW_LOG, prefix=exchange.prefix)
        self._beginning = bytearray()
        self._records = RecordReader(max_message_bytes)
        self._encoder: StreamEncoder | None = None
        """What compresses all messages behind the first; None before that."""
        self._first: EncodedBody | None = None
        """The first large message, until it is a base."""
        self._opening: asyncio.Task[None] | None = None
        self._small: list[WebSocketMessage] = []
        """The messages before it, which went as documents too."""
        self._stream_begun = False
        self._transcript = SocketTranscript()
        self._position = 0
        self._closed = False  # the provider was told that the agent leaves
        self._turn_ended = False  # and the agent has asked for nothing since
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
            tasks = [upward] if self._opening is None else [upward, self._opening]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._exchange.session.cancel(self._exchange)
            self._bodies.record_socket(self._exchange, self._transcript.as_base())

    async def _upward(self) -> None:
        """Relay the agent's messages until it closes; raise `AgentGone` if it was cut."""
        exchange = self._exchange
        while True:
            while exchange.ending is None and not exchange.session.has_room(exchange):
                await exchange.writable.wait()
            message = await self._request.receive()
            if self._encoder is not None:
                await exchange.opening_taken.wait()
            if exchange.ending is not None:
                return
            if isinstance(message, WebSocketClose):
                self._send_close(message)
                return
            self.received_bytes += len(message.data)
            self._stats.agent_bytes_in += len(message.data)
            if not _ACKNOWLEDGEMENT.match(message.data):
                self._turn_ended = False
            if self._encoder is not None:
                self._send_stream(self._encoder.feed(encode_record(message)) + self._encoder.flush())
            elif len(message.data) < _LARGE_BYTES and len(self._small) < _MAX_SMALL:
                self._small.append(message)
                exchange.session.send(exchange, encode_opening(message.opcode, encode_document(message.data)))
            else:
                self._encoder = await self._open(message)
            self._transcript.sent(message)

    def _send_stream(self, data: bytes) -> None:
        begin = b"" if self._stream_begun else END_OF_OPENINGS
        self._stream_begun = True
        self._exchange.session.send(self._exchange, begin + data)

    async def _open(self, message: WebSocketMessage) -> StreamEncoder:
        """Send the first large message as a document; return the encoder of the stream behind it.

        Nothing follows before it is sure that the gateway has it: what is missed is sent again, and nothing else is.
        """
        folds_alike = self._exchange.session.folds_alike
        self._first = await self._bodies.encode_message(message.data, folds_alike=folds_alike)
        self._exchange.session.send(self._exchange, encode_opening(message.opcode, self._first.document))
        if may_be_missed(self._first.document):
            again = self._open_again_if_missed(message.opcode, self._first)
            self._opening = asyncio.get_running_loop().create_task(again)
        else:
            self._exchange.opening_taken.set()
        return StreamEncoder(SOCKET_WINDOW_LOG, prefix=stream_prefix(message.data))

    async def _open_again_if_missed(self, opcode: Literal["text", "binary"], body: EncodedBody) -> None:
        exchange = self._exchange
        await exchange.upload_wanted.wait()
        if exchange.ending is None:
            document = await self._bodies.encode_without_base(body, exchange.session.epoch)
            exchange.session.send(exchange, encode_opening(opcode, document))
            exchange.opening_taken.set()

    def _send_close(self, close: WebSocketClose) -> None:
        exchange, encoder = self._exchange, self._encoder
        self._closed = True
        if encoder is None:
            prefix = stream_prefix(self._small[-1].data) if self._small else b""
            encoder = StreamEncoder(SOCKET_WINDOW_LOG, prefix=prefix)
        self._send_stream(encoder.feed(encode_record(close)) + encoder.finish())
        exchange.session.finish(exchange)

    async def _leave(self) -> None:
        """Close the provider's socket for an agent that is gone, and give it a moment to answer."""
        exchange = self._exchange
        self._request.abort()
        if not self._closed:
            if self._encoder is not None and not exchange.opening_taken.is_set():
                return  # `run` gives the exchange up
            self._send_close(WebSocketClose(_GOING_AWAY, b""))
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
            for record in records:
                if isinstance(record, WebSocketClose):
                    return await self._close(record)
                if _TURN_END.match(record.data):
                    self._turn_ended = True
                await self._request.send(record)
                self.sent_bytes += len(record.data)
                self._stats.agent_bytes_out += len(record.data)
                self._note_received(record)
        self._position += len(data)
        self._exchange.session.consume_to(self._exchange, self._position)
        self._exchange.log.release(self._position)
        return None

    def _note_received(self, message: WebSocketMessage) -> None:
        """Keep what later sockets are sent against: at the first answer, the gateway has the first message too."""
        self._transcript.received(message)
        if self._first is not None:
            self._bodies.record(self._exchange, self._first, b"")
            self._first = None

    def _keep(self, piece: bytes) -> None:
        """Let later replies build on the first bytes of this one."""
        self._beginning += piece[: REPLY_BASE_BYTES - len(self._beginning)]
        if len(self._beginning) == REPLY_BASE_BYTES:
            self._exchange.session.keep_reply(self._exchange, bytes(self._beginning))

    async def _close(self, close: WebSocketClose) -> Outcome:
        """Close as the provider did; cut the agent's socket if the provider's was cut."""
        if close.code == ABNORMAL_CLOSURE:
            self._request.abort()
            return "cut"
        await self._request.close(close.code, close.reason)
        return "completed"

    async def _end(self) -> Outcome:
        """End a WebSocket that had no close message: as a restart if the node is gone, otherwise as a cut."""
        if isinstance(self._exchange.ending, OutcomeUnknown):
            await self._request.close(_SERVICE_RESTART, b"the gateway is gone")
        else:
            self._request.abort()
        return "cut"
