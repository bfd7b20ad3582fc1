"""JSON as a fold reads it from events, and as agents write it in a request: no white space, and no optional escapes.

Both ends must read the same events and drop the same ones, so what is read is strict (docs/spec/fold.md, "JSON"). Not
here: JSON outside of folds.
"""

from __future__ import annotations

import re
from itertools import accumulate
from typing import Final, TypeVar

import msgspec

#: Arrays and objects are nested no deeper than this in an event that is read; a parser's own limit is far beyond.
MAX_DEPTH: Final = 128

_RUN = re.compile(r'["\\]|[^"\\]+')
_WHITE_SPACE = {ord(character): None for character in " \t\r\n"}
_STEPS: Final = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}
_NO_BRACKETS: Final = bytes(set(range(256)) - _STEPS.keys())

T = TypeVar("T")


def event_decoder(shape: type[T]) -> msgspec.json.Decoder[T]:
    """Return a decoder of events. A number in a value of no fixed type is written again as it stood."""
    return msgspec.json.Decoder(shape, float_hook=lambda number: msgspec.Raw(number.encode()))


def read_event(decoder: msgspec.json.Decoder[T], data: bytes) -> T | None:
    """Return an event; None if it is no JSON of this shape. Call `is_strict` too before you act on it."""
    try:
        return decoder.decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError):  # ValueError: no UTF-8
        return None


def is_strict(data: bytes) -> bool:
    """Tell whether JSON that was read is UTF-8 in the values too that were skipped, and not nested too deeply."""
    if not data.isascii():
        try:
            data.decode()
        except UnicodeDecodeError:
            return False
    return data.count(b"[") + data.count(b"{") <= MAX_DEPTH or _depth_of(data) <= MAX_DEPTH


def _depth_of(data: bytes) -> int:
    outside = b"".join(data.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')[::2])
    return max(accumulate(map(_STEPS.__getitem__, outside.translate(None, _NO_BRACKETS))), default=0)


def compact(value: object) -> bytes:
    """Return the JSON of a decoded value."""
    return msgspec.json.encode(value)


def escaped(text: str) -> bytes:
    """Return a text as it is written between the quotes of a JSON string."""
    return msgspec.json.encode(text)[1:-1]


class FoldOutput:
    """The bytes that a fold has written. It grows up to a limit, and drops everything beyond."""

    def __init__(self, limit: int) -> None:
        self.data = bytearray()
        self._limit = limit

    @property
    def full(self) -> bool:
        """The limit is reached."""
        return len(self.data) == self._limit

    def write(self, *pieces: bytes) -> None:
        """Append pieces."""
        for piece in pieces:
            room = self._limit - len(self.data)
            self.data += piece if len(piece) <= room else piece[:room]


class Compactor:
    """Removes the white space from a JSON text that comes in pieces, cut anywhere."""

    def __init__(self) -> None:
        self._in_string = False
        self._after_backslash = False

    def feed(self, piece: str) -> str:
        """Return the next piece without white space."""
        kept: list[str] = []
        for run in _RUN.findall(piece):
            if self._after_backslash:
                self._after_backslash = False
            elif run == '"':
                self._in_string = not self._in_string
            elif run == "\\":
                self._after_backslash = self._in_string
            kept.append(run if self._in_string else run.translate(_WHITE_SPACE))
        return "".join(kept)
