"""Keeps the beginning and the end of what is too long for a model, and says how much was left out. Pure.

The end of a command's output tells how it ended, the beginning what went wrong first. Memory is bounded however much
comes. Not here: where the bytes come from.
"""

from __future__ import annotations

import codecs
from collections import deque


class OutputCutter:
    """Takes output piece by piece and keeps at most about `limit` bytes of it: half from each end."""

    def __init__(self, limit: int) -> None:
        self._head_limit = limit - limit // 2
        self._tail_limit = limit // 2
        self._head = bytearray()
        self._tail: deque[bytes] = deque()
        self._tail_bytes = 0
        #: Bytes that came in all.
        self.total_bytes = 0

    def feed(self, data: bytes) -> None:
        """Take the next piece."""
        self.total_bytes += len(data)
        room = self._head_limit - len(self._head)
        self._head += data[:room]
        rest = data[room:][-self._tail_limit :] if self._tail_limit else b""
        if not rest:
            return
        self._tail.append(rest)
        self._tail_bytes += len(rest)
        while self._tail_bytes - len(self._tail[0]) >= self._tail_limit:
            self._tail_bytes -= len(self._tail.popleft())

    def text(self) -> str:
        """Return what was kept as text; a character that the cut split is dropped, other bytes that are none are �."""
        tail = b"".join(self._tail)[-self._tail_limit :] if self._tail_limit else b""
        left_out = self.total_bytes - len(self._head) - len(tail)
        if not left_out:
            return (bytes(self._head) + tail).decode(errors="replace")
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        head = decoder.decode(bytes(self._head))  # keeps back a character that the cut splits
        rest = tail.lstrip(bytes(range(0x80, 0xC0)))  # other bytes of a character whose first one was left out
        left_out += len(decoder.getstate()[0]) + len(tail) - len(rest)
        return f"{head}\n… {left_out:,} bytes left out …\n{rest.decode(errors='replace')}"
