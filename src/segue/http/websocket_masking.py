"""Finds frames of a WebSocket client that are not masked, which a server must refuse (RFC 6455, 5.1). Pure.

Only the heads of frames are read, as far as it takes to find the next. Not here: what frames say, which aiohttp reads.
"""

from __future__ import annotations

_MASKED = 0x80
_LENGTH = 0x7F
_TWO_BYTES, _EIGHT_BYTES = 126, 127
_MASK_BYTES = 4


class MaskCheck:
    """Where one client's stream of frames is. `violated`: a frame was not masked, and nothing is passed on any more."""

    __slots__ = ("_head", "_skip", "violated")

    def __init__(self) -> None:
        self.violated = False
        self._skip = 0  # bytes until the next frame
        self._head = b""  # of a frame whose head is cut

    def passed(self, data: bytes) -> bytes:
        """Return what of the next piece of the stream can be read: all but a head that is cut, up to a violation."""
        at = self._skip
        if at >= len(data):  # in the middle of a large frame
            self._skip = at - len(data)
            return data
        if self._head:
            data = self._head + data
        length = len(data)
        while at + 1 < length and not self.violated:
            second = data[at + 1]
            size = second & _LENGTH
            extra = 0
            if size >= _TWO_BYTES:
                extra = 2 if size == _TWO_BYTES else 8
                if at + 2 + extra > length:
                    break
                size = int.from_bytes(data[at + 2 : at + 2 + extra], "big")
            if second & _MASKED:
                at += 2 + extra + _MASK_BYTES + size
            else:
                self.violated = True
        self._skip, self._head = max(0, at - length), data[at:]
        return data if at >= length else data[:at]
