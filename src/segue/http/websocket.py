"""A WebSocket as its two ends see it (RFC 6455): whole messages, the close, and the header lines of the handshake.

Each hop makes its own handshake, offers no extension, and passes on the subprotocol, the messages and the close. Not
here: frames in general (wsproto and aiohttp read and write them), and when an upgrade is accepted (`request_rules`).
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from typing import Final, Literal

import msgspec

from segue.http.heads import Line, connection_options, values

#: The code that stands for a connection that was cut without a close frame (RFC 6455, 7.1.5). No frame carries it.
ABNORMAL_CLOSURE: Final = 1006

#: Answers to an upgrade that say that there is no WebSocket here. RFC 9110, 15.5.22; the others are what servers and
#: proxies without WebSockets answer.
_NO_WEBSOCKET: Final = frozenset({404, 405, 426, 501})
_SUCCESS_OR_REDIRECT: Final = range(200, 400)
_SERVER_ERRORS: Final = range(500, 600)

_BINARY: Final = 0x82  # FIN and the opcode of a binary frame (RFC 6455, 5.2)
_MASKED: Final = 0x80
_SHORT: Final = 126
_MEDIUM: Final = 0x10000
_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class WebSocketMessage(msgspec.Struct, frozen=True):
    """One whole message; the data of a text message is its UTF-8 bytes."""

    opcode: Literal["text", "binary"]
    data: bytes


class WebSocketClose(msgspec.Struct, frozen=True):
    """The end of a WebSocket: the code and reason of its close frame (1005: a close frame without a code)."""

    code: int
    reason: bytes


def handshake_lines(key: bytes) -> tuple[Line, ...]:
    """Return the lines that ask for a WebSocket; `key` is 16 random bytes in base64 (RFC 6455, 4.1)."""
    return (
        Line(b"Upgrade", b"websocket"),
        Line(b"Connection", b"Upgrade"),
        Line(b"Sec-WebSocket-Key", key),
        Line(b"Sec-WebSocket-Version", b"13"),
    )


def is_accepted(key: bytes, lines: Iterable[Line]) -> bool:
    """Tell whether the lines of a 101 answer the handshake with this key, without any extension (RFC 6455, 4.1)."""
    lines = tuple(lines)
    return (
        [value.lower() for value in values(lines, b"upgrade")] == [b"websocket"]
        and b"upgrade" in connection_options(lines)
        and values(lines, b"sec-websocket-accept") == [accept_value(key)]
        and not values(lines, b"sec-websocket-extensions")
    )


def says_no_websocket(status: int, *, page: bool) -> bool:
    """Tell whether the answer to an upgrade says that there are no WebSockets here; `page`: its body is a web page."""
    if page and status not in _SERVER_ERRORS:
        return True
    return status in _NO_WEBSOCKET or status in _SUCCESS_OR_REDIRECT


def accept_value(key: bytes) -> bytes:
    """Return the Sec-WebSocket-Accept that answers this key (RFC 6455, 4.2.2)."""
    # The protocol names SHA-1; it protects no secret.
    return base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())


def binary_frame(payload: bytes, mask: bytes | None = None) -> bytes:
    """Return a binary message as one frame (RFC 6455, 5.2); `mask`: 4 random bytes, if a client sends it."""
    size, masked = len(payload), 0 if mask is None else _MASKED
    if size < _SHORT:
        head = bytes((_BINARY, masked | size))
    elif size < _MEDIUM:
        head = bytes((_BINARY, masked | 126)) + size.to_bytes(2, "big")
    else:
        head = bytes((_BINARY, masked | 127)) + size.to_bytes(8, "big")
    if mask is None:
        return head + payload
    stream = (mask * (size // 4 + 1))[:size]
    hidden = int.from_bytes(payload, "big") ^ int.from_bytes(stream, "big")
    return head + mask + hidden.to_bytes(size, "big")
