"""Heads of replies: what h11 makes of them, and what it would take and we do not."""

from __future__ import annotations

import re

import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.http.content_decoding import decoder_for
from segue.http.heads import Line, ReplyHead, has_content, reply_lines
from segue.http.message_content import content_of
from segue.http.reply_rules import (
    CHUNKED,
    NO_CONTENT,
    UNTIL_END,
    BadReply,
    ReceivedReply,
    read_reply_head,
    reply_head_end,
)
from segue.http.request_rules import Framing
from tests.strategies import examples


def by_h11(data: bytes, method: bytes) -> tuple[ReplyHead, bool] | None:
    """Return the head, and whether the connection goes on when nothing but the content follows; None: it is none.

    h11 writes the value of Transfer-Encoding in lower case.
    """
    http = h11.Connection(h11.CLIENT)
    http.send(h11.Request(method=method, target="/", headers=[("Host", "a")]))
    http.send(h11.EndOfMessage())
    http.receive_data(data)
    try:
        event = http.next_event()
    except h11.RemoteProtocolError:
        return None
    if not isinstance(event, h11.Response | h11.InformationalResponse):
        return None
    lines = tuple(Line(bytes(name), bytes(value)) for name, value in event.headers.raw_items())
    return ReplyHead(event.status_code, bytes(event.reason), lines), http.our_state is not h11.MUST_CLOSE


def content_by_h11(data: bytes, method: bytes, behind: bytes) -> bytes:
    """Return what h11 takes for content of what comes behind the head, before the end of the connection."""
    http = h11.Connection(h11.CLIENT)
    http.send(h11.Request(method=method, target="/", headers=[("Host", "a")]))
    http.send(h11.EndOfMessage())
    http.receive_data(data + behind)
    http.next_event()
    content = b""
    try:
        while isinstance(event := http.next_event(), h11.Data):
            content += bytes(event.data)
    except h11.RemoteProtocolError:
        pass
    return content


def content_by_us(framing: Framing, behind: bytes) -> bytes:
    content = content_of(framing)
    content.feed(behind)
    read = b""
    try:
        while piece := content.read():
            read += piece
    except ValueError:
        pass
    return read


def _as_h11_has(line: Line) -> Line:
    return Line(line.name, line.value.lower()) if line.name.lower() == b"transfer-encoding" else line


STATUS_LINES = st.sampled_from(
    [
        b"HTTP/1.1 200 OK",
        b"HTTP/1.1 200",
        b"HTTP/1.1 204 ",
        b"HTTP/1.1 304 Not\tModified \xe9",
        b"HTTP/1.0 200 OK",
        b"HTTP/1.1 529 Overloaded",
        b"HTTP/1.1 999 \x01",
        b"HTTP/1.1 20 OK",
        b"HTTP/1.1 2000 OK",
        b"HTTP/1.1  200 OK",
        b"http/1.1 200 OK",
        b"HTTP/1.1 099 Low",
        b"HTTP/1.1 200 O\x0bK",
        b"HTTP/1.1 100 Continue",
        b"HTTP/1.1 103 Early",
    ]
)
FIELDS = st.sampled_from(
    [
        b"Content-Type: text/event-stream",
        b"content-LENGTH: 3",
        b"Content-Length:3",
        b"Content-Length: 3 , 3",
        b"Content-Length: 3, 4",
        b"Content-Length: 4",
        b"Content-Length: +3",
        b"Content-Length: ",
        b"Content-Length: 000000000000000000003",
        b"Transfer-Encoding: Chunked",
        b"Transfer-Encoding: chunked",
        b"Transfer-Encoding: gzip, chunked",
        b"Connection: keep-alive",
        b"Connection: x, CLOSE",
        b"x-A:  \t two  words \t",
        b"X-a: 1",
        b"X-Obs: \xff\x80\x01",
        b"X-Empty:",
        b"X-Empty: \t ",
        b"!#$%&'*+-.^_`|~: token",
        b" folded",
        b"\t folded too \t",
        b"  ",
        b"No colon",
        b"No token : x",
        b": nothing",
        b"X: a\rb",
        b"X: a\x00b",
        b"X: a\x0cb",
    ]
)
LINE_ENDS = st.sampled_from([b"\r\n", b"\r\n", b"\r\n", b"\n"])
METHODS = st.sampled_from([b"GET", b"POST", b"HEAD"])
BEHIND = st.sampled_from([b"", b"abcdef", b"3\r\nabc\r\n0\r\n\r\n", b"2\r\na"])


@st.composite
def heads(draw: st.DrawFn) -> bytes:
    lines = [draw(STATUS_LINES), *draw(st.lists(FIELDS, max_size=5)), b""]
    return b"".join(line + draw(LINE_ENDS) for line in lines)


@settings(max_examples=examples(400))
@given(heads(), METHODS, BEHIND)
def test_a_head_is_read_as_h11_reads_it(data: bytes, method: bytes, behind: bytes) -> None:
    ours, theirs = read_reply_head(data, method), by_h11(data, method)
    assert reply_head_end(data + behind) == len(data)
    if isinstance(ours, BadReply) or theirs is None:
        assert isinstance(ours, BadReply)
        assert theirs is None
        return
    head, persistent = theirs
    ours_to_pass_on = [_as_h11_has(line) for line in ours.head.lines if line.name.lower() != b"content-length"]
    assert (ours.head.status, ours.head.reason) == (head.status, head.reason)
    assert ours_to_pass_on == [line for line in head.lines if line.name.lower() != b"content-length"]
    assert persistent or not ours.persistent
    if head.status >= 200:
        assert content_by_us(ours.framing, behind) == content_by_h11(data, method, behind)


