"""The head of an HTTP message as it was received: its lines as bytes, and which of them are hop-by-hop.

Method, target and end-to-end lines are passed on with their case, order and duplicates. Each hop makes the hop-by-hop
lines itself; this module is the one list of them. Not here: reading a head from a socket, or writing one.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple

import msgspec

#: An exchange is one request and its response, or a WebSocket after an upgrade.
ExchangeKind = Literal["http", "websocket"]


class Line(NamedTuple):
    """One header line: the name in the case in which it was sent, and the value without surrounding white space."""

    name: bytes
    value: bytes


class RequestHead(msgspec.Struct, frozen=True):
    """A request without its body. `target` is in origin-form, as it was received."""

    method: bytes
    target: bytes
    lines: tuple[Line, ...]


class ReplyHead(msgspec.Struct, frozen=True):
    """A response without its body."""

    status: int
    reason: bytes
    lines: tuple[Line, ...]


#: The methods that change nothing at the server, so that a repeat does no harm (RFC 9110, 9.2.1).
SAFE_METHODS = frozenset({b"GET", b"HEAD", b"OPTIONS", b"TRACE"})

#: Hop-by-hop lines (RFC 9110, 7.6.1; the framing of RFC 9112, 6): no hop passes them on.
PER_HOP = frozenset(
    {
        b"host",
        b"connection",
        b"keep-alive",
        b"content-length",
        b"transfer-encoding",
        b"te",
        b"trailer",
        b"upgrade",
        b"expect",
        b"proxy-connection",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-authentication-info",
    }
)

#: Each hop makes its own WebSocket handshake (RFC 6455, 4); the subprotocol belongs to the two ends and is passed on.
WEBSOCKET_PER_HOP = frozenset(
    {b"sec-websocket-key", b"sec-websocket-version", b"sec-websocket-accept", b"sec-websocket-extensions"}
)

_WEBSOCKET_DROPPED = PER_HOP | WEBSOCKET_PER_HOP
_LENGTH = frozenset({b"content-length"})
_NO_CONTENT = 204
_NOT_MODIFIED = 304
_WITHOUT_CONTENT = frozenset({_NO_CONTENT, _NOT_MODIFIED})


def end_to_end(
    lines: Iterable[Line], kind: ExchangeKind = "http", *, keep: frozenset[bytes] = frozenset()
) -> tuple[Line, ...]:
    """Return the end-to-end lines: all but the hop-by-hop ones and those that `Connection` names.

    `keep` names hop-by-hop lines (lower case) to pass on anyway.
    """
    lines = tuple(lines)
    names = [line.name.lower() for line in lines]
    dropped = PER_HOP if kind == "http" else _WEBSOCKET_DROPPED
    if b"connection" in names:
        dropped |= connection_options(lines)
    if keep:
        dropped -= keep
    return tuple([line for line, name in zip(lines, names, strict=True) if name not in dropped])


def has_content(method: bytes, status: int) -> bool:
    """Tell whether a final response to this method has content (RFC 9110, 6.4.1)."""
    return method != b"HEAD" and status not in _WITHOUT_CONTENT


def reply_lines(head: ReplyHead, method: bytes, kind: ExchangeKind = "http") -> tuple[Line, ...]:
    """Return the lines of a response that are passed on.

    Content-Length is one of them in a response to HEAD and in a 304: it frames nothing there, but says how long the
    content of a GET would be (RFC 9110, 8.6). A 204 must not have it.
    """
    tells_length = method == b"HEAD" or head.status == _NOT_MODIFIED
    keep = _LENGTH if tells_length and head.status != _NO_CONTENT else frozenset[bytes]()
    return end_to_end(head.lines, kind, keep=keep)


def connection_options(lines: Iterable[Line]) -> frozenset[bytes]:
    """Return the names, in lower case, that the `Connection` lines declare hop-by-hop (RFC 9110, 7.6.1)."""
    return frozenset(
        option.strip().lower()
        for line in lines
        if line.name.lower() == b"connection"
        for option in line.value.split(b",")
        if option.strip()
    )


def values(lines: Iterable[Line], name: bytes) -> list[bytes]:
    """Return the values of all lines with this name (lower case), in order."""
    return [line.value for line in lines if line.name.lower() == name]
