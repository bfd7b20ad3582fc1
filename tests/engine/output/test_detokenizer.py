"""Tokens become text again, whole characters at a time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from segue.engine.output.detokenizer import Detokenizer, PieceBytes, byte_alphabet

some_text = st.text()  # without surrogates, which no request can hold


@given(some_text, st.lists(st.integers(1, 3)))
def test_characters_are_held_back_until_whole(text: str, sizes: list[int]) -> None:
    """For any text cut anywhere: what comes out is always a prefix of it, and in the end all of it."""
    data, decoder, out = text.encode(), Detokenizer(), ""
    for size in [*sizes, *[1] * len(data)]:
        out += decoder.feed(data[:size])
        data = data[size:]
        assert text.startswith(out)
    assert out == text


def test_an_unfinished_character_is_left_out() -> None:
    """An answer that is cut inside a character has no replacement character at its end."""
    assert Detokenizer().feed("ö€".encode()[:-1]) == "ö"


@given(st.binary())
def test_any_bytes_become_text(data: bytes) -> None:
    """A model may write bytes that are no text; what a client gets is always valid Unicode."""
    Detokenizer().feed(data).encode()


def test_a_split_character_gets_its_bytes_back() -> None:
    """Byte-level BPE and SentencePiece both say in the vocabulary what the shown text has lost."""
    alphabet = byte_alphabet()
    of = PieceBytes().of
    assert of("\ufffd", "".join(alphabet[byte] for byte in b"\xf0\x9f")) == b"\xf0\x9f"
    assert of(" \ufffd", "".join(alphabet[byte] for byte in b" \xc3")) == b" \xc3"
    assert of("\ufffd", "<0xE2>") == b"\xe2"


def test_whole_characters_are_taken_as_shown() -> None:
    """The entry is only read where the shown text lost something; a real U+FFFD is kept."""
    alphabet = byte_alphabet()
    assert PieceBytes().of(" hello", "Ġhello") == b" hello"
    real = "\ufffd".encode()
    assert PieceBytes().of("\ufffd", "".join(alphabet[byte] for byte in real)) == real


def test_the_byte_alphabet_names_every_byte_once() -> None:
    """256 characters, none of them a space or a control character."""
    alphabet = byte_alphabet()
    assert len(set(alphabet)) == len(alphabet) == 256
    assert all(char.isprintable() and not char.isspace() for char in alphabet)
    assert (alphabet[ord("A")], alphabet[ord(" ")], alphabet[ord("\n")]) == ("A", "Ġ", "Ċ")
