"""The two ends of one direction of an exchange: bytes with offsets, which the sender keeps until the peer has them.

A cut link loses nothing: the receiver names the offset that it has, and the sender continues there. The receiver grants
the sender a flow-control window (WINDOW), so a slow reader stalls its own exchange and no other. Not here: links and
frames.
"""

from __future__ import annotations

import msgspec

#: The window before the receiver has granted any.
INITIAL_WINDOW_BYTES = 256 * 1024
#: The largest window, for a reader that keeps up: what a large body needs on a fast and long path (10 MB/s at 0.3 s).
MAX_WINDOW_BYTES = 4 * 1024 * 1024


class Piece(msgspec.Struct, frozen=True):
    """Bytes of a stream and their offset in it; `final`: they are its last."""

    offset: int
    data: bytes
    final: bool


class Outgoing:
    """The sender's end."""

    def __init__(self) -> None:
        self._kept = bytearray()
        self._kept_from = 0
        self._next = 0
        self._taken_to = 0
        self._limit = INITIAL_WINDOW_BYTES
        self.finished = False
        """Its end is known: nothing more will be written."""
        self._final_taken = False
        self._ended_on_link = False
        self.done = False
        """The receiver has the whole stream."""

    @property
    def end(self) -> int:
        """The offset behind the last byte written."""
        return self._kept_from + len(self._kept)

    @property
    def kept_bytes(self) -> int:
        """How many bytes are kept because they are not acknowledged."""
        return len(self._kept)

    @property
    def taken_bytes(self) -> int:
        """How many bytes some link has taken, so that the receiver may have them."""
        return self._taken_to

    @property
    def unsent_bytes(self) -> int:
        """How many bytes this link has not taken yet."""
        return self.end - self._next

    @property
    def final_taken(self) -> bool:
        """Some link has taken the last piece, so the receiver may have the whole stream."""
        return self._final_taken

    @property
    def has_unsent(self) -> bool:
        """There are bytes that this link has not taken yet."""
        return self._next != self._kept_from + len(self._kept)

    def write(self, data: bytes) -> None:
        """Add bytes."""
        assert not self.finished, "nothing is written behind the end"
        self._kept += data

    def finish(self) -> None:
        """Mark the end of the stream."""
        self.finished = True

    @property
    def sendable(self) -> bool:
        """There is a piece to take."""
        if self.done:
            return False
        end = self._kept_from + len(self._kept)
        if self._next < end and self._next < self._limit:
            return True
        return self.finished and self._next == end and not self._ended_on_link

    def take(self, limit: int) -> Piece | None:
        """Take the next piece of at most `limit` bytes for the link."""
        start = self._next - self._kept_from
        stop = min(start + limit, self._limit - self._kept_from, len(self._kept))
        if stop <= start and not self.sendable:
            return None
        data = bytes(self._kept[start:stop])
        piece = Piece(self._next, data, self.finished and stop == len(self._kept))
        self._next += len(data)
        self._taken_to = max(self._taken_to, self._next)
        if piece.final:
            self._final_taken = self._ended_on_link = True
        return piece

    def acknowledge(self, offset: int, *, final: bool) -> None:
        """Free the bytes that the receiver has."""
        if offset > self._kept_from:
            del self._kept[: offset - self._kept_from]
            self._kept_from = offset
        self.done = self.done or final

    def grant(self, limit: int) -> None:
        """Take the offset up to which the receiver accepts data; a grant is never taken back."""
        self._limit = max(self._limit, limit)

    def rewind(self, offset: int) -> bool:
        """Continue on a new link at the offset that the receiver has; return False if it cannot have that offset."""
        if not self._kept_from <= offset <= self._taken_to:
            return False
        self.acknowledge(offset, final=False)
        self._next = offset
        self._ended_on_link = False
        return True


class Incoming:
    """The receiver's end."""

    def __init__(self) -> None:
        self.offset = 0
        """How many bytes have been received."""
        self.final = False
        """The whole stream has been received."""
        self._consumed = 0
        self._window_bytes = self._limit = INITIAL_WINDOW_BYTES

    def accept(self, piece: Piece) -> bytes | None:
        """Return the bytes of a piece that are new; None if it leaves a gap, exceeds the window, or moves the end."""
        end = piece.offset + len(piece.data)
        if piece.offset > self.offset or end > self._limit:
            return None
        if (end > self.offset and self.final) or (end < self.offset and piece.final):
            return None  # the stream would have two ends
        new = piece.data[self.offset - piece.offset :]
        self.offset = max(self.offset, end)
        self.final = self.final or piece.final
        return new

    def consume(self, size: int) -> int | None:
        """Note that the reader has taken bytes; return the new limit when it is time to send a WINDOW."""
        self._consumed += size
        assert self._consumed <= self.offset, "only what was received can be consumed"
        if self.final or self._limit - self._consumed > self._window_bytes * 3 // 4:
            return None
        if self._consumed == self.offset:  # the reader keeps up, so it should not hold the sender back
            self._window_bytes = min(MAX_WINDOW_BYTES, 2 * self._window_bytes)
        self._limit = self._consumed + self._window_bytes
        return self._limit

    @property
    def limit(self) -> int:
        """The offset up to which the sender may send; told again on a new link."""
        return self._limit
