"""What both ends keep of a WebSocket, to send messages of a later one against: the base that results from it.

Its body has what the agent's messages brought, without the fields that a message repeats of the one before it; its
reply is the fold of the provider's messages (docs/spec/documents.md, "Bases of WebSockets"). Pure, and the same at both
ends. Not here: where bases are kept.
"""

from __future__ import annotations

from typing import Final

import msgspec

from segue.http.websocket import WebSocketMessage
from segue.tunnel.documents import Base
from segue.tunnel.folds.fold import Fold
from segue.tunnel.folds.json import is_strict

#: What would make the body longer than this is left out, and so is all that comes after it. The reply is cut there.
MAX_TRANSCRIPT_BYTES: Final = 1024 * 1024

_object_decoder: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])


class SocketTranscript:
    """The messages of one WebSocket so far, as a base."""

    def __init__(self) -> None:
        self._body = bytearray()
        self._fields: dict[str, bytes] = {}
        self._full = False
        self._fold = Fold(b"text/event-stream")

    def sent(self, message: WebSocketMessage) -> bytes:
        """Take a message of the agent; return what of it is new, as far as that goes into the base."""
        piece = b"" if self._full else self._news_of(message)
        if len(self._body) + len(piece) > MAX_TRANSCRIPT_BYTES:
            self._full, self._fields = True, {}
            return b""
        self._body += piece
        return piece

    def received(self, message: WebSocketMessage) -> None:
        """Take a message of the provider."""
        if message.opcode == "text" and self._fold.size < MAX_TRANSCRIPT_BYTES:
            self._fold.feed_event(message.data)

    def as_base(self) -> Base | None:
        """Return the base of what was sent and received so far; None if nothing was sent."""
        return Base(bytes(self._body), self._fold.value[:MAX_TRANSCRIPT_BYTES]) if self._body else None

    def _news_of(self, message: WebSocketMessage) -> bytes:
        is_first = not self._body
        fields = _fields_of(message)
        if fields is None:
            return message.data if is_first else b"\n" + message.data
        news = [value for name, value in fields.items() if self._fields.get(name) != value]
        self._fields = fields
        return message.data if is_first else b"".join(b"\n" + value for value in news)


def _fields_of(message: WebSocketMessage) -> dict[str, bytes] | None:
    """Return the fields of a JSON object as they stand in the message; None if it is none."""
    if message.opcode != "text" or len(message.data) > MAX_TRANSCRIPT_BYTES:
        return None
    try:
        fields = _object_decoder.decode(message.data)
    except (msgspec.MsgspecError, ValueError, RecursionError):  # ValueError: no UTF-8
        return None
    return {name: bytes(value) for name, value in fields.items()} if is_strict(message.data) else None
