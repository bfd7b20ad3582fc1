"""The frames of a WebSocket client: finds those that are not masked, and takes out the texts that come in many pieces.

A server must refuse a frame that is not masked (RFC 6455, 5.1). A large text is kept in the pieces in which it came: to
undo its masking and to join it, all at once at its end, takes so long that it is done elsewhere. Pure. Not here: all
other frames, which pass on to aiohttp, among them those of texts that are compressed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Literal

from segue.http.blocks import BLOCK_BYTES

_FIN, _RESERVED, _OPCODE = 0x80, 0x70, 0x0F
_MASKED, _LENGTH = 0x80, 0x7F
_TWO_BYTES, _EIGHT_BYTES = 126, 127
_MASK_BYTES = 4
_NO_MASK = bytes(_MASK_BYTES)
_CONTINUATION, _TEXT, _CONTROL = 0, 1, 8
#: The sizes of the first two forms of a head, with the mask.
_SHORT_HEAD, _MEDIUM_HEAD = 6, 8
#: A smaller piece is copied behind the one before: an object for each byte of a text would be a hundred times its size.
_SMALL_BYTES = 4096

#: In one piece of the stream there are not more frames than this which are control frames, or smaller than any message.
#: Each costs microseconds, and all of a piece are read before others have their turn.
_MOST_TINY = 4096
_TINY_BYTES = 16

#: Undoes the masking of data in place, by four bytes that come again and again (RFC 6455, 5.3).
Unmask = Callable[[bytes, bytearray], object]


class TextPieces:
    """A text message in the pieces in which it came. The large ones are masked still."""

    __slots__ = ("_pieces", "_small", "_unmask", "size_bytes")

    def __init__(self, unmask: Unmask) -> None:
        self._unmask = unmask
        self._pieces: list[tuple[bytes, bytes]] = []  # with the mask that each begins with
        self._small = bytearray()
        self.size_bytes = 0

    def add(self, piece: bytes, mask: bytes) -> None:
        """Take the next piece."""
        self.size_bytes += len(piece)
        if len(piece) >= _SMALL_BYTES:
            self._end_small()
            self._pieces.append((piece, mask))
            return
        self._small += _plain(piece, mask, self._unmask)
        if len(self._small) >= BLOCK_BYTES:
            self._end_small()

    def join(self, pause: Callable[[], None]) -> bytes:
        """Return the text; call it once. `pause` is called between two pieces: whoever joins can let others work."""
        self._end_small()
        pieces, self._pieces = self._pieces, []
        plain: list[bytes] = []
        for piece, mask in pieces:
            pause()
            plain.append(bytes(_plain(piece, mask, self._unmask)))  # a copy, but of what is bytes already
        del pieces
        return b"".join(plain)  # CPython joins a megabyte and more without the interpreter's lock

    def _end_small(self) -> None:
        if self._small:
            self._pieces.append((bytes(self._small), _NO_MASK))
            self._small = bytearray()


class LargeTexts:
    """The large texts of one client, of up to `most_bytes`, until they are taken from `arrived`.

    In place of each, a text of only the `mark` is passed on: 16 bytes that nobody else knows.
    """

    __slots__ = ("arrived", "mark", "most_bytes", "unmask")

    def __init__(self, most_bytes: int, mark: bytes, unmask: Unmask) -> None:
        self.most_bytes = most_bytes
        self.mark = mark
        self.unmask = unmask
        self.arrived: deque[TextPieces] = deque()


class ClientFrames:
    """Where one client's stream of frames is. With a `fault`, nothing of it is passed on any more.

    Texts that come in several frames, or that are large and come in several pieces, go to `texts`, if there are such.
    """

    __slots__ = ("_final", "_head", "_left", "_mask", "_others", "_text", "_texts", "_tiny", "_within", "fault")

    def __init__(self, texts: LargeTexts | None = None) -> None:
        self.fault: Literal["protocol", "size"] | None = None
        self._texts = texts
        self._head = b""  # of a frame whose head is cut
        self._left = 0  # bytes of a frame that are to come
        self._mask: bytes | None = None  # what they begin with, if the frame is taken
        self._text: TextPieces | None = None  # what is taken, until the end of its last frame
        self._final = False  # this frame is its last one
        self._others = False  # more frames of a message that is passed on follow
        self._tiny = 0  # frames in this piece of the stream
        self._within = False  # a head that is cut, or a message

    def passed(self, data: bytes) -> bytes:
        """Return what of the next piece of the stream is to be passed on.

        That is all but texts that are taken, and a head that is cut, up to a fault.
        """
        at, length = self._left, len(data)
        if at >= length and self._mask is None:  # in the middle of a large frame
            self._left = at - length
            return data
        if at == 0 and not self._within and _is_one_text(data, length):
            return data  # nearly always
        if self._head:
            data = self._head + data
            length = len(data)
        passed: list[bytes] = []
        begin = 0 if self._mask is None else self._take(data[:at], self._mask, left=at - length, passed=passed)
        self._tiny = 0
        while at + 1 < length:
            payload_at, size = self._find_payload(data, at)
            if self.fault is not None or payload_at > length:
                break
            end = payload_at + size
            taken = self._is_taken(data[at], size, is_whole=end <= length)
            if taken is None:
                break
            if taken:
                passed.append(data[begin:at])
                mask = data[payload_at - _MASK_BYTES : payload_at]
                begin = payload_at + self._take(data[payload_at:end], mask, left=end - length, passed=passed)
            at = end
        self._left, self._head = max(0, at - length), data[at:]
        self._within = bool(self._head) or self._text is not None or self._others
        if begin == 0 and at >= length:
            return data
        return b"".join((*passed, data[begin:at]))

    def _find_payload(self, data: bytes, at: int) -> tuple[int, int]:
        """Return where the payload of a frame begins, which is behind `data` if its head is cut, and its size."""
        second = data[at + 1]
        size, extra = second & _LENGTH, 0
        if size >= _TWO_BYTES:
            extra = 2 if size == _TWO_BYTES else 8
            size = int.from_bytes(data[at + 2 : at + 2 + extra], "big")
        if size < _TINY_BYTES or data[at] & _CONTROL:
            self._tiny += 1
        if self._tiny > _MOST_TINY:
            self.fault = "protocol"
        payload_at = at + 2 + extra
        if second & _MASKED:
            payload_at += _MASK_BYTES
        elif payload_at <= len(data):
            self.fault = "protocol"
        return payload_at, size

    def _is_taken(self, first: int, size: int, *, is_whole: bool) -> bool | None:
        """Tell whether a frame is taken, and note what its first byte says of those behind it; None is a fault."""
        opcode, final, reserved = first & _OPCODE, first & _FIN != 0, first & _RESERVED != 0
        if opcode >= _CONTROL:  # it may stand between two frames of a message (RFC 6455, 5.4)
            return False
        if self._text is not None:
            if opcode != _CONTINUATION or reserved:
                self.fault = "protocol"
            elif self._texts is not None and self._text.size_bytes + size > self._texts.most_bytes:
                self.fault = "size"
            self._final = final
            return True if self.fault is None else None
        texts = self._texts
        is_long = not final or (size > BLOCK_BYTES and not is_whole)
        is_text = opcode == _TEXT and not reserved and not self._others
        if texts is not None and is_long and is_text and size <= texts.most_bytes:
            self._text, self._final = TextPieces(texts.unmask), final
            return True
        self._others = not final
        return False

    def _take(self, payload: bytes, mask: bytes, *, left: int, passed: list[bytes]) -> int:
        """Take the next piece of a frame, of which so many bytes are `left` then; return its size."""
        assert self._text is not None, "a frame of it is taken"
        assert self._texts is not None, "texts are taken for somebody"
        self._text.add(payload, mask)
        if left > 0:
            turn = len(payload) % _MASK_BYTES
            self._mask = mask[turn:] + mask[:turn]
            return len(payload)
        self._mask = None
        if self._final:
            self._texts.arrived.append(self._text)
            self._text = None
            passed.append(bytes((_FIN | _TEXT, len(self._texts.mark))) + self._texts.mark)
        return len(payload)


def _is_one_text(data: bytes, length: int) -> bool:
    """Tell whether data is one whole text, of less than 64 KiB. It calls no function: there are many such texts."""
    if length <= _MEDIUM_HEAD or data[0] != _FIN | _TEXT:
        return False
    second = data[1]
    if second == _MASKED | _TWO_BYTES:
        return length == _MEDIUM_HEAD + (data[2] << 8 | data[3])
    return second & _MASKED != 0 and second & _LENGTH < _TWO_BYTES and length == _SHORT_HEAD + (second & _LENGTH)


def _plain(piece: bytes, mask: bytes, unmask: Unmask) -> bytes | bytearray:
    if mask == _NO_MASK:
        return piece
    data = bytearray(piece)
    unmask(mask, data)
    return data
