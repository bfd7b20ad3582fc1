"""JSON as agents write it in a request: no white space, and no optional escapes. Not here: JSON outside of folds."""

from __future__ import annotations

import re

import msgspec

_RUN = re.compile(r'["\\]|[^"\\]+')
_WHITE_SPACE = {ord(character): None for character in " \t\r\n"}


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
