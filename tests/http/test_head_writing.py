"""Heads as they are written: the bytes of h11, and nothing that could be another head."""

from __future__ import annotations

import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.http.head_writing import encode_reply_head, encode_request_head, encode_usual_reply
from segue.http.heads import PER_HOP, Line, ReplyHead, RequestHead
from tests.strategies import examples

NAMES = st.sampled_from([b"X-A", b"x-a", b"Set-Cookie", b"!#$%&'*+-.^_`|~0", b"", b"X A", b"X:", b"X\r\nY", b"\xe9"])
VALUES = st.sampled_from(
    [b"", b"1", b"two words", b"\xff\x80", b"a\x01", b" a", b"a\t", b"a\r\nSet-Cookie: b", b"a\nb", b"a\rb", b"a\x00"]
) | st.binary(max_size=6)
LINES = st.lists(st.builds(Line, NAMES, VALUES), max_size=3).map(tuple)


def request_by_h11(head: RequestHead) -> bytes | None:
    http = h11.Connection(h11.CLIENT)
    lines = [(line.name, line.value) for line in head.lines]
    try:
        return http.send(h11.Request(method=head.method, target=head.target, headers=lines))
    except h11.LocalProtocolError:
        return None


def reply_by_h11(head: ReplyHead) -> bytes | None:
    http = h11.Connection(h11.SERVER)
    http.receive_data(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    http.next_event()
    lines = [*head.lines, (b"Content-Length", b"0")]
    try:
        return http.send(h11.Response(status_code=head.status, reason=head.reason, headers=lines))
    except h11.LocalProtocolError:
        return None


@settings(max_examples=examples(200))
@given(
    st.sampled_from([b"GET", b"QUERY", b"", b"G T", b"GET / HTTP/1.1\r\nX:"]),
    st.sampled_from([b"/", b"/v1?a=%7e&b", b"*", b"", b"/a b", b"/\xe9", b"/\r\n"]),
    LINES,
)
def test_requests_are_written_as_h11_writes_them(method: bytes, target: bytes, lines: tuple[Line, ...]) -> None:
    head = RequestHead(method, target, (Line(b"Host", b"provider"), *lines))
    assert encode_request_head(head) == request_by_h11(head)


@settings(max_examples=examples(200))
@given(st.sampled_from([200, 529]), st.sampled_from([b"", b"OK", b"Not\xe9 \t so"]), LINES)
def test_replies_are_written_as_h11_writes_them(status: int, reason: bytes, lines: tuple[Line, ...]) -> None:
    head = ReplyHead(status, reason, (*lines, Line(b"Content-Length", b"0")))
    assert encode_reply_head(head) == reply_by_h11(ReplyHead(status, reason, lines))


@pytest.mark.parametrize("reason", [b"a\r\nX: b", b"\x00"])
def test_a_reason_that_is_none_is_left_out(reason: bytes) -> None:
    assert encode_reply_head(ReplyHead(500, reason, ())) == b"HTTP/1.1 500 \r\n\r\n"


def test_lines_keep_their_case_order_and_duplicates() -> None:
    lines = (Line(b"x-B", b"1"), Line(b"X-a", b""), Line(b"x-B", b"3"))
    assert encode_request_head(RequestHead(b"GET", b"/v1?a=%7e", lines)) == (
        b"GET /v1?a=%7e HTTP/1.1\r\nx-B: 1\r\nX-a: \r\nx-B: 3\r\n\r\n"
    )
    assert encode_reply_head(ReplyHead(200, b"OK", lines)) == b"HTTP/1.1 200 OK\r\nx-B: 1\r\nX-a: \r\nx-B: 3\r\n\r\n"


@pytest.mark.parametrize("line", [Line(b"X", b"a\r\nY: b"), Line(b"X: y\r\nZ", b"1"), Line(b"X", b" a")])
def test_a_line_that_would_be_read_otherwise_is_not_written(line: Line) -> None:
    assert encode_request_head(RequestHead(b"GET", b"/", (line,))) is None
    assert encode_reply_head(ReplyHead(200, b"OK", (line,))) is None


@pytest.mark.parametrize(("method", "target"), [(b"G T", b"/"), (b"GET", b"/ HTTP/1.1\r\nX: y\r\n"), (b"GET", b"")])
def test_a_request_line_that_is_none_is_not_written(method: bytes, target: bytes) -> None:
    assert encode_request_head(RequestHead(method, target, ())) is None


@settings(max_examples=examples(200))
@given(
    st.sampled_from([101, 200, 204, 304, 529, 999]),
    st.sampled_from([b"", b"OK", b"Not\xe9 \t so", b"a\r\nX: b", b"\x00"]),
    st.lists(st.builds(Line, NAMES | st.sampled_from([b"Connection", b"content-length"]), VALUES), max_size=3).map(
        tuple
    ),
)
def test_a_usual_reply_is_written_as_any_other(status: int, reason: bytes, lines: tuple[Line, ...]) -> None:
    chunked = Line(b"Transfer-Encoding", b"chunked")
    head = ReplyHead(status, reason, lines)
    usual = encode_usual_reply(head, chunked)
    if usual is not None:
        assert usual == encode_reply_head(ReplyHead(status, reason, (*lines, chunked)))
        assert status in {200, 529, 999}
        assert not {line.name.lower() for line in lines} & PER_HOP
    elif status in {200, 529, 999} and not {line.name.lower() for line in lines} & PER_HOP and b"\x00\r" not in reason:
        assert encode_reply_head(head) is None or reason in {b"a\r\nX: b", b"\x00"}


def test_the_replies_of_providers_are_usual_ones() -> None:
    chunked = Line(b"Transfer-Encoding", b"chunked")
    lines = (Line(b"Date", b"today"), Line(b"x-A", b""), Line(b"X-b", b"a: \t b"), Line(b"Set-Cookie", b"\xe9\x01"))
    assert encode_usual_reply(ReplyHead(529, b"Over \xe9", lines), chunked) == (
        b"HTTP/1.1 529 Over \xe9\r\nDate: today\r\nx-A: \r\nX-b: a: \t b\r\nSet-Cookie: \xe9\x01\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n"
    )
    for status, reason, line in (
        (199, b"OK", b"a"),
        (204, b"OK", b"a"),
        (200, b"O\x01K", b"a"),
        (200, b"O\r\nX: b", b"a"),
        (200, b"k" * 65, b"a"),
        (200, b"OK", b" a"),
        (200, b"OK", b"a\t"),
        (200, b"OK", b"a\r\nX: b"),
        (200, b"OK", b"a\x00"),
        (200, b"OK", b"a" * 8_192),
    ):
        assert encode_usual_reply(ReplyHead(status, reason, (*lines, Line(b"X-c", line))), chunked) is None
    for name in (b"Connection", b"X y", b"", b"X\r\nY"):
        assert encode_usual_reply(ReplyHead(200, b"OK", (*lines, Line(name, b"a"))), chunked) is None
