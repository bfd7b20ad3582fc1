"""The connection of a link as aiohttp reads it, except that packets are handed over in the call that reads them.

aiohttp puts each message into a queue, from which a task takes it: the first event of a reply would wait for that task.
A packet is one binary message in one frame (RFC 6455, 5.2), which a server does not mask. Pings, closes, and whatever
no gateway sends go to aiohttp's own reader, frame by frame. Not here: what a packet holds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol

from aiohttp.client_proto import ResponseHandler

from segue.tunnel.frames import MAX_PACKET_BYTES

_PACKET: Final = 0x82  # the only frame of a binary message
_CONTROLS: Final = frozenset({0x88, 0x89, 0x8A})  # close, ping, pong
# RFC 6455, 5.2: what the second byte says if it is not the length.
_MEDIUM: Final = 126
_MEDIUM_HEAD: Final = 4
_SHORT_HEAD: Final = 2


class FrameParser(Protocol):
    """aiohttp's reader."""

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        """Take bytes; return whether they break the protocol, and what is behind the end."""

    def feed_eof(self) -> None:
        """Take the end."""


class PacketFrames:
    """Splits what comes into frames. A packet goes to `take`, if there is one; everything else goes to aiohttp."""

    def __init__(self, parser: FrameParser) -> None:
        self.take: Callable[[bytes], object] | None = None
        self.queued = 0
        """How many packets have gone to aiohttp instead."""
        self._parser = parser
        self._partial = b""
        self._leaves_all = False

    def take_whole(self, data: bytes) -> bool:
        """Hand data over if they are exactly one packet; return False, and do nothing, if they are not."""
        if self.take is None or self._partial or self._leaves_all or len(data) < _SHORT_HEAD or data[0] != _PACKET:
            return False
        size, begin = data[1], _SHORT_HEAD
        if size == _MEDIUM:
            size, begin = int.from_bytes(data[2:4], "big"), _MEDIUM_HEAD
        if len(data) != begin + size or size > MAX_PACKET_BYTES or (begin == _SHORT_HEAD and size > _MEDIUM):
            return False
        self.take(data[begin:])
        return True

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        """Take bytes, cut anywhere."""
        data, self._partial = self._partial + data, b""
        at = 0
        while not self._leaves_all and at < len(data):
            end = self._frame_end(data, at)
            if end is None or end > len(data):
                self._partial = data[at:]
                return False, b""
            if end == at:
                break
            broken, _ = self._take_frame(data[at:end])
            if broken:
                return True, b""
            at = end
        return self._parser.feed_data(data[at:]) if at < len(data) else (False, b"")

    def feed_eof(self) -> None:
        """Take the end."""
        self._parser.feed_eof()

    def _frame_end(self, data: bytes, at: int) -> int | None:
        """Return where the frame at `at` ends; None: that has not come yet; `at`: from here on aiohttp reads."""
        if len(data) - at < _SHORT_HEAD:
            return None
        kind, size = data[at], data[at + 1]
        if (kind == _PACKET or kind in _CONTROLS) and size < _MEDIUM:
            return at + _SHORT_HEAD + size
        if kind == _PACKET and size == _MEDIUM:
            if len(data) - at < _MEDIUM_HEAD:
                return None
            size = int.from_bytes(data[at + 2 : at + 4], "big")
            if size <= MAX_PACKET_BYTES:
                return at + _MEDIUM_HEAD + size
        self._leaves_all = True
        return at

    def _take_frame(self, frame: bytes) -> tuple[bool, bytes]:
        if frame[0] != _PACKET:
            return self._parser.feed_data(frame)
        if self.take is None:
            self.queued += 1
            return self._parser.feed_data(frame)
        self.take(frame[_MEDIUM_HEAD if frame[1] == _MEDIUM else _SHORT_HEAD :])
        return False, b""


class PacketProtocol(ResponseHandler):
    """aiohttp's protocol of one connection, with `frames` once it is a WebSocket."""

    frames: PacketFrames | None = None

    def set_parser(self, parser: FrameParser, payload: Any, data_received_cb: Callable[[], None] | None = None) -> None:  # noqa: ANN401 - aiohttp's own type
        """Read frames from now on."""
        self.frames = PacketFrames(parser)
        super().set_parser(self.frames, payload, data_received_cb)

    def data_received(self, data: bytes) -> None:
        """Take what has come."""
        if self.frames is None or not self.frames.take_whole(data):
            super().data_received(data)
