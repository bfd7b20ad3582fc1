"""The framing of WebSocket messages, so that the events of a batch leave in one write, compressed or not.

A large message leaves in fragments: a slow reader holds one of them, and control frames go between them. aiohttp does
the handshake, with permessage-deflate in it, reads messages, answers pings and closes. Only the messages to a client
are framed here. `DeflatedFrames` keeps the state of a connection's compression, so all messages of that connection must
go through it.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence

from segue.http.blocks import Pieces, cut
from segue.protocol.events import Event

_FIN = 0x80
_TEXT = 0x81  # FIN and the opcode of a text frame (RFC 6455, 5.2)
_COMPRESSED_TEXT = _TEXT | 0x40  # RSV1: the message is compressed (RFC 7692, 7.2.3.1)
#: From these sizes on, a length has its second and its third form (RFC 6455, 5.2).
_MEDIUM_BYTES, _LONG_BYTES = 126, 0x10000
_SHORT = struct.Struct("!BB").pack
_MEDIUM = struct.Struct("!BBH").pack
_LONG = struct.Struct("!BBQ").pack

#: What deflate writes at the end of each message, and what is not sent (RFC 7692, 7.2.1).
_TAIL = b"\x00\x00\xff\xff"
#: The farthest that deflate looks back (RFC 1951, 2).
_WINDOW = 32 * 1024
#: How much of one write is compressed, and joined. More would hold up everybody else.
_MAX_BYTES = 256 * 1024
#: What is shorter than this gains nothing.
_MIN_BYTES = 32
#: Bytes against time: 6 makes lean streams a tenth smaller than 3, and a whole stream a quarter.
_LEVEL = 6


def frames(messages: Iterable[Pieces], deflate: DeflatedFrames | None = None) -> Iterator[bytes]:
    """Frame messages: yield what is to be written, each when the socket has taken the one before."""
    small: list[bytes] = []
    size = 0
    write = text_frames if deflate is None else deflate.write
    for message in messages:
        length = len(message[0]) if len(message) == 1 else sum(map(len, message))
        if small and size + length > _MAX_BYTES:
            yield write(small)
            small, size = [], 0
        if length > _MAX_BYTES:
            yield from _fragments(message)
            continue
        small.append(b"".join(message))
        size += length
    if small:
        yield write(small)


def text_frames(payloads: Sequence[bytes], first: int = _TEXT) -> bytes:
    """Frame messages of a server: unmasked text frames, one for each message (RFC 6455, 5.2)."""
    pieces: list[bytes] = []
    for payload in payloads:
        pieces += (_head(first, len(payload)), payload)
    return b"".join(pieces)


def event_frames(events: Sequence[Event], lane: bytes = b"") -> tuple[list[bytes | memoryview], int]:
    """Frame events, each as one message. Return the pieces of one write, not joined yet, and how many bytes those are.

    `lane` is the tag of one (`lanes.tag`).
    """
    pieces: list[bytes | memoryview] = []
    total = 0
    for event in events:
        if lane or event.echo:
            text = event.pieces(lane)
            size = sum(map(len, text))
            pieces += (_head(_TEXT, size), *text)
        else:  # nearly all are such, and each call for an event is felt
            data = event.data
            size = len(data)
            if _MEDIUM_BYTES <= size < _LONG_BYTES:
                pieces += (_MEDIUM(_TEXT, _MEDIUM_BYTES, size), data)
            else:
                pieces += (_head(_TEXT, size), data)
        total += size
    return pieces, total


def _fragments(message: Pieces) -> Iterator[bytes]:
    """Frame one message in fragments: a text frame without FIN, and continuation frames (RFC 6455, 5.4)."""
    opcode, last = _TEXT & ~_FIN, b""
    for block in cut(message):
        if last:
            yield _head(opcode, len(last)) + last
            opcode = 0
        last = block
    yield _head(_FIN | opcode, len(last)) + last


def _head(first: int, size: int) -> bytes:
    if size < _MEDIUM_BYTES:
        return _SHORT(first, size)
    if size < _LONG_BYTES:
        return _MEDIUM(first, _MEDIUM_BYTES, size)
    return _LONG(first, _MEDIUM_BYTES + 1, size)


class DeflatedFrames:
    """Frames the messages of one connection that has agreed on permessage-deflate (RFC 7692).

    With `takeover`, a message may repeat what stood in those before it. `rest` gives the memory of that back while
    nothing is sent (256 KB), but for the bytes that the client has in its own window.
    """

    def __init__(self, window_bits: int, *, takeover: bool) -> None:
        self._window_bits = window_bits
        self._takeover = takeover
        self._deflate: zlib._Compress | None = None
        self._recent: list[bytes] = []  # what was compressed last, a window of it and more
        self._recent_bytes = 0

    def write(self, payloads: Sequence[bytes]) -> bytes:
        """Frame messages in one piece, compressed where that pays."""
        pieces: list[bytes] = []
        room = _MAX_BYTES
        for payload in payloads:
            size = len(payload)
            if _MIN_BYTES <= size <= room:
                room -= size
                pieces.append(text_frames([self._compress(payload)], _COMPRESSED_TEXT))
            else:
                pieces.append(text_frames([payload]))
        return b"".join(pieces)

    def rest(self) -> None:
        """Give back memory until the next message."""
        self._deflate = None
        self._forget()

    def _compress(self, payload: bytes) -> bytes:
        deflate = self._deflate or self._begin()
        if self._takeover:
            self._deflate = deflate
            self._recent.append(payload)
            self._recent_bytes += len(payload)
            if self._recent_bytes > 4 * _WINDOW:
                self._forget()
        return (deflate.compress(payload) + deflate.flush(zlib.Z_SYNC_FLUSH)).removesuffix(_TAIL)

    def _begin(self) -> zlib._Compress:
        """Begin to compress anew, with what the client's window still holds as if it had been compressed before."""
        known = self._forget()
        if not known:
            return zlib.compressobj(_LEVEL, zlib.DEFLATED, -self._window_bits)
        return zlib.compressobj(_LEVEL, zlib.DEFLATED, -self._window_bits, zdict=known)

    def _forget(self) -> bytes:
        """Forget what lies outside of the window, and return what is in it."""
        kept = b"".join(self._recent)[-_WINDOW:]
        self._recent, self._recent_bytes = [kept] if kept else [], len(kept)
        return kept
