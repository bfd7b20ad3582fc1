"""The head of an HTTP message as it was received: the lines as bytes, and which of them belong to one hop only.

Kept from end to end: method, target, and every line that is not of the hop, with its case, order and duplicates. What
is rebuilt by each hop is listed here once. Not here: reading a head from a socket, or writing one to it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple

import msgspec

#: What an exchange is: one request and its response, or a WebSocket after an upgrade.
Kind = Literal["http", "websocket"]


class Line(NamedTuple):
    """One header line: the name in the case it was sent, and the value without surrounding white space."""

    name: bytes
    value: bytes


class RequestHead(msgspec.Struct, frozen=True):
    """A request without its body. `target` is in origin-form, exactly as it was received."""

    method: bytes
    target: bytes
    lines: tuple[Line, ...]


class ReplyHead(msgspec.Struct, frozen=True):
    """A response without its body."""

    status: int
    reason: bytes
    lines: tuple[Line, ...]


#: Rebuilt by every hop (RFC 9110, 7.6.1; the framing of RFC 9112, 6): neither end of the tunnel passes them on.
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

#: The handshake of a WebSocket is each hop's own (RFC 6455, 4); the subprotocol is the two ends' and stays.
WEBSOCKET_PER_HOP = frozenset(
    {b"sec-websocket-key", b"sec-websocket-version", b"sec-websocket-accept", b"sec-websocket-extensions"}
)


def end_to_end(lines: Iterable[Line], kind: Kind = "http", *, keep: frozenset[bytes] = frozenset()) -> tuple[Line, ...]:
    """Return the lines that are passed on: all but those of the hop and those that `Connection` names.

    `keep` names lines (lower case) that stay all the same, such as the Content-Length of an answer to HEAD.
    """
    lines = tuple(lines)
    dropped = (PER_HOP | connection_options(lines)) - keep
    if kind == "websocket":
        dropped |= WEBSOCKET_PER_HOP
    return tuple(line for line in lines if line.name.lower() not in dropped)


def connection_options(lines: Iterable[Line]) -> frozenset[bytes]:
    """Return the names, in lower case, that the `Connection` lines declare to be of the hop (RFC 9110, 7.6.1)."""
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
