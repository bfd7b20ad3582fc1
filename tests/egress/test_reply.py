"""Answers: what comes back, when it comes, and that half of one is never taken for the whole."""

from __future__ import annotations

import asyncio
import gzip
import os
import zlib
from collections.abc import Callable

import pytest

from segue.egress.client import Egress
from segue.egress.errors import EgressError
from segue.http.heads import Line, values
from tests.egress.asking import fetch, request, to, whole
from tests.egress.provider import CLOSE, Provider, Step, answer, chunk, chunked, head, sse


async def test_the_head_comes_back_as_it_was_sent(egress: Egress) -> None:
    """Without what is of the hop."""
    lines = [b"X-Two: 1", b"x-two:2", b"X-TWO:  1 ", b"Set-Cookie: a", b"Set-Cookie: b", b"Connection: close, X-Hop"]
    raw = answer(b"x", status=299, lines=[*lines, b"X-Hop: 1", b"Empty:"], reason=b"Fine \xe4")
    async with Provider([[raw, CLOSE]]) as provider:
        got, body = await fetch(egress, provider)
        assert (got.status, got.reason, body) == (299, b"Fine \xe4", b"x")
        assert got.lines == (
            Line(b"X-Two", b"1"),
            Line(b"x-two", b"2"),
            Line(b"X-TWO", b"1"),
            Line(b"Set-Cookie", b"a"),
            Line(b"Set-Cookie", b"b"),
            Line(b"Empty", b""),
        )


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (answer(b"hello"), b"hello"),
        (answer(), b""),
        (chunked([b"a", b"bc", b"d" * 100_000]), b"abc" + b"d" * 100_000),
        (chunked([]), b""),
        ([head(200), b"until ", b"the end", CLOSE], b"until the end"),
        ([b"HTTP/1.0 200 OK\r\n\r\nold", CLOSE], b"old"),
        ([b"HTTP/1.1 200\r\nContent-Length: 1\r\n\r\nx"], b"x"),
        (head(100) + head(103, [b"Link: x"]) + answer(b"after"), b"after"),
        (head(200, [b"Transfer-Encoding: chunked"]) + b"1;ext=1\r\na\r\n0\r\nTrailer: x\r\n\r\n", b"a"),
    ],
)
async def test_every_framing_is_read(egress: Egress, raw: bytes | list[bytes | Step], expected: bytes) -> None:
    """As HTTP/1.1 has them."""
    async with Provider([raw]) as provider:
        got, body = await fetch(egress, provider)
        assert (got.status, body) == (200, expected)


@pytest.mark.parametrize(("method", "status"), [(b"HEAD", 200), (b"HEAD", 404), (b"GET", 304), (b"HEAD", 304)])
async def test_an_answer_without_content_keeps_what_it_says_of_it(egress: Egress, method: bytes, status: int) -> None:
    """And its connection serves the next request."""
    lines = [b"Content-Encoding: gzip", b"Content-Length: 123"]
    async with Provider([head(status, lines), answer(b"next")]) as provider:
        got, body = await fetch(egress, provider, None, request(method=method))
        assert got.lines == (Line(b"Content-Encoding", b"gzip"), Line(b"Content-Length", b"123"))
        assert body == b""
        assert (await fetch(egress, provider))[1] == b"next"
        assert len(provider.connections) == 1


@pytest.mark.parametrize("method", [b"GET", b"POST", b"HEAD"])
async def test_an_answer_that_must_not_tell_a_length_loses_it(egress: Egress, method: bytes) -> None:
    """RFC 9110, 8.6: no 204 has a Content-Length."""
    async with Provider([head(204, [b"Content-Length: 0", b"X: 1"])]) as provider:
        got, body = await fetch(egress, provider, None, request(method=method))
        assert (got.lines, body) == ((Line(b"X", b"1"),), b"")


async def test_events_come_as_they_are_sent(egress: Egress) -> None:
    """Each one before the next is written."""
    gates = [asyncio.Event() for _ in range(3)]
    begin, *events, end = sse([b"1", b"2", b"3"])
    script = [begin]
    play: list[bytes | asyncio.Event] = [*script]
    for gate, event in zip(gates, events, strict=True):
        play += [gate, event]
    async with Provider([[*play, end]]) as provider:
        reply = await egress.open(to(provider), request(), b"{}")
        assert reply.head.lines == (Line(b"Content-Type", b"text/event-stream"),)
        for number, gate in enumerate(gates, 1):
            gate.set()
            assert await reply.read() == b"data: %d\n\n" % number
        assert await reply.read() == b""
        assert await reply.read() == b""


