"""Chunks in any pieces: what h11 makes of them, in one pass."""

from __future__ import annotations

import time

import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.http.chunked_content import ChunkedContent
from tests.strategies import examples

HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def by_h11(pieces: list[bytes]) -> tuple[bytes, str]:
    """Return the content, and whether more may come, it is complete, or it is none."""
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
                    return content, "complete"
                content += bytes(event.data) if isinstance(event, h11.Data) else b""
    except h11.RemoteProtocolError:
        return content, "none"
    return content, "more"


def by_us(pieces: list[bytes]) -> tuple[bytes, str]:
    """Return the same."""
    chunks, content = ChunkedContent(), b""
    for piece in pieces:
        chunks.feed(piece)
        try:
            while read := chunks.read():
                content += read
        except ValueError:
            return content, "none"
        if chunks.complete:
            return content, "complete"
    return content, "more"


def cut(data: bytes, sizes: list[int]) -> list[bytes]:
    pieces = []
    for size in sizes:
        pieces.append(data[:size])
        data = data[size:]
    return [piece for piece in (*pieces, data) if piece]


CHUNKS = st.lists(st.binary(min_size=1, max_size=40), max_size=6)
SIZE_LINES = st.sampled_from([b"%x\r\n", b"%X\r\n", b"0%x;name=value\r\n", b"%x ; odd\r\n", b"%x\t\r\n", b"%x\n"])
ENDS = st.sampled_from(
    [
        b"0\r\n\r\n",
        b"0\r\nTrailer: 1\r\n\r\n",
        b"0 \r\nA:\nb:\t2 \r\n\nmore",
        b"000;x\r\n\r\nmore",
        b"0\r\nTrailer",
        b"0\r\n: 1\r\n\r\n",
        b"",
        b"0",
        b"g\r\n",
        b"-1\r\n\r\n",
        b"\r\n",
    ]
)
CUTS = st.lists(st.integers(1, 30), max_size=12)


@settings(max_examples=examples(200))
@given(CHUNKS, st.lists(SIZE_LINES, min_size=6, max_size=6), ENDS, CUTS)
def test_any_cut_gives_what_h11_gives(chunks: list[bytes], lines: list[bytes], end: bytes, sizes: list[int]) -> None:
    data = b"".join(line % len(chunk) + chunk + b"\r\n" for line, chunk in zip(lines, chunks, strict=False)) + end
    pieces = cut(data, sizes)
    assert by_us(pieces) == by_h11(pieces) == by_h11([data])


@settings(max_examples=examples(100))
@given(st.binary(max_size=60), st.lists(st.integers(1, 12), max_size=6))
def test_whatever_comes_is_judged_as_by_h11(data: bytes, sizes: list[int]) -> None:
    pieces = cut(b"3\r\nabc\r\n" + data, sizes)
    ours, theirs = by_us(pieces), by_h11(pieces)
    if ours[1] == "none" and theirs[1] == "more":  # h11 judges a size when its line has ended, though it is none before
        theirs = by_h11([*pieces, b"\r\n"])
    assert ours == theirs


def test_part_of_a_chunk_is_read_at_once() -> None:
    chunks = ChunkedContent()
    chunks.feed(b"5\r\nhe")
    assert (chunks.read(), chunks.read()) == (b"he", b"")
    chunks.feed(b"llo\r")
    assert chunks.read() == b"llo"
    chunks.feed(b"\n1\r\n!\r\n0")
    assert (chunks.read(), chunks.complete) == (b"!", False)
    chunks.feed(b"\r\nX: 1\r\n\r\nHTTP")
    assert (chunks.read(), chunks.complete, chunks.rest) == (b"", True, b"HTTP")
    assert (chunks.read(), chunks.rest) == (b"", b"HTTP")


def test_what_came_before_a_chunk_that_is_too_long_is_read_first() -> None:
    chunks = ChunkedContent()
    chunks.feed(b"1\r\na\r\n2\r\nbcd\r\n")
    assert chunks.read() == b"abc"
    for _ in range(2):
        with pytest.raises(ValueError, match="longer than its size"):
            chunks.read()


@pytest.mark.parametrize("begin", [b"1;" + b"x" * 2000, b"0\r\nX: " + b"x" * 20_000], ids=["a size", "a trailer"])
def test_a_line_without_an_end_is_not_kept(begin: bytes) -> None:
    chunks = ChunkedContent()
    chunks.feed(begin)
    with pytest.raises(ValueError, match="none"):
        chunks.read()


@pytest.mark.parametrize(
    "data",
    [
        b"5;\x01\r\nhello\r\n0\r\n\r\n",
        b"1000000000000000\r\n",
        b"0\r\nX: 1\r\n folded\r\n\r\n",
    ],
    ids=["an extension that cannot be printed", "a size beyond all", "a folded trailer"],
)
def test_what_h11_takes_and_nobody_sends_is_refused(data: bytes) -> None:
    assert by_us([data])[1] == "none"
    assert by_h11([data])[1] != "none"


@pytest.mark.parametrize(
    "data",
    [b"0000000000;" + b" " * 1000, b"0\r\n" + b"a:\n" * 5000],
    ids=["white space in an extension", "short trailers"],
)
def test_a_line_byte_by_byte_costs_no_more_than_its_bytes(data: bytes) -> None:
    """A byte of it once cost a look at all before it: 1 KB of white space stopped the event loop for 12 s."""
    chunks = ChunkedContent()
    started = time.thread_time()
    for at in range(len(data)):
        chunks.feed(data[at : at + 1])
        assert chunks.read() == b""
    assert time.thread_time() - started < 1.0


def test_white_space_without_an_end_is_refused_at_once() -> None:
    chunks = ChunkedContent()
    chunks.feed(b"5;" + b" " * 64_000)
    started = time.thread_time()
    with pytest.raises(ValueError, match="none"):
        chunks.read()
    assert time.thread_time() - started < 1.0
