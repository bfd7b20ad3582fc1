"""JSON as agents write it in a request: no white space, and only the escapes that must be. For the fold only."""

from __future__ import annotations

import re

import msgspec

_RUN = re.compile(r'["\\]|[^"\\]+')
_WHITE_SPACE = {ord(character): None for character in " \t\r\n"}


def compact(value: object) -> bytes:
    """Return a value that came from JSON as JSON again."""
    return msgspec.json.encode(value)


def escaped(text: str) -> bytes:
    """Return a text as it stands between the quotes of a JSON string."""
    return msgspec.json.encode(text)[1:-1]


class FoldOutput:
    """What a fold has written so far. It only grows, up to a limit; what would go beyond is cut off for good."""

    def __init__(self, limit: int) -> None:
        self.data = bytearray()
        self._limit = limit

    @property
    def is_full(self) -> bool:
        """Nothing more can be appended."""
        return len(self.data) == self._limit

    def write(self, *pieces: bytes) -> None:
        """Append pieces."""
        for piece in pieces:
            room = self._limit - len(self.data)
            self.data += piece if len(piece) <= room else piece[:room]


class Compactor:
    """Takes the white space out of a JSON text that comes in pieces, cut anywhere."""

    def __init__(self) -> None:
        self._in_string = False
        self._after_backslash = False

    def feed(self, piece: str) -> str:
        """Return what stays of the next piece."""
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
