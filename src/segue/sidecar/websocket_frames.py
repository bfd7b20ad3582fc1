"""The frames of an agent's WebSocket, as messages: the server's side of RFC 6455 after the handshake, on wsproto.

Pings are answered here; no extension is spoken. Not here: the socket and the handshake.
"""

from __future__ import annotations

from typing import NamedTuple

from wsproto.connection import SERVER, Connection, ConnectionState
from wsproto.events import BytesMessage, CloseConnection, Ping, TextMessage
from wsproto.frame_protocol import CloseReason, FrameProtocol

from segue.http.websocket import WebSocketClose, WebSocketMessage

#: Close codes that stand for something that was not sent, and so cannot be (RFC 6455, 7.4.1).
_UNSENDABLE = frozenset({1006, 1015})
#: The states in which an end has not sent its close frame: ours, and the agent's.
_SENDING = frozenset({ConnectionState.OPEN, ConnectionState.REMOTE_CLOSING})
_RECEIVING = frozenset({ConnectionState.OPEN, ConnectionState.LOCAL_CLOSING})


class Arrived(NamedTuple):
    """What some bytes amounted to. `answer` goes to the agent at once; after `is_broken` the connection is cut."""

    messages: list[WebSocketMessage | WebSocketClose]
    answer: bytes
    is_broken: bool


class MessageFrames:
    """One WebSocket; a message of more than `max_message` bytes breaks it."""

    def __init__(self, *, max_message: int) -> None:
        self._protocol = Connection(SERVER)
        self._sender = FrameProtocol(client=False, extensions=[])
        self._max_message = max_message
        self._part = bytearray()

    @property
    def is_open(self) -> bool:
        """No close frame has gone in either direction."""
        return self._protocol.state is ConnectionState.OPEN

    @property
    def is_over(self) -> bool:
        """Close frames have gone in both directions."""
        return self._protocol.state is ConnectionState.CLOSED

    def receive(self, data: bytes) -> Arrived:
        """Take the next bytes from the agent."""
        messages: list[WebSocketMessage | WebSocketClose] = []
        answer = bytearray()
        if self._protocol.state in _RECEIVING:  # nothing follows a close
            self._protocol.receive_data(data)
        for event in self._protocol.events():
            match event:
                case Ping():
                    answer += self._protocol.send(event.response()) if self.is_open else b""
                case TextMessage() | BytesMessage():
                    if not self._add(event, messages):
                        reason = "The message is too big."
                        answer += self._protocol.send(CloseConnection(code=CloseReason.MESSAGE_TOO_BIG, reason=reason))
                        return Arrived(messages, bytes(answer), is_broken=True)
                case CloseConnection(code=code, reason=reason):
                    if self.is_open:  # wsproto tells of broken frames so, without a change of state
                        answer += self._protocol.send(event)
                        return Arrived(messages, bytes(answer), is_broken=True)
                    messages.append(WebSocketClose(int(code), (reason or "").encode()))
                    break  # whatever follows a close frame is not read
                case _:  # a pong: nobody here sends pings
                    pass
        return Arrived(messages, bytes(answer), is_broken=False)

    def _add(self, event: TextMessage | BytesMessage, messages: list[WebSocketMessage | WebSocketClose]) -> bool:
        self._part += event.data.encode() if isinstance(event, TextMessage) else event.data
        if len(self._part) > self._max_message:
            return False
        if event.message_finished:
            messages.append(WebSocketMessage("text" if isinstance(event, TextMessage) else "binary", bytes(self._part)))
            self._part = bytearray()
        return True

    def encode(self, message: WebSocketMessage) -> bytes:
        """Return a message as one frame; nothing once our close frame has gone.

        What was under way when the agent closed still goes to it, as RFC 6455 allows (5.5.1) and wsproto's connection
        does not.
        """
        if self._protocol.state not in _SENDING:
            return b""
        payload = message.data.decode() if message.opcode == "text" else message.data
        return bytes(self._sender.send_data(payload, fin=True))

    def encode_close(self, close: WebSocketClose) -> bytes:
        """Return the close frame; nothing if one was sent already. A code that cannot be sent becomes 1011."""
        if self._protocol.state not in _SENDING:
            return b""
        if close.code == CloseReason.NO_STATUS_RCVD:
            return self._protocol.send(CloseConnection(code=CloseReason.NO_STATUS_RCVD))
        code = int(CloseReason.INTERNAL_ERROR) if close.code in _UNSENDABLE else close.code
        return self._protocol.send(CloseConnection(code=code, reason=close.reason.decode("utf-8", "replace")))
