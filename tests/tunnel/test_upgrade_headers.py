"""The headers of the upgrade: the first packet of the link comes back as it was, or not at all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segue.tunnel.upgrade_headers import MAX_HELLO_BYTES, decode_hello, encode_hello, read_link_number


@given(st.binary(min_size=1, max_size=100))
def test_a_packet_comes_back_and_needs_no_quoting(packet: bytes) -> None:
    value = encode_hello(packet)
    assert decode_hello(value) == packet
    assert value.isascii()
    assert value.replace("-", "").replace("_", "").isalnum()


def test_a_link_has_a_number_from_one_on() -> None:
    assert [read_link_number(value) for value in ("1", "27", "9" * 18)] == [1, 27, 10**18 - 1]
    assert [read_link_number(value) for value in ("", "0", "01", "-1", "1.", " 1", "9" * 19, "\u0661")] == [None] * 8


def test_the_largest_packet_is_taken_and_a_larger_one_is_not() -> None:
    assert decode_hello(encode_hello(bytes(MAX_HELLO_BYTES))) == bytes(MAX_HELLO_BYTES)
    assert decode_hello(encode_hello(bytes(MAX_HELLO_BYTES + 1))) is None


@pytest.mark.parametrize("value", ["", "A", "AAAA=", "AA A", "AA+/", "\xe9\xe9", "AAAA\n"])
def test_what_is_no_packet_in_base64url_is_none(value: str) -> None:
    assert decode_hello(value) is None
