"""Where the documents and streams of a WebSocket's upload begin and end, for the checker of the tunnel's wire.

It is written from docs/spec/tunnel.md ("Messages as documents") and RFC 8878, and shares nothing with `segue.tunnel`.
It goes from block to block of a stream and expands none. Pure. Not here: what documents and records hold.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Final

import msgspec

from segue.testing.tunnel_frames import WireFault, read_number

_OPCODES: Final = frozenset({1, 2})
#: The two low bits of a document's first byte, where it names a base.
_WITH_BASE: Final = frozenset({2, 3})
_CODING: Final = 3
_LONGEST_NUMBER: Final = 9
_MORE_FOLLOWS: Final = 0x80
#: RFC 8878, 3.1.1.2: a block begins with three bytes: whether it is the last, its type, and its size.
_BLOCK_HEADER_BYTES: Final = 3
_RLE: Final = 1
_RESERVED: Final = 3


class SentDocument(msgspec.Struct, frozen=True):
    """A document of an upload."""

    asks: bool
    """It names a base, so that the gateway answers it."""
    end: int
    """The offset behind its last byte."""


class UploadScanner:
    """Reads one upload as it is sent. Bytes that are no upload may be sent, too: from there on nothing is known."""

    def __init__(self) -> None:
        self.documents: list[SentDocument] = []
        """Those that are whole."""
        self.lost = False
        """What was sent is no upload."""
        self._held = bytearray()
        self._at = 0
        self._reading = self._upload()
        next(self._reading)

    def feed(self, data: bytes) -> None:
        """Take the next bytes."""
        if self.lost:
            return
        self._held += data
        try:
            next(self._reading)
        except WireFault:
            self.lost = True

    def _upload(self) -> Generator[None]:
        may_end = False
        while True:
            opcode = (yield from self._take(1))[0]
            if opcode in _OPCODES:
                yield from self._document()
                may_end = False
            elif opcode or may_end:
                raise WireFault("an upload goes on with what is no opening")
            else:
                yield from self._stream()
                may_end = True

    def _document(self) -> Generator[None]:
        digits = b""
        while not digits or (digits[-1] & _MORE_FOLLOWS and len(digits) < _LONGEST_NUMBER):
            digits += yield from self._take(1)
        document = yield from self._take(read_number(digits, 0)[0])
        asks = bool(document) and document[0] & _CODING in _WITH_BASE
        self.documents.append(SentDocument(asks, self._at))

    def _stream(self) -> Generator[None]:
        is_last = False
        while not is_last:
            header = int.from_bytes((yield from self._take(_BLOCK_HEADER_BYTES)), "little")
            is_last, kind, size = bool(header & 1), header >> 1 & 3, header >> 3
            if kind == _RESERVED:
                raise WireFault("a block of the reserved type")
            yield from self._take(1 if kind == _RLE else size)

    def _take(self, size: int) -> Generator[None, None, bytes]:
        while len(self._held) < size:
            yield
        data = bytes(self._held[:size])
        del self._held[:size]
        self._at += size
        return data