async def test_a_slow_reader_slows_the_provider_down(egress: Egress) -> None:
    """Nothing is read ahead beyond what the sockets hold."""
    size = 64 * 1024 * 1024
    async with Provider([answer(b"x" * size)]) as provider:
        reply = await egress.open(to(provider), request(), b"{}")
        first = len(await reply.read())
        for _ in range(200):
            await asyncio.sleep(0)
        assert provider.connections[0].sent_bytes < size // 2
        assert first + len(await whole(reply)) == size


# --- codings ----------------------------------------------------------------------------------------------------


async def test_an_encoded_stream_is_decoded_as_it_comes(egress: Egress) -> None:
    """Each event before the next is written; the line that named the coding is gone, the others stay."""
    deflate = zlib.compressobj(wbits=31)
    gates = [asyncio.Event() for _ in range(3)]
    lines = [b"Content-Encoding: gzip", b"Vary: Accept-Encoding", b"Transfer-Encoding: chunked"]
    play: list[bytes | asyncio.Event] = [head(200, lines)]
    for number, gate in enumerate(gates):
        event = deflate.compress(b"data: %d\n\n" % number) + deflate.flush(zlib.Z_SYNC_FLUSH)
        play += [gate, chunk(event)]
    play.append(chunk(deflate.flush()) + b"0\r\n\r\n")
    async with Provider([play]) as provider:
        reply = await egress.open(to(provider), request([(b"Accept-Encoding", b"gzip")]), b"{}")
        assert provider.requests[0].values(b"accept-encoding") == [b"gzip"]
        assert reply.head.lines == (Line(b"Vary", b"Accept-Encoding"),)
        for number, gate in enumerate(gates):
            gate.set()
            assert await reply.read() == b"data: %d\n\n" % number
        assert await reply.read() == b""


@pytest.mark.parametrize(
    ("encoding", "status"), [(b"dcb", 200), (b"gzip, x", 200), (b"gzip", 206)], ids=["unknown", "half known", "a part"]
)
async def test_what_cannot_be_decoded_is_passed_on_as_it_is(egress: Egress, encoding: bytes, status: int) -> None:
    """With the line that says so."""
    named = b"Content-Encoding: " + encoding
    lines = [named] if status == 200 else [named, b"Content-Range: bytes 0-4/10"]
    async with Provider([answer(b"\x1f\x8b...", status=status, lines=lines)]) as provider:
        got, body = await fetch(egress, provider)
        assert Line(b"Content-Encoding", encoding) in got.lines
        assert body == b"\x1f\x8b..."


@pytest.mark.parametrize("spoil", [lambda raw: raw[:-9], lambda raw: raw[:20] + b"\xff" * 30])
async def test_broken_content_is_a_truncated_answer(egress: Egress, spoil: Callable[[bytes], bytes]) -> None:
    """Though HTTP's own framing is in order; its connection is closed."""
    raw = spoil(gzip.compress(os.urandom(1000)))
    async with Provider([answer(raw, lines=[b"Content-Encoding: gzip"])]) as provider:
        with pytest.raises(EgressError) as caught:
            await fetch(egress, provider)
        assert (caught.value.code, caught.value.sent) == ("upstream_truncated", True)
        assert "not in its Content-Encoding" in caught.value.message


@pytest.mark.parametrize("coding", [b"gzip", b"br", b"zstd", b"deflate"])
async def test_an_error_that_is_wrongly_called_compressed_is_told(egress: Egress, coding: bytes) -> None:
    text = b'{"error":{"message":"no such model"}}'
    async with Provider([answer(text, status=400, lines=[b"Content-Encoding: " + coding])]) as provider:
        head, body = await fetch(egress, provider)
    assert (head.status, body) == (400, text)
    assert not values(head.lines, b"content-encoding")


async def test_a_bomb_is_read_piece_by_piece(egress: Egress) -> None:
    """Whoever stops reading it stops it."""
    bomb = gzip.compress(bytes(100_000_000))
    async with Provider([answer(bomb, lines=[b"Content-Encoding: gzip"])]) as provider:
        reply = await egress.open(to(provider), request(), b"{}")
        assert len(await reply.read()) <= 65_536
        await reply.aclose()
