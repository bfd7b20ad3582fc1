"""The second decoder of heads: it decodes what the encoder makes, and names what no encoder may make."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segue.http.heads import Line, RequestHead
from segue.testing.tunnel_frames import WireFault
from segue.testing.tunnel_heads import HeadDecoder, WireHead
from segue.tunnel.header_table import HeaderTable, encode_request
from segue.tunnel.static_table import REQUEST

NAMES = st.sampled_from([b"Accept", b"accept", b"X-Key", b"x-key"])
LINES = st.lists(st.builds(Line, NAMES, st.sampled_from([b"*/*", b"", b"1", b"y" * 4096])), max_size=8).map(tuple)


@given(st.lists(LINES, max_size=6))
def test_heads_one_after_another_are_decoded(heads: list[tuple[Line, ...]]) -> None:
    table, decoder = HeaderTable(REQUEST), HeadDecoder(REQUEST)
    for lines in heads:
        data = encode_request(RequestHead(b"GET", b"/", lines), "http", table)
        expected = tuple((line.name.lower(), line.value) for line in lines)
        assert decoder.decode(data, 1, is_websocket=False) == WireHead(b"GET /", expected)


def test_a_table_that_overflows_drops_the_same_lines() -> None:
    table, decoder = HeaderTable(REQUEST), HeadDecoder(REQUEST)
    for number in range(300):
        lines = tuple(Line(b"x-%d" % at, b"%d" % (number * at) + b"v" * 900) for at in range(5))
        data = encode_request(RequestHead(b"GET", b"/", lines), "http", table)
        decoded = decoder.decode(data, 1, is_websocket=False)
        assert decoded.lines == tuple((line.name, line.value) for line in lines)


def test_the_names_of_lines_are_asked_for_in_lower_case() -> None:
    assert WireHead(b"", ((b"a", b"1"),)).has(b"a")
    assert not WireHead(b"", ((b"a", b"1"),)).has(b"b")


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"", "without a line"),
        (b"\x00\x05GET /\x00\x05a: 1 ", "white space"),
        (b"\x00\x05GET /\x00\x01a", "without a colon"),
        (b"\x00\x05GET /\x00\x06Host:a", "of the hop: host"),
        (b"\x00\x05GET /\x00\x19Sec-WebSocket-Version:13", "cut|of the hop"),
        (b"\x00\x05GET /\x00\x05GET /", "although the table has it"),
        (b"\x01\x05GET /", "not added"),
        (b"\x00\x05GET", "cut"),
        (b"\x06", "slot 2 is empty"),
        (b"\x02\x07\x01a", "slot 7 is empty"),
        (b"\x00\x05GET /\x02\x00\x01a", "a line that has none"),
        (b"\x03\x02", "a repetition"),
        (b"\x00\x05GET /\x03\x01", "a repetition"),
    ],
)
def test_what_no_encoder_makes_is_named(data: bytes, fault: str) -> None:
    with pytest.raises(WireFault, match=fault):
        HeadDecoder(()).decode(data, 0, is_websocket=True)