@settings(max_examples=examples(100))
@given(st.binary(max_size=60))
def test_no_bytes_are_an_error_of_the_reader(data: bytes) -> None:
    end = reply_head_end(data)
    assert end is None or 0 < end <= len(data)
    for whole in (data + b"\r\n\r\n", b"HTTP/1.1 200 OK\r\n" + data + b"\r\n\r\n"):
        found = read_reply_head(whole[: reply_head_end(whole)], b"GET")
        assert isinstance(found, BadReply) or b"\n" not in b"".join(name + value for name, value in found.head.lines)


@given(heads(), st.lists(st.integers(0, 200), max_size=4))
def test_where_a_head_ends_does_not_depend_on_how_it_arrives(data: bytes, edges: list[int]) -> None:
    start = 0
    for end in [*sorted(edge for edge in edges if edge < len(data)), len(data)]:
        assert reply_head_end(data[:end], start) == (None if end < len(data) else end)
        start = end


@pytest.mark.parametrize(
    ("lines", "method", "expected"),
    [
        (b"Content-Length: 5\r\n", b"GET", (Framing(5, chunked=False), True)),
        (b"Content-Length: 5\r\n", b"HEAD", (NO_CONTENT, True)),
        (b"Transfer-Encoding: chunked\r\n", b"GET", (CHUNKED, True)),
        (b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", b"GET", (CHUNKED, False)),
        (b"Connection: close\r\nContent-Length: 5\r\n", b"GET", (Framing(5, chunked=False), False)),
        (b"", b"GET", (UNTIL_END, False)),
        (b"", b"HEAD", (NO_CONTENT, True)),
    ],
)
def test_what_follows_a_head(lines: bytes, method: bytes, expected: tuple[Framing, bool]) -> None:
    found = read_reply_head(b"HTTP/1.1 200 OK\r\n" + lines + b"\r\n", method)
    assert isinstance(found, ReceivedReply)
    assert (found.framing, found.persistent) == expected


def test_an_unknown_version_is_no_reply() -> None:
    assert read_reply_head(b"HTTP/2.0 200 OK\r\n\r\n", b"GET") == BadReply("the status line is none")


@pytest.mark.parametrize(
    "lines",
    [
        b"X-A: 1\r\n : 2\r\nno colon\r\n",
        b" folded at first\r\n",
        b"Content-Length: 3\r\nContent-Length: 4\r\n",
        b"Content-Length: three\r\n",
        b"Transfer-Encoding: gzip\r\n",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
    ],
)
def test_what_is_no_head_is_refused(lines: bytes) -> None:
    assert isinstance(read_reply_head(b"HTTP/1.1 200 OK\r\n" + lines + b"\r\n", b"GET"), BadReply)


def test_lines_are_kept_as_they_came_and_folds_become_spaces() -> None:
    found = read_reply_head(b"HTTP/1.1 529 \xe9\nx-B:  1 \r\nX-a: two\r\n \t words\nx-B:\r\n\r\n", b"GET")
    assert isinstance(found, ReceivedReply)
    assert found.head == ReplyHead(529, b"\xe9", (Line(b"x-B", b"1"), Line(b"X-a", b"two words"), Line(b"x-B", b"")))


def test_the_end_of_a_head_is_found_in_pieces() -> None:
    data = b"HTTP/1.1 200 OK\r\n\r\nmore"
    assert [reply_head_end(data[:end], end - 1) for end in (17, 18, 19, 23)] == [None, None, 19, None]
    assert reply_head_end(data, 17) == 19


@settings(max_examples=examples(300))
@given(heads(), METHODS)
def test_what_a_usual_head_passes_on_is_what_any_other_would(data: bytes, method: bytes) -> None:
    found = read_reply_head(data, method)
    if isinstance(found, BadReply) or found.passed_on is None:
        return
    assert found.persistent
    assert has_content(method, found.head.status)
    assert found.passed_on == reply_lines(found.head, method)
    assert decoder_for(found.head.lines) is None


def test_the_heads_of_providers_are_usual_ones() -> None:
    lines = b"Date: today\r\nX-A:  1 \r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n"
    passed_on = (Line(b"Date", b"today"), Line(b"X-A", b"1"), Line(b"Content-Type", b"text/event-stream"))
    for more in (b"", b"Connection: Keep-Alive\r\n", b"Keep-Alive: timeout=5\r\n"):
        found = read_reply_head(b"HTTP/1.1 200 OK\r\n" + lines + more + b"\r\n", b"POST")
        assert isinstance(found, ReceivedReply)
        assert (found.passed_on, found.framing, found.persistent) == (passed_on, CHUNKED, True)
    for other in (b"Content-Encoding: gzip\r\n", b"Connection: close\r\n", b"Content-Length: 3\r\n", b"Date: x\n"):
        found = read_reply_head(b"HTTP/1.1 200 OK\r\n" + lines + other + b"\r\n", b"POST")
        assert isinstance(found, ReceivedReply)
        assert found.passed_on is None


def test_a_long_head_is_read_as_any_other() -> None:
    lines = b"Transfer-Encoding: chunked\r\n" + b"X-A: " + b"a" * 8_192 + b"\r\n"
    found = read_reply_head(b"HTTP/1.1 200 OK\r\n" + lines + b"\r\n", b"POST")
    assert isinstance(found, ReceivedReply)
    assert (found.passed_on, found.framing, len(found.head.lines)) == (None, CHUNKED, 2)


@pytest.mark.parametrize("data", [b"a\n\nb", b"a\n\r\nb", b"a\n\n\r\nb", b"a\n\r\n\nb", b"a\n\r\n\n\nb\n\n"])
def test_a_head_ends_at_the_first_blank_line(data: bytes) -> None:
    first = re.search(rb"\n\r?\n", data)
    assert first is not None
    assert reply_head_end(data) == first.end()
