"""The frames of an agent's WebSocket, as messages: the server's side of RFC 6455 after the handshake, on wsproto.

Pings are answered here; no extension is spoken. Not here: the socket and the handshake.
"""

from __future__ import annotations

import msgspec
from wsproto.connection import SERVER, Connection, ConnectionState
from wsproto.events import BytesMessage, CloseConnection, Ping, TextMessage
from wsproto.frame_protocol import CloseReason, FrameProtocol

from segue.http.websocket import WebSocketClose, WebSocketMessage

#: Close codes that stand for something that was not sent, and so cannot be (RFC 6455, 7.4.1).
_UNSENDABLE = frozenset({1006, 1015})
#: The states in which an end has not sent its close frame: ours, and the agent's.
_SENDING = frozenset({ConnectionState.OPEN, ConnectionState.REMOTE_CLOSING})
_RECEIVING = frozenset({ConnectionState.OPEN, ConnectionState.LOCAL_CLOSING})


class ArrivedMessages(msgspec.Struct, frozen=True):
    """The messages in some bytes. Send `answer` to the agent at once; cut the connection if it is `broken`."""

    messages: list[WebSocketMessage | WebSocketClose]
    answer: bytes
    broken: bool


class MessageFrames:
    """One WebSocket; a message of more than `max_message` bytes breaks it."""

    def __init__(self, *, max_message: int) -> None:
        self._protocol = Connection(SERVER)
        self._sender = FrameProtocol(client=False, extensions=[])
        self._max_message = max_message
        self._part = bytearray()

    @property
    def open(self) -> bool:
        """No close frame has been sent in either direction."""
        return self._protocol.state is ConnectionState.OPEN

    @property
    def closed(self) -> bool:
        """Close frames have been sent in both directions."""
        return self._protocol.state is ConnectionState.CLOSED

    def receive(self, data: bytes) -> ArrivedMessages:
        """Take the next bytes from the agent."""
        messages: list[WebSocketMessage | WebSocketClose] = []
        answer = bytearray()
        if self._protocol.state in _RECEIVING:  # nothing follows a close
            self._protocol.receive_data(data)
        for event in self._protocol.events():
            match event:
                case Ping():
                    answer += self._protocol.send(event.response()) if self.open else b""
                case TextMessage() | BytesMessage():
                    if not self._add(event, messages):
                        reason = "The message is too big."
                        answer += self._protocol.send(CloseConnection(code=CloseReason.MESSAGE_TOO_BIG, reason=reason))
                        return ArrivedMessages(messages, bytes(answer), broken=True)
                case CloseConnection(code=code, reason=reason):
                    if self.open:  # this is how wsproto reports broken frames
                        answer += self._protocol.send(event)
                        return ArrivedMessages(messages, bytes(answer), broken=True)
                    messages.append(WebSocketClose(int(code), (reason or "").encode()))
                    break  # nothing is read after a close frame
                case _:  # a pong: nobody here sends pings
                    pass
        return ArrivedMessages(messages, bytes(answer), broken=False)

    def _add(self, event: TextMessage | BytesMessage, messages: list[WebSocketMessage | WebSocketClose]) -> bool:
        self._part += event.data.encode() if isinstance(event, TextMessage) else event.data
        if len(self._part) > self._max_message:
            return False
        if event.message_finished:
            messages.append(WebSocketMessage("text" if isinstance(event, TextMessage) else "binary", bytes(self._part)))
            self._part = bytearray()
        return True

    def encode(self, message: WebSocketMessage) -> bytes:
        """Return a message as one frame, or nothing once our close frame was sent.

        After the agent's close frame, messages still go to it until ours, as RFC 6455 allows (5.5.1). wsproto's own
        connection does not allow it.
        """
        if self._protocol.state not in _SENDING:
            return b""
        payload = message.data.decode() if message.opcode == "text" else message.data
        return bytes(self._sender.send_data(payload, fin=True))

    def encode_close(self, close: WebSocketClose) -> bytes:
        """Return the close frame, or nothing if one was sent already. A code that cannot be sent becomes 1011."""
        if self._protocol.state not in _SENDING:
            return b""
        if close.code == CloseReason.NO_STATUS_RCVD:
            return self._protocol.send(CloseConnection(code=CloseReason.NO_STATUS_RCVD))
        code = int(CloseReason.INTERNAL_ERROR) if close.code in _UNSENDABLE else close.code
        return self._protocol.send(CloseConnection(code=code, reason=close.reason.decode("utf-8", "replace")))
