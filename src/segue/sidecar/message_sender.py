"""What an agent says on a WebSocket, up the tunnel: as records of a stream, or as documents where these are smaller.

A large message that repeats what an earlier socket or request has brought is sent against that, and nothing follows it
before the gateway has it (docs/spec/tunnel.md, "Messages as documents"). Not here: what the provider says, and how the
socket ends (`segue.sidecar.websocket_relay`).
"""

from __future__ import annotations

import asyncio
from typing import Final

from segue.http.websocket import WebSocketClose, WebSocketMessage
from segue.sidecar.body_encoder import BodyEncoder, EncodedBody
from segue.sidecar.session import AgentExchange
from segue.tunnel.documents import encode_document, may_be_missed
from segue.tunnel.socket_transcript import SocketTranscript
from segue.tunnel.socket_upload import SocketUploadWriter

#: A message with so many new bytes is worth the search for a base. Agents may send a small one first, to warm up.
_LARGE_BYTES: Final = 4096
#: After so many smaller messages the stream begins all the same: it is better for many small ones.
_MAX_SMALL: Final = 4
#: A document in the midst of a stream ends it. The next one needs tables of its own, which take some hundred bytes.
_WORTH_BYTES: Final = 512
#: The size of a larger message in a stream is found out in a thread.
_AT_ONCE_BYTES: Final = 64 * 1024


class MessageSender:
    """Sends the messages of one WebSocket, one after the other."""

    def __init__(self, exchange: AgentExchange, bodies: BodyEncoder) -> None:
        self._exchange = exchange
        self._bodies = bodies
        self._writer = SocketUploadWriter()
        self._transcript = SocketTranscript()
        self.sent_bytes = 0
        """How many bytes all that was sent took."""
        self._small = 0
        self._begun = False
        """The first large message was sent, or more small ones than go as documents."""
        self._unrecorded: EncodedBody | None = None
        """The message that went as a document, until it is a base."""
        self._answering: asyncio.Task[None] | None = None

    async def aclose(self) -> None:
        """Keep what was sent as a base. The exchange is over."""
        if self._answering is not None:
            self._answering.cancel()
            await asyncio.gather(self._answering, return_exceptions=True)
        self._bodies.record_socket(self._exchange, self._transcript.as_base())

    def is_waiting(self) -> bool:
        """Tell whether a document waits for its answer, so that nothing may be sent."""
        return self._answering is not None and not self._answering.done()

    def check(self) -> None:
        """Raise what has kept a missed document from being sent again: the provider will never be asked."""
        if self._answering is not None and self._answering.done() and not self._answering.cancelled():
            self._answering.result()

    async def ready(self) -> None:
        """Wait until something may be sent."""
        if self._answering is not None:
            await asyncio.shield(self._answering)

    async def send(self, message: WebSocketMessage) -> None:
        """Send a message; call `ready` before."""
        news = self._transcript.sent(message)
        if self._begun:
            body = await self._encode_repeated(message, news)
        elif len(message.data) < _LARGE_BYTES and self._small < _MAX_SMALL:
            self._small += 1
            self._send(self._writer.document(message, encode_document(message.data)))
            return
        else:
            self._begun = True
            body = await self._bodies.encode_message(message.data, folds_alike=self._exchange.session.folds_alike)
        if body is None:
            self._send(self._writer.record(message))
        else:
            self._send_document(message, body)

    def close(self, close: WebSocketClose) -> None:
        """Send the close; call `ready` before."""
        self._send(self._writer.close(close))
        self._exchange.session.finish(self._exchange)

    def note_received(self, message: WebSocketMessage) -> None:
        """Take what the provider says: when it answers, the gateway has what went before."""
        self._transcript.received(message)
        if not self.is_waiting():
            self._record()

    async def _encode_repeated(self, message: WebSocketMessage, news: bytes) -> EncodedBody | None:
        """Return a later message as a document, if that is worth it: most of what is new in it is in a base."""
        if len(news) < _LARGE_BYTES:
            return None
        folds_alike = self._exchange.session.folds_alike
        body = await self._bodies.encode_repeated(message.data, news, folds_alike=folds_alike)
        if body is None or len(body.document) + _WORTH_BYTES > len(message.data):
            return None
        if len(message.data) <= _AT_ONCE_BYTES:
            alone = self._writer.size_alone(message)
        else:
            alone = await asyncio.to_thread(self._writer.size_alone, message)
        return body if len(body.document) + _WORTH_BYTES <= alone else None

    def _send_document(self, message: WebSocketMessage, body: EncodedBody) -> None:
        self._record()
        self._unrecorded = body
        data = self._writer.document(message, body.document)
        if may_be_missed(body.document):
            self._send(data, asks=True)
            self._answering = asyncio.get_running_loop().create_task(self._send_again_if_missed(message, body))
            self._answering.add_done_callback(lambda _: self._exchange.changed.set())
        else:
            self._send(data)

    async def _send_again_if_missed(self, message: WebSocketMessage, body: EncodedBody) -> None:
        exchange = self._exchange
        await exchange.answered.wait()
        if exchange.ending is not None:
            return
        if not exchange.base_missed:
            self._record()
            return
        document = await self._bodies.encode_without_base(body, exchange.session.epoch)
        self._send(self._writer.document_again(message, document))

    def _record(self) -> None:
        """Let the last document be a base, which the gateway has by now."""
        if self._unrecorded is not None:
            self._bodies.record(self._exchange, self._unrecorded, b"")
            self._unrecorded = None

    def _send(self, data: bytes, *, asks: bool = False) -> None:
        self.sent_bytes += len(data)
        self._exchange.session.send(self._exchange, data, asks=asks)
