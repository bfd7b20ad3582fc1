"""Content of every framing, cut anywhere."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segue.http.message_content import MessageContent, content_of
from segue.http.reply_rules import CHUNKED, NO_CONTENT, UNTIL_END
from segue.http.request_rules import Framing


def read_all(content: MessageContent, pieces: list[bytes]) -> bytes:
    """Read what there is after each piece; what comes behind the content is fed too."""
    read = b""
    for piece in pieces:
        content.feed(piece)
        while part := content.read():
            read += part
    return read


@given(st.binary(max_size=40), st.binary(max_size=10), st.lists(st.integers(0, 50), max_size=5))
def test_a_length_ends_the_content(body: bytes, behind: bytes, edges: list[int]) -> None:
    data = body + behind
    ends = [*sorted(min(edge, len(data)) for edge in edges), len(data)]
    pieces = [data[start:end] for start, end in zip([0, *ends], ends, strict=False)]
    content = content_of(Framing(len(body), chunked=False))
    assert read_all(content, pieces) == body
    assert (content.complete, content.rest) == (True, behind)


def test_no_content_is_complete_at_once() -> None:
    content = content_of(NO_CONTENT)
    content.feed(b"HTTP/1.1 408")
    assert (content.complete, content.read(), content.rest) == (True, b"", b"HTTP/1.1 408")


def test_chunks_end_themselves() -> None:
    content = content_of(CHUNKED)
    assert read_all(content, [b"2\r\nab\r\n", b"0\r\n\r\nmore"]) == b"ab"
    assert (content.complete, content.rest) == (True, b"more")


def test_content_without_a_framing_ends_with_the_connection() -> None:
    content = content_of(UNTIL_END)
    assert read_all(content, [b"ab", b"c"]) == b"abc"
    assert not content.complete
    content.end()
    assert content.complete


def test_what_came_before_the_end_is_read_first() -> None:
    content = content_of(UNTIL_END)
    content.feed(b"ab")
    content.end()
    assert not content.complete
    assert (content.read(), content.complete) == (b"ab", True)


@pytest.mark.parametrize("framing", [CHUNKED, Framing(3, chunked=False)])
def test_an_end_within_framed_content_is_a_fault(framing: Framing) -> None:
    content = content_of(framing)
    content.feed(b"1")
    with pytest.raises(ValueError, match="ended within"):
        content.end()
