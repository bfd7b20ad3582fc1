"""Chunks in any pieces: what h11 makes of them, in one pass."""

from __future__ import annotations

import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.egress.chunked_content import ChunkedContent
from tests.strategies import examples

HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def by_h11(pieces: list[bytes]) -> tuple[bytes, bool]:
    """Return the content, and whether it ended or broke the rules."""
    http = h11.Connection(h11.CLIENT)
    http.send(h11.Request(method="GET", target="/", headers=[("Host", "a")]))
    http.send(h11.EndOfMessage())
    http.receive_data(HEAD)
    content = b""
    try:
        for piece in (b"", *pieces):
            if piece:
                http.receive_data(piece)
            while (event := http.next_event()) is not h11.NEED_DATA:
                if isinstance(event, h11.EndOfMessage):
                    return content, True
                content += bytes(event.data) if isinstance(event, h11.Data) else b""
    except h11.RemoteProtocolError:
        return content, True
    return content, False


def by_us(pieces: list[bytes]) -> tuple[bytes, bool]:
    """Return the same; what is left over goes to h11."""
    chunks, content = ChunkedContent(), b""
    for number, piece in enumerate(pieces):
        chunks.feed(piece)
        try:
            while read := chunks.read():
                content += read
        except ValueError:
            return content, True
        if chunks.ended:
            rest, ended = by_h11([chunks.rest, *pieces[number + 1 :]])
            return content + rest, ended
    return content, False


def cut(data: bytes, sizes: list[int]) -> list[bytes]:
    pieces = []
    for size in sizes:
        pieces.append(data[:size])
        data = data[size:]
    return [piece for piece in (*pieces, data) if piece]


CHUNKS = st.lists(st.binary(min_size=1, max_size=40), max_size=6)
SIZE_LINES = st.sampled_from([b"%x\r\n", b"%X\r\n", b"0%x;name=value\r\n", b"%x ; odd\r\n", b"%x\t\r\n", b"%x\n"])
ENDS = st.sampled_from([b"0\r\n\r\n", b"0\r\nTrailer: 1\r\n\r\n", b"000;x\r\n\r\n", b"", b"0", b"g\r\n", b"-1\r\n\r\n"])


@settings(max_examples=examples(200))
@given(CHUNKS, st.lists(SIZE_LINES, min_size=6, max_size=6), ENDS, st.lists(st.integers(1, 30), max_size=12))
def test_any_cut_gives_what_h11_gives(chunks: list[bytes], lines: list[bytes], end: bytes, sizes: list[int]) -> None:
    data = b"".join(line % len(chunk) + chunk + b"\r\n" for line, chunk in zip(lines, chunks, strict=False)) + end
    pieces = cut(data, sizes)
    assert by_us(pieces) == by_h11(pieces)


@settings(max_examples=examples(100))
@given(st.binary(max_size=60), st.lists(st.integers(1, 12), max_size=6))
def test_whatever_comes_is_judged_as_by_h11(data: bytes, sizes: list[int]) -> None:
    pieces = cut(b"3\r\nabc\r\n" + data, sizes)
    assert by_us(pieces)[0] == by_h11(pieces)[0]


def test_part_of_a_chunk_is_read_at_once() -> None:
    chunks = ChunkedContent()
    chunks.feed(b"5\r\nhe")
    assert (chunks.read(), chunks.read()) == (b"he", b"")
    chunks.feed(b"llo\r")
    assert chunks.read() == b"llo"
    chunks.feed(b"\n1\r\n!\r\n0")
    assert (chunks.read(), chunks.ended) == (b"!", False)
    chunks.feed(b"\r\n\r\n")
    assert (chunks.read(), chunks.ended, chunks.rest) == (b"", True, b"0\r\n\r\n")


def test_what_came_before_a_chunk_that_is_too_long_is_read_first() -> None:
    chunks = ChunkedContent()
    chunks.feed(b"1\r\na\r\n2\r\nbcd\r\n")
    assert chunks.read() == b"abc"
    with pytest.raises(ValueError, match="longer than its size"):
        chunks.read()


def test_a_line_without_an_end_is_not_kept() -> None:
    chunks = ChunkedContent()
    chunks.feed(b"1;" + b"x" * 2000)
    assert (chunks.read(), chunks.ended) == (b"", True)
