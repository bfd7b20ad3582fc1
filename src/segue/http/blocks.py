"""Texts in pieces, as blocks to write one after the other: so a socket that is slow holds one block, not a whole text.

Pure. Not here: framing, and waiting until a socket has taken a block.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

#: A text in pieces, some of which others share. To cut and join them copies nothing but blocks.
Pieces = Sequence[bytes | memoryview]

#: As much as a socket buffers before it asks for a pause.
BLOCK_BYTES = 64 * 1024
#: The last block of a text may have so much more, rather than being tiny: some readers of event streams lose an event
#: whose blank line comes alone.
_REST_BYTES = 1024


def blocks(texts: Iterable[Pieces]) -> Iterator[bytes]:
    """Yield texts in blocks. Small texts share a block as long as they fit; only one that fits none is cut."""
    waiting: list[bytes | memoryview] = []
    size = 0
    for text in texts:
        length = sum(map(len, text))
        if waiting and size + length > BLOCK_BYTES:
            yield b"".join(waiting)
            waiting, size = [], 0
        if length > BLOCK_BYTES:
            yield from cut(text)
        else:
            waiting += text
            size += length
    if waiting:
        yield b"".join(waiting)


def cut(text: Pieces) -> Iterator[bytes]:
    """Yield a text in blocks."""
    waiting: list[bytes | memoryview] = []
    size, left = 0, sum(map(len, text))
    for piece in text:
        rest = memoryview(piece)
        while left > BLOCK_BYTES + _REST_BYTES and size + len(rest) >= BLOCK_BYTES:
            room = BLOCK_BYTES - size
            yield b"".join((*waiting, rest[:room]))
            waiting, size, rest = [], 0, rest[room:]
            left -= BLOCK_BYTES
        waiting.append(rest)
        size += len(rest)
    yield b"".join(waiting)
