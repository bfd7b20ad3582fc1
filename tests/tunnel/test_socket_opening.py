"""Messages of a WebSocket as documents: read from any pieces, and refused as soon as it is sure that they are none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segue.tunnel.socket_opening import END_OF_OPENINGS, SocketOpening, encode_opening, read_opening
from segue.tunnel.websocket_records import RecordError

CODED = st.sampled_from(("text", "binary"))


@given(CODED, st.binary(max_size=300), st.binary(max_size=20))
def test_an_opening_comes_out_as_it_went_in_wherever_it_was_cut(opcode: str, document: bytes, rest: bytes) -> None:
    assert opcode in {"text", "binary"}
    encoded = encode_opening("text" if opcode == "text" else "binary", document)
    upload = encoded + rest
    for size in range(len(encoded)):
        assert read_opening(upload[:size], 300) is None
    for size in range(len(encoded), len(upload) + 1):
        opening = read_opening(bytearray(upload[:size]), 300)
        assert isinstance(opening, SocketOpening)
        assert (opening.opcode, opening.document, opening.end) == (opcode, document, len(encoded))


@given(st.binary(max_size=20))
def test_arbitrary_bytes_are_an_opening_an_error_or_a_part_of_one(upload: bytes) -> None:
    opening = read_opening(upload, 10)
    if isinstance(opening, SocketOpening):
        assert opening.end <= len(upload)


def test_a_zero_ends_the_openings() -> None:
    assert read_opening(END_OF_OPENINGS + b"stream", 10) == SocketOpening("text", None, 1)


@pytest.mark.parametrize(
    ("upload", "reason"),
    [
        (b"\x03", "the unknown opcode 3"),
        (b"\x08\x02", "the unknown opcode 8"),
        (b"\x01\x81\x00", "cannot be read"),
        (b"\x01" + b"\xff" * 10, "cannot be read"),
        (b"\x02\x0b", "an opening of 11 bytes is larger than 10"),
    ],
)
def test_what_is_no_opening_is_an_error_as_soon_as_that_is_sure(upload: bytes, reason: str) -> None:
    error = read_opening(upload, 10)
    assert isinstance(error, RecordError)
    assert reason in error.reason
