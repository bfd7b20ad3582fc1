"""The two ends of one direction of an exchange: bytes with offsets, kept by the sender until they are acknowledged.

A link that is cut loses nothing: the receiver says how far it came, and the sender goes on from there. How far ahead a
sender may go is the receiver's to say (WINDOW), so one slow reader stalls its own exchange and no other. Not here:
links and frames.
"""

from __future__ import annotations

from typing import NamedTuple

#: How far a sender may go before the receiver has said anything.
INITIAL_WINDOW_BYTES = 256 * 1024
#: How far ahead it may go of a reader that keeps up: what a large body needs on a fat long link (10 MB/s at 0.3 s).
MAX_WINDOW_BYTES = 4 * 1024 * 1024


class Piece(NamedTuple):
    """Bytes of a stream and where they stand in it; `final`: nothing follows them."""

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
        self._finished = False
        self._final_taken = False
        self._ended_on_link = False
        self.done = False
        """The receiver has all of it."""

    @property
    def end(self) -> int:
        """The offset behind the last byte written."""
        return self._kept_from + len(self._kept)

    @property
    def kept_bytes(self) -> int:
        """What is held because it is not acknowledged."""
        return len(self._kept)

    @property
    def unsent_bytes(self) -> int:
        """What has not been taken for this link yet."""
        return self.end - self._next

    @property
    def is_finished(self) -> bool:
        """Nothing more will be written."""
        return self._finished

    @property
    def final_taken(self) -> bool:
        """The last piece was handed to a link at some time: the receiver may have the whole."""
        return self._final_taken

    def write(self, data: bytes) -> None:
        """Add bytes."""
        assert not self._finished, "nothing is written behind the end"
        self._kept += data

    def finish(self) -> None:
        """Say that nothing follows."""
        self._finished = True

    @property
    def sendable(self) -> bool:
        """There is a piece to take."""
        if self.done:
            return False
        if self._next < min(self.end, self._limit):
            return True
        return self._finished and self._next == self.end and not self._ended_on_link

    def take(self, limit: int) -> Piece | None:
        """Take the next piece of at most `limit` bytes for the link."""
        if not self.sendable:
            return None
        start = self._next - self._kept_from
        stop = start + min(limit, self._limit - self._next, self.end - self._next)
        data = bytes(self._kept[start:stop])
        piece = Piece(self._next, data, self._finished and stop == len(self._kept))
        self._next += len(data)
        self._taken_to = max(self._taken_to, self._next)
        if piece.final:
            self._final_taken = self._ended_on_link = True
        return piece

    def acknowledge(self, offset: int, *, final: bool) -> None:
        """Forget what the receiver has."""
        if offset > self._kept_from:
            del self._kept[: offset - self._kept_from]
            self._kept_from = offset
        self.done = self.done or final

    def grant(self, limit: int) -> None:
        """Note how far the receiver lets us go; it never takes back."""
        self._limit = max(self._limit, limit)

    def rewind(self, offset: int) -> bool:
        """Go on from the offset that the receiver has, on a new link; False if it cannot have just that."""
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
        """What has been received."""
        self.final = False
        """All of it has been received."""
        self._consumed = 0
        self._window_bytes = self._limit = INITIAL_WINDOW_BYTES

    def accept(self, piece: Piece) -> bytes | None:
        """Return what is new in a piece; None if it cannot stand there: the link is not to be trusted."""
        end = piece.offset + len(piece.data)
        if piece.offset > self.offset or end > self._limit:
            return None
        if (end > self.offset and self.final) or (end < self.offset and piece.final):
            return None  # two ends
        new = piece.data[self.offset - piece.offset :]
        self.offset = max(self.offset, end)
        self.final = self.final or piece.final
        return new

    def consume(self, size: int) -> int | None:
        """Note that bytes have gone on to whoever wants them; returns the new limit when it is time to tell it."""
        self._consumed += size
        assert self._consumed <= self.offset, "only what was received can be consumed"
        if self.final or self._limit - self._consumed > self._window_bytes * 3 // 4:
            return None
        if self._consumed == self.offset:  # who keeps up is not what should hold the sender back
            self._window_bytes = min(MAX_WINDOW_BYTES, 2 * self._window_bytes)
        self._limit = self._consumed + self._window_bytes
        return self._limit

    @property
    def limit(self) -> int:
        """How far the sender may go; told again on a new link."""
        return self._limit
