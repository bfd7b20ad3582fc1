"""Which lines of a head go on to the next hop."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segue.http.heads import (
    PER_HOP,
    WEBSOCKET_PER_HOP,
    Line,
    ReplyHead,
    connection_options,
    end_to_end,
    has_content,
    reply_lines,
    values,
)

NAMES = st.sampled_from([b"Accept", b"accept", b"X-Key", b"TE", b"te", b"Host", b"Connection", b"Sec-WebSocket-Key"])
LINES = st.lists(st.builds(Line, NAMES, st.binary(max_size=10))).map(tuple)


def test_lines_that_stay_keep_their_case_order_and_duplicates() -> None:
    lines = (
        Line(b"HOST", b"localhost:4748"),
        Line(b"x-B", b"1"),
        Line(b"Content-Length", b"3"),
        Line(b"X-b", b"1"),
        Line(b"x-B", b"1"),
        Line(b"Cookie", b"caf\xe9; b"),
        Line(b"X-Empty", b""),
    )
    assert end_to_end(lines) == (lines[1], lines[3], lines[4], lines[5], lines[6])


def test_what_connection_names_is_of_the_hop() -> None:
    lines = (
        Line(b"Connection", b"close, X-Trace ,,"),
        Line(b"connection", b"x-other"),
        Line(b"x-trace", b"1"),
        Line(b"X-OTHER", b"2"),
        Line(b"X-Stays", b"3"),
    )
    assert connection_options(lines) == {b"close", b"x-trace", b"x-other"}
    assert end_to_end(lines) == (Line(b"X-Stays", b"3"),)


def test_a_line_that_is_asked_for_stays_though_it_is_of_the_hop() -> None:
    lines = (Line(b"Content-Length", b"12"), Line(b"Upgrade", b"h2c"))
    assert end_to_end(lines, keep=frozenset({b"content-length"})) == lines[:1]


def test_the_handshake_of_a_websocket_stays_only_where_there_is_none() -> None:
    lines = tuple(Line(name, b"x") for name in (*sorted(WEBSOCKET_PER_HOP), b"Sec-WebSocket-Protocol"))
    assert end_to_end(lines) == lines
    assert end_to_end(lines, "websocket") == lines[-1:]


@pytest.mark.parametrize(
    ("method", "status", "has", "tells"),
    [
        (b"GET", 200, True, False),
        (b"POST", 404, True, False),
        (b"HEAD", 200, False, True),
        (b"HEAD", 404, False, True),
        (b"GET", 304, False, True),
        (b"HEAD", 304, False, True),
        (b"DELETE", 204, False, False),
        (b"HEAD", 204, False, False),
    ],
)
def test_a_length_stays_where_it_frames_nothing(method: bytes, status: int, *, has: bool, tells: bool) -> None:
    lines = (Line(b"Content-Length", b"12"), Line(b"X", b"1"), Line(b"Connection", b"close"))
    assert has_content(method, status) == has
    assert reply_lines(ReplyHead(status, b"", lines), method) == (lines[:2] if tells else lines[1:2])


@given(LINES)
def test_passing_on_twice_changes_nothing_more(lines: tuple[Line, ...]) -> None:
    once = end_to_end(lines, "websocket")
    assert end_to_end(once, "websocket") == once
    assert not {line.name.lower() for line in once} & (PER_HOP | WEBSOCKET_PER_HOP)


def test_values_come_in_order_whatever_the_case_of_the_name() -> None:
    lines = (Line(b"Accept", b"a"), Line(b"X", b"b"), Line(b"ACCEPT", b"c"))
    assert values(lines, b"accept") == [b"a", b"c"]
    assert values(lines, b"missing") == []
