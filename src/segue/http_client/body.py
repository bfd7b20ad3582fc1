"""The body of a request: byte pieces that are written one after the other and never joined into one.

Small pieces are coalesced into one write, large ones are written as they are. Between writes aiohttp waits for the
transport to drain, so that a slow server does not fill this process's memory. The body remembers the transport it is
written to, so that an upload can be broken off. Not here: what makes the pieces.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate

from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import StreamWriter
from aiohttp.payload import Payload

#: Pieces are coalesced up to this size. A write costs the same whatever its size, and a transport takes this much
#: before it applies backpressure; writes of 1 MB took twice the CPU for a body of 1 MB, and ten times the memory.
WRITE_BYTES = 64 * 1024


def coalesce(pieces: Sequence[bytes], size: int = WRITE_BYTES) -> Iterator[bytes]:
    """Join small pieces into writes of about `size` bytes. A piece is never cut, and a large one is never copied."""
    ends = list(accumulate(map(len, pieces)))
    start, written = 0, 0
    while start < len(pieces):
        last = min(bisect_left(ends, written + size, start), len(pieces) - 1)  # with it, the write is long enough
        if start < last and len(pieces[last]) >= size:
            last -= 1
        yield b"".join(pieces[start : last + 1])  # which does not copy a single piece
        start, written = last + 1, ends[last]


class JsonBody(Payload):
    """A JSON document in pieces. It can be written again, for another attempt.

    `protocol` is that of the connection that it was written to last; `written_at` is when it was written to its last
    byte there, in the event loop's time.
    """

    _autoclose = True

    def __init__(self, pieces: Sequence[bytes]) -> None:
        super().__init__(pieces, content_type="application/json")
        self._pieces = pieces
        self._size = sum(map(len, pieces))
        self.transport: asyncio.Transport | None = None
        self.protocol: asyncio.BaseProtocol | None = None
        self.written_at: float | None = None

    @property
    def written(self) -> bool:
        """Whether it was written to its last byte."""
        return self.written_at is not None

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """Return the whole document."""
        return b"".join(self._pieces).decode(encoding, errors)

    async def write(self, writer: AbstractStreamWriter) -> None:
        """Write the document."""
        self.written_at = None
        if isinstance(writer, StreamWriter):
            self.transport, self.protocol = writer.transport, writer.protocol
        for data in coalesce(self._pieces):
            await writer.write(data)
        self.written_at = asyncio.get_running_loop().time()

    def forget(self) -> None:
        """Give up the document, if it was written: it is not needed again."""
        if self.written:
            self._pieces = self._value = ()

    def abort(self) -> None:
        """Reset the connection that it was written to, even in the middle of the upload."""
        if self.transport is not None:
            self.transport.abort()
