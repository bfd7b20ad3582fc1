"""From token pieces back to text: pure.

A token can end in the middle of a character, and the engine shows such a token with a replacement character, its bytes
lost. So the bytes are taken from the vocabulary's own entry, and characters are put together here. Not here: which
tokens a model has, and how text becomes tokens (`model`).
"""

from __future__ import annotations

import codecs
import re

_REPLACEMENT = "\ufffd"
_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


class PieceBytes:
    """The bytes of tokens, of the two kinds of vocabulary that can split a character."""

    def __init__(self) -> None:
        self._bytes = {char: byte for byte, char in enumerate(byte_alphabet())}

    def of(self, shown: str, entry: str) -> bytes:
        """Return a token's bytes from its text as the engine shows it and its entry in the vocabulary."""
        if _REPLACEMENT not in shown:
            return shown.encode()
        if byte := _BYTE_TOKEN.fullmatch(entry):  # SentencePiece: a token of its own for each byte
            return bytes.fromhex(byte[1])
        if all(char in self._bytes for char in entry):
            return bytes(self._bytes[char] for char in entry)
        return shown.encode()


class TextDecoder:
    """Put the bytes of tokens together to text, holding back a character until it is whole.

    Bytes that no further byte can make valid become U+FFFD, as JSON must hold text. A character that is still not
    whole when the answer ends is left out.
    """

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, piece: bytes) -> str:
        """Add the bytes of one token; return the text that is now whole, maybe none."""
        return self._decoder.decode(piece)


def byte_alphabet() -> str:
    """Return the 256 characters that byte-level BPE vocabularies write bytes with, in the order of the bytes.

    Visible Latin-1 characters stand for themselves, the others are moved behind U+0100 in order.
    """
    visible = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    moved = iter(range(0x100, 0x200))
    return "".join(chr(byte if byte in visible else next(moved)) for byte in range(256))
