"""The arguments of a tool call while they come in pieces: how far they are, without parsing them again and again.

Some servers begin a call with `{}` or `null` in place of nothing, and send the real arguments after it. What is sent
cannot be taken back, so such a beginning waits for what follows. Not here: which call a piece belongs to, and the
events.
"""

from __future__ import annotations

import re
from typing import Literal

from segue.dialects.growing_text import GrowingText

#: `placeholder`: only a `{}` or `null` so far, which may not be meant; `partial`: JSON that goes on.
ArgumentsState = Literal["none", "placeholder", "partial", "whole"]

#: What stands for no arguments, alone or before or after the real ones.
PLACEHOLDERS = frozenset({"{}", "null"})
_LONGEST_HELD = 16  # with the space around it
_MARKS = re.compile(r'\\.|["{}\[\]]', re.DOTALL)


class StreamedArguments(GrowingText):
    """The arguments of one call."""

    __slots__ = ("_held", "_scanned", "_scanner")

    def __init__(self) -> None:
        super().__init__()
        self._held = ""
        self._scanner = BracketScanner()
        self._scanned = 0  # how many pieces the scanner has read

    def first(self, piece: str) -> str:
        """Return what to send of a piece that comes when nothing was sent yet: a placeholder is held back."""
        held, self._held = self._held, ""
        text = piece if piece.lstrip().startswith("{") else held + piece
        if len(text) <= _LONGEST_HELD and (not text.strip() or text.strip() in PLACEHOLDERS):
            self._held, text = text, ""
        return text

    def held(self) -> str:
        """Return what was held back and is meant, since nothing came after it."""
        held, self._held = self._held, ""
        return held

    def state(self) -> ArgumentsState:
        """Return how far the arguments are. Reads only what has come since the last time."""
        if not self.pieces:
            return "placeholder" if self._held.strip() else "none"
        for piece in self.pieces[self._scanned :]:
            self._scanner.feed(piece)
        self._scanned = len(self.pieces)
        return "whole" if self._scanner.whole else "partial"


class BracketScanner:
    """Finds the end of a JSON object or array that comes in pieces. What is neither is taken to be whole."""

    __slots__ = ("_begun", "_depth", "_escape", "_in_string", "_structured")

    def __init__(self) -> None:
        self._begun = False
        self._structured = False
        self._depth = 0
        self._in_string = False
        self._escape = ""  # a backslash that was the end of a piece

    @property
    def whole(self) -> bool:
        """Whether every bracket and string that was opened is closed."""
        return self._begun and not (self._structured and (self._depth > 0 or self._in_string))

    def feed(self, piece: str) -> None:
        """Read a piece."""
        if not self._begun and piece.strip():
            self._begun, self._structured = True, piece.lstrip()[0] in "{["
        text = self._escape + piece
        end = 0
        for mark in _MARKS.finditer(text):
            end = mark.end()
            character = mark[0]
            if character == '"':
                self._in_string = not self._in_string
            elif not self._in_string:
                self._depth += {"{": 1, "[": 1, "}": -1, "]": -1}.get(character, 0)
        self._escape = "\\" if text.endswith("\\", end) else ""
