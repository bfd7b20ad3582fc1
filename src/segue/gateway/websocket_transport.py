"""The socket below a transport: noticing that a peer is gone, and framing WebSocket messages ourselves.

aiohttp does the handshake, reads messages, answers pings and closes. Only uncompressed messages to the client are
framed here, since the events of a batch are to leave in one write.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence

from aiohttp import web

#: A peer that does not acknowledge for this long is gone (kernel timers; no traffic of ours, and any progress counts).
_DEAD_PEER_S = 120

_TEXT = 0x81  # FIN and the opcode of a text frame (RFC 6455, 5.2)
_SHORT = struct.Struct("!BB").pack
_MEDIUM = struct.Struct("!BBH").pack
_LONG = struct.Struct("!BBQ").pack


def watch_peer(request: web.Request) -> None:
    """Let the kernel notice a peer that vanished without a word, while its turn runs or its socket idles."""
    connection = None if request.transport is None else request.transport.get_extra_info("socket")
    if connection is None:
        return
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", _DEAD_PEER_S // 2),
        ("TCP_KEEPINTVL", _DEAD_PEER_S // 8),
        ("TCP_KEEPCNT", 4),
        ("TCP_USER_TIMEOUT", _DEAD_PEER_S * 1000),
    ):
        option = getattr(socket, name, None)  # not every platform has every one
        if option is not None:
            connection.setsockopt(socket.IPPROTO_TCP, option, value)


def text_frames(payloads: Sequence[bytes]) -> bytes:
    """Frame messages of a server: unmasked text frames, one each (RFC 6455, 5.2)."""
    pieces: list[bytes] = []
    for payload in payloads:
        size = len(payload)
        if size < 126:  # noqa: PLR2004 - RFC 6455, 5.2: the three forms of a length
            pieces.append(_SHORT(_TEXT, size))
        elif size < 0x10000:  # noqa: PLR2004 - as above
            pieces.append(_MEDIUM(_TEXT, 126, size))
        else:
            pieces.append(_LONG(_TEXT, 127, size))
        pieces.append(payload)
    return b"".join(pieces)
