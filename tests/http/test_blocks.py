"""Texts in blocks: none is lost, none is copied whole, and small ones are not cut."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from segue.http.blocks import BLOCK_BYTES, Pieces, blocks, cut

#: How long the pieces of texts are: around the bounds, and far from them.
lengths = st.integers(0, 9) | st.integers(BLOCK_BYTES - 9, BLOCK_BYTES + 1100) | st.integers(0, 5 * BLOCK_BYTES)
texts = st.lists(st.lists(lengths, min_size=1, max_size=4), max_size=6)


def written(sizes: list[list[int]]) -> list[list[bytes]]:
    """Texts of pieces so long. The number of a text is the byte that it consists of, so that one sees where it ends."""
    return [[bytes([number]) * size for size in one] for number, one in enumerate(sizes, 1)]


def joined(text: Pieces) -> bytes:
    return b"".join(text)


@given(texts)
def test_the_blocks_are_the_texts(sizes: list[list[int]]) -> None:
    given_ = written(sizes)
    found = list(blocks(given_))
    assert b"".join(found) == b"".join(map(joined, given_))
    assert all(len(block) <= BLOCK_BYTES + 1024 for block in found)


@given(texts)
def test_only_a_text_that_fits_no_block_is_cut(sizes: list[list[int]]) -> None:
    given_ = written(sizes)
    found = list(blocks(given_))
    for number, text in enumerate(given_, 1):
        size = len(joined(text))
        if size:
            parts = sum(bytes([number]) in block for block in found)
            assert parts == 1 if size <= BLOCK_BYTES else parts >= size // (BLOCK_BYTES + 1024)


@given(texts.filter(bool))
def test_the_end_of_a_text_comes_with_some_of_it(sizes: list[list[int]]) -> None:
    """Some readers lose an event whose blank line comes alone."""
    given_ = written(sizes)
    for text in given_:
        *others, last = cut(text)
        assert all(len(block) == BLOCK_BYTES for block in others)
        assert len(last) > 1024 or not others


def test_small_texts_share_a_block() -> None:
    half = bytes(BLOCK_BYTES // 2)
    assert list(blocks([[half], [half], [b"x"]])) == [half + half, b"x"]
    assert list(blocks([])) == []
