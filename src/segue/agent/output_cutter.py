"""Keeps the beginning and the end of what is too long for a model, and says how much was left out. Pure.

The end of a command's output tells how it ended, the beginning what went wrong first. Memory is bounded however much
comes. Not here: where the bytes come from.
"""

from __future__ import annotations

import codecs


class OutputCutter:
    """Takes output piece by piece and keeps at most about `limit` bytes of it: half from each end."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._head = bytearray()
        self._tail = bytearray()
        #: Bytes that came in all.
        self.total_bytes = 0

    def feed(self, data: bytes) -> None:
        """Take the next piece."""
        self.total_bytes += len(data)
        room = self._limit - self._limit // 2 - len(self._head)
        self._head += data[:room]
        self._tail += data[room:]
        if len(self._tail) > self._limit:  # twice as much as is kept, so that most pieces move nothing
            del self._tail[: len(self._tail) - self._limit // 2]

    def text(self) -> str:
        """Return what was kept as text; a character that the cut split is dropped, other bytes that are none are �."""
        tail = self._tail[max(0, len(self._tail) - self._limit // 2) :]
        left_out = self.total_bytes - len(self._head) - len(tail)
        if not left_out:
            return (self._head + tail).decode(errors="replace")
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        head = decoder.decode(self._head)  # keeps back a character that the cut splits
        rest = tail.lstrip(bytes(range(0x80, 0xC0)))  # other bytes of a character whose first one was left out
        left_out += len(decoder.getstate()[0]) + len(tail) - len(rest)
        return f"{head}\n… {left_out:,} bytes left out …\n{rest.decode(errors='replace')}"
