"""A text that a source sends in pieces, and the characters that it cuts in two.

A source that counts in UTF-16 can end a piece between the two halves of a character (a surrogate pair, which JSON
writes as two escapes). Alone a half is no text and cannot be written as UTF-8, so it waits for the other half. Not
here: reading the pieces, and the events that they become.
"""

from __future__ import annotations

#: What stands for a character that cannot be read.
REPLACEMENT = "\ufffd"


class GrowingText:
    """Its pieces, each of them sound text, and the half of a character that waits for the next piece."""

    __slots__ = ("half", "pieces")

    def __init__(self) -> None:
        self.pieces: list[str] = []
        self.half = ""

    def mend(self, piece: str) -> str:
        """Return what is whole of a piece that has surrogates in it, or that comes after half a character."""
        text = self.half + piece
        self.half = text[-1:] if "\ud800" <= text[-1:] <= "\udbff" else ""
        return mended(text.removesuffix(self.half))

    def rest(self) -> str:
        """Return what stands at the end for half a character whose other half did not come."""
        half, self.half = self.half, ""
        return REPLACEMENT if half else ""


def mended(text: str) -> str:
    """Join the halves of characters that stand side by side, and replace those that stand alone."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
