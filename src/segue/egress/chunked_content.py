"""The chunks of a reply's content (RFC 9112, 7.1), in one pass over what has come: a stream of events is many of them.

It reads whole chunks and parts of one, up to the last chunk, and leaves that, with the trailers behind it, and whatever
it does not understand to h11. Pure. Not here: heads, and what follows the content (`connection`).
"""

from __future__ import annotations

import re
from typing import Final

#: A chunk of content, not the last one: its size, and an extension, which is skipped (RFC 9112, 7.1.1).
_CHUNK: Final = re.compile(rb"(?P<size>0*[1-9A-Fa-f][0-9A-Fa-f]{0,14})(?:;[\t\x20-\x7e]*)?\r\n")
_SIZE_LINE_BYTES: Final = 1024


class ChunkedContent:
    """Feed it what comes behind the head, and read until it has `ended`."""

    def __init__(self) -> None:
        self._ahead = b""
        self._left = 0  # bytes of the present chunk, and the end of line behind it
        self._broken = False
        self.ended = False
        """Whatever comes next is not the content of a chunk: it is in `rest`."""

    @property
    def rest(self) -> bytes:
        """What has come and was not read."""
        return self._ahead

    def feed(self, data: bytes) -> None:
        """Take the next bytes."""
        self._ahead += data

    def read(self) -> bytes:
        """Return the content that has come; `b""`: feed more, or it has ended.

        Raises:
            ValueError: a chunk is longer than its size.
        """
        self._refuse_broken()
        data, at = self._ahead, 0
        pieces: list[bytes] = []
        while True:
            if self._left:
                at, whole = self._read_chunk(data, at, pieces)
                if not whole:
                    break
            chunk = _CHUNK.match(data, at)
            if chunk is None:
                self.ended = data.find(b"\n", at) >= 0 or len(data) - at > _SIZE_LINE_BYTES
                break
            at = chunk.end()
            self._left = int(chunk["size"], 16) + 2
        self._ahead = data[at:]
        if not pieces:
            self._refuse_broken()
        return b"".join(pieces)

    def _refuse_broken(self) -> None:
        if self._broken:
            raise ValueError("a chunk is longer than its size says")

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
        self._broken = data[end : end + 2] != b"\r\n"
        return end + 2, not self._broken
