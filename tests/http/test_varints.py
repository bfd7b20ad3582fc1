from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segue.http.varints import MAX_VARINT, encode_varint, read_varint


@given(st.integers(0, MAX_VARINT), st.binary(max_size=4), st.binary(max_size=4))
def test_a_number_is_read_back_wherever_it_stands(number: int, before: bytes, after: bytes) -> None:
    encoded = encode_varint(number)
    assert read_varint(before + encoded + after, len(before)) == (number, len(before) + len(encoded))


@pytest.mark.parametrize(
    ("number", "encoded"),
    [(0, "00"), (1, "01"), (127, "7f"), (128, "8001"), (300, "ac02"), (MAX_VARINT, "ffffffffffffffff3f")],
)
def test_the_encoding_is_little_endian_base_128(number: int, encoded: str) -> None:
    assert encode_varint(number).hex() == encoded


@given(st.integers(0, MAX_VARINT))
def test_a_truncated_number_is_none(number: int) -> None:
    encoded = encode_varint(number)
    for size in range(len(encoded)):
        assert read_varint(encoded[:size], 0) is None


@pytest.mark.parametrize("encoded", ["8000", "ff00", "ffffffffffffffff40", "ffffffffffffffffff01", "80" * 20 + "01"])
def test_what_is_too_large_or_not_the_shortest_form_is_none(encoded: str) -> None:
    assert read_varint(bytes.fromhex(encoded), 0) is None


@given(st.binary(max_size=20), st.integers(0, 25))
def test_whatever_is_read_has_exactly_the_encoding_it_was_read_from(data: bytes, at: int) -> None:
    read = read_varint(data, at)
    assert read == read_varint(memoryview(data), at)
    if read is not None:
        number, end = read
        assert data[at:end] == encode_varint(number)


@pytest.mark.parametrize("number", [-1, MAX_VARINT + 1])
def test_a_number_that_has_no_encoding_is_refused(number: int) -> None:
    with pytest.raises(ValueError, match="cannot be a varint"):
        encode_varint(number)
