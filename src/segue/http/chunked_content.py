"""The chunks of a message's content (RFC 9112, 7.1), in one pass over what has come: a stream of events is many.

It takes what h11 takes, but no folded trailer, and in the extension of a chunk only what can be printed. Extensions and
trailers are skipped. Pure. Not here: heads, and content that is framed in another way (`message_content`).
"""

from __future__ import annotations

import re
from typing import Final

from segue.http.field_syntax import TOKEN, VALUE

#: The size of a chunk, and an extension, which is skipped (RFC 9112, 7.1.1). White space behind the size is an old
#: custom. That behind an extension belongs to the extension: two patterns for it would try all ways to share it.
_SIZE_LINE: Final = re.compile(rb"(?P<size>0{0,5}[0-9A-Fa-f]{1,15})(?:;[\t\x20-\x7e]*|[\t ]*)\r\n")
_SIZE_LINE_BYTES: Final = 1024
_HEX_DIGITS: Final = b"0123456789ABCDEFabcdef"
#: So long may the size be of a chunk that is taken in one step.
_SHORT_SIZE: Final = 8
_TRAILERS: Final = re.compile(rb"(?:%b:%b\r?\n)*\r?\n" % (TOKEN, VALUE))
_TRAILERS_END: Final = re.compile(rb"(?:\A|\n)\r?\n")
_TRAILERS_BYTES: Final = 16 * 1024
_NO_TRAILERS: Final = "what should be trailers are none"


class ChunkedContent:
    """Feed it what comes behind the head, and read until it is `complete`. `begin`: what has come already."""

    def __init__(self, begin: bytes = b"") -> None:
        self._ahead = begin
        self._left = 0  # bytes of the present chunk, and the end of line behind it
        self._in_trailers = False
        self._searched = 0  # how far in `_ahead` the end of the trailers was looked for
        self._fault = ""
        self.complete = False
        """The last chunk and the trailers have come; what follows is in `rest`."""

    @property
    def rest(self) -> bytes:
        """What has come and was not read."""
        return self._ahead

    def end(self) -> None:
        """Note that the connection has ended, which is within the content.

        Raises:
            ValueError: always.
        """
        raise ValueError("the connection ended within the content")

    def feed(self, data: bytes) -> None:
        """Take the next bytes."""
        self._ahead += data

    def read(self) -> bytes:
        """Return the content that has come; `b""`: feed more, or it is complete.

        Raises:
            ValueError: these are no chunks. What came before that was read first.
        """
        if not (self._left or self._in_trailers or self._fault):
            chunk = _only_chunk(self._ahead)
            if chunk:
                self._ahead = b""
                return chunk
        pieces: list[bytes] = []
        if not (self._fault or self._in_trailers):
            self._read_chunks(pieces)
        if self._in_trailers and not self.complete:
            self._read_trailers()
        if self._fault and not pieces:
            raise ValueError(self._fault)
        return b"".join(pieces)

    def _read_chunks(self, pieces: list[bytes]) -> None:
        data, at = self._ahead, 0
        while True:
            if self._left:
                at, whole = self._read_chunk(data, at, pieces)
                if not whole:
                    break
            line = _SIZE_LINE.match(data, at, at + _SIZE_LINE_BYTES)
            if line is None:
                if data.find(b"\n", at) >= 0 or len(data) - at > _SIZE_LINE_BYTES:
                    self._fault = "what should be the size of a chunk is none"
                break
            at = line.end()
            size = int(line["size"], 16)
            if not size:
                self._in_trailers = True
                break
            self._left = size + 2
        self._ahead = data[at:]

    def _read_chunk(self, data: bytes, at: int, pieces: list[bytes]) -> tuple[int, bool]:
        """Read on in a chunk; return the next place, and whether it was read to its end."""
        end = at + self._left - 2  # of its content
        if at < end:
            pieces.append(data[at:end])
        if len(data) < end + 2:
            read = max(at, min(len(data), end))
            self._left -= read - at
            return read, False
        self._left = 0
        if data[end : end + 2] != b"\r\n":
            self._fault = "a chunk is longer than its size says"
        return end + 2, not self._fault

    def _read_trailers(self) -> None:
        end = _TRAILERS_END.search(self._ahead, max(0, self._searched - 2))  # not from the start with each byte
        if end is None:
            self._searched = len(self._ahead)
            if self._searched > _TRAILERS_BYTES:
                self._fault = _NO_TRAILERS
        elif _TRAILERS.fullmatch(self._ahead, 0, end.end()) is None:
            self._fault = _NO_TRAILERS
        else:
            self.complete = True
            self._ahead = self._ahead[end.end() :]


def _only_chunk(data: bytes) -> bytes:
    """Return the content if these bytes are one whole chunk, as mostly an event of a stream comes; else `b""`."""
    at = data.find(b"\r\n", 0, _SHORT_SIZE + 2)
    if at <= 0 or data[:at].translate(None, _HEX_DIGITS) or not data.endswith(b"\r\n"):
        return b""
    begin, end = at + 2, len(data) - 2
    return data[begin:end] if int(data[:at], 16) == end - begin else b""
