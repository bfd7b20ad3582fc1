"""The body of a request to a provider: pieces written one after the other, never joined into one.

Small pieces go out together and large ones as they are; between writes the transport is let to drain, so that a slow
provider does not fill our memory. It also knows the transport it is written to, so that an upload can be broken off.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence

from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import StreamWriter
from aiohttp.payload import Payload

#: Pieces are gathered up to this size: each write has its price, and so has memory.
BLOCK_BYTES = 1024 * 1024


def blocks(pieces: Sequence[bytes], size: int = BLOCK_BYTES) -> Iterator[bytes]:
    """Gather small pieces into blocks of about `size` bytes; a piece is never cut, and a large one never copied."""
    waiting: list[bytes] = []
    held = 0
    for piece in pieces:
        if len(piece) >= size:
            if waiting:
                yield b"".join(waiting)
                waiting, held = [], 0
            yield piece
            continue
        waiting.append(piece)
        held += len(piece)
        if held >= size:
            yield b"".join(waiting)
            waiting, held = [], 0
    if waiting:
        yield b"".join(waiting)


class JsonBody(Payload):
    """A JSON document in pieces. It can be written again, for another try."""

    _autoclose = True

    def __init__(self, pieces: Sequence[bytes]) -> None:
        super().__init__(pieces, content_type="application/json")
        self._pieces = pieces
        self._size = sum(map(len, pieces))
        self.transport: asyncio.Transport | None = None

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """Return the whole document."""
        return b"".join(self._pieces).decode(encoding, errors)

    async def write(self, writer: AbstractStreamWriter) -> None:
        """Write the document."""
        if isinstance(writer, StreamWriter):
            self.transport = writer.transport
        for block in blocks(self._pieces):
            await writer.write(block)

    def abort(self) -> None:
        """Break the connection that it was written to, whatever is still on its way."""
        if self.transport is not None:
            self.transport.abort()
