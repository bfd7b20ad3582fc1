"""The reply of one exchange as it travelled, kept from its beginning while it is small, so that it can be read again.

Beyond its bound the log keeps only what was not read yet; that is little, since the sender gets credit only for what
was read. Not here: what the bytes mean.
"""

from __future__ import annotations


class ReplyLog:
    """Bytes with offsets. `limit`: how many may be kept though they have been read."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held = bytearray()
        self._start = 0

    @property
    def end(self) -> int:
        """The offset behind the last byte."""
        return self._start + len(self._held)

    @property
    def replayable(self) -> bool:
        """It can still be read from its beginning, and is within its bound."""
        return self._start == 0 and len(self._held) <= self._limit

    def write(self, data: bytes) -> None:
        """Add the next bytes."""
        self._held += data

    def read(self, offset: int) -> bytes:
        """Return all bytes from an offset that was not released."""
        if offset < self._start:
            raise ValueError(f"bytes from {offset} on were released up to {self._start}")
        return bytes(self._held[offset - self._start :])

    def release(self, offset: int) -> None:
        """Drop the bytes before an offset, which were read, unless the log is small enough to be kept whole."""
        if not self.replayable and offset > self._start:
            del self._held[: offset - self._start]
            self._start = offset
