"""The framing of WebSocket messages, so that the events of a batch leave in one write.

aiohttp does the handshake, reads messages, answers pings, closes, and frames what is compressed. Only uncompressed
messages to the client are framed here.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

_TEXT = 0x81  # FIN and the opcode of a text frame (RFC 6455, 5.2)
_SHORT = struct.Struct("!BB").pack
_MEDIUM = struct.Struct("!BBH").pack
_LONG = struct.Struct("!BBQ").pack


def text_frames(payloads: Sequence[bytes]) -> bytes:
    """Frame messages of a server: unmasked text frames, one for each message (RFC 6455, 5.2)."""
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
