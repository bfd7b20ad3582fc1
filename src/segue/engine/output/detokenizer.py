"""The detokenizer: from tokens back to text. Pure.

A token can end in the middle of a character. llama.cpp shows such a token with a replacement character, and its bytes
are lost. So the bytes come from the token's entry in the vocabulary, and characters are put together here. Not here:
which tokens a model has, and how text becomes tokens (`model`).
"""

from __future__ import annotations

import codecs
import re

_REPLACEMENT = "\ufffd"
_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


class PieceBytes:
    """Finds the bytes of tokens, for the two kinds of vocabulary whose tokens can split a character."""

    def __init__(self) -> None:
        self._bytes = {char: byte for byte, char in enumerate(byte_alphabet())}

    def of(self, shown: str, entry: str) -> bytes:
        """Return the bytes of a token, given its text as llama.cpp shows it and its entry in the vocabulary."""
        if _REPLACEMENT not in shown:
            return shown.encode()
        if byte := _BYTE_TOKEN.fullmatch(entry):  # SentencePiece: a token of its own for each byte
            return bytes.fromhex(byte[1])
        if all(char in self._bytes for char in entry):
            return bytes(self._bytes[char] for char in entry)
        return shown.encode()


class Detokenizer:
    """Decodes the bytes of tokens as UTF-8, and holds an incomplete character back.

    Bytes that no further byte can make valid become U+FFFD, since JSON can only hold text. A character that is still
    incomplete when the answer ends is left out.
    """

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, piece: bytes) -> str:
        """Add the bytes of one token; return the text that is complete now, maybe none."""
        return self._decoder.decode(piece)


def byte_alphabet() -> str:
    """Return the 256 characters with which byte-level BPE vocabularies write bytes, in the order of the bytes.

    A visible Latin-1 character stands for itself; the others are moved behind U+0100, in order.
    """
    visible = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    moved = iter(range(0x100, 0x200))
    return "".join(chr(byte if byte in visible else next(moved)) for byte in range(256))
