"""The way out: what is on the provider's socket."""

from __future__ import annotations

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.egress.client import Egress
from segue.egress.errors import EgressError
from segue.http.heads import Line, ReplyHead, RequestHead
from segue.http.routes import parse_target
from tests.egress.asking import fetch, request, to, until, whole
from tests.egress.provider import Provider, answer
from tests.strategies import examples


async def test_the_provider_gets_the_bytes_of_the_agent(egress: Egress) -> None:
    """Method, target, lines with their case, order and duplicates, body; of this hop are Host and Content-Length."""
    lines = [
        (b"x-api-KEY", b"k"),
        (b"Accept", b"a"),
        (b"X-Two", b"1"),
        (b"accept", b"b, c"),
        (b"x-two", b"2"),
        (b"X-Two", b"1"),
        (b"X-Empty", b""),
        (b"User-Agent", b'odd\xe4 "; agent/1.0  x'),
        (b"Cookie", b"a=b"),
        (b"Cookie", b"c=d"),
    ]
    target = b"/v1/m%6fdels//%7e?x=%7E&&key=a+b%20c=#"[:-1]
    async with Provider([answer(b"ok")]) as provider:
        reply = await egress.open(to(provider, target), request(lines, method=b"POST"), b'{"a": "\xc3\xa4"}\n')
        assert await whole(reply) == b"ok"
        sent = b"".join(b"%s: %s\r\n" % line for line in lines)
        assert bytes(provider.connections[0].received) == (
            b"POST " + target + b" HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n" % provider.port + sent
            + b'Content-Length: 12\r\n\r\n{"a": "\xc3\xa4"}\n'
        )  # fmt: skip


@pytest.mark.parametrize(
    ("method", "body", "framing"),
    [
        (b"GET", None, []),
        (b"HEAD", None, []),
        (b"POST", None, []),
        (b"POST", b"", [b"Content-Length: 0"]),
        (b"GET", b"", [b"Content-Length: 0"]),
        (b"DELETE", b"x", [b"Content-Length: 1"]),
        (b"PROPFIND", b"x" * 70_000, [b"Content-Length: 70000"]),
        (b"get", None, []),
    ],
)
async def test_a_body_has_a_length_and_no_body_has_none(
    egress: Egress, method: bytes, body: bytes | None, framing: list[bytes]
) -> None:
    """Whatever the method."""
    async with Provider([answer()]) as provider:
        await fetch(egress, provider, body, request(method=method))
        got = provider.requests[0]
        assert (got.method, got.body, got.lines[1:]) == (method, body, framing)


async def test_lines_of_one_hop_are_not_sent(egress: Egress) -> None:
    """Even if they were given: two lengths would be two requests."""
    lines = [
        (b"Host", b"evil.example"),
        (b"Connection", b"keep-alive, X-Private"),
        (b"X-Private", b"1"),
        (b"Content-Length", b"0"),
        (b"Transfer-Encoding", b"chunked"),
        (b"Expect", b"100-continue"),
        (b"TE", b"trailers"),
        (b"Proxy-Authorization", b"x"),
        (b"Upgrade", b"h2c"),
        (b"X-Kept", b"1"),
    ]
    async with Provider([answer()]) as provider:
        await fetch(egress, provider, b"abc", request(lines))
        host = b"Host: 127.0.0.1:%d" % provider.port
        assert provider.requests[0].lines == [host, b"X-Kept: 1", b"Content-Length: 3"]


@settings(max_examples=examples(100))
@given(
    lines=st.lists(
        st.tuples(st.from_regex(rb"X-[!#$%&'*+.^_`|~0-9A-Za-z-]{1,8}", fullmatch=True),
        st.from_regex(rb"([!-~\x80-\xff]([ \t!-~\x80-\xff]{0,20}[!-~\x80-\xff])?)?", fullmatch=True)),
        max_size=20,
    ),
    target=st.from_regex(rb"/[!-\"$-~]{0,40}", fullmatch=True),
    body=st.none() | st.binary(max_size=200),
)  # fmt: skip
async def test_any_head_and_body_arrive_as_they_are(
    lines: list[tuple[bytes, bytes]], target: bytes, body: bytes | None
) -> None:
    """Byte for byte."""
    async with Egress() as egress, Provider([answer()]) as provider:
        await whole(await egress.open(to(provider, target), request(lines), body))
        got = provider.requests[0]
        length = [] if body is None else [b"Content-Length: %d" % len(body)]
        assert got.head.split(b"\r\n", 1)[0] == b"POST " + target + b" HTTP/1.1"
        assert got.lines[1:] == [b"%s: %s" % line for line in lines] + length
        assert got.body == body


@pytest.mark.parametrize(
    "asked",
    [
        request([(b"X", b"a\r\nEvil: 1")]),
        request([(b"X\r\nEvil", b"1")]),
        request([(b"X", b"a\0")]),
        request([(b"X Y", b"1")]),
        request([(b"", b"1")]),
        request(method=b"GET /evil HTTP/1.1\r\nX:"),
        request(method=b""),
        request(method=b"CONNECT"),
    ],
)
async def test_what_would_be_another_request_is_not_sent(egress: Egress, asked: RequestHead) -> None:
    """No connection is opened for it."""
    async with Provider() as provider:
        with pytest.raises(EgressError) as caught:
            await egress.open(to(provider), asked, b"")
        assert (caught.value.code, caught.value.sent) == ("invalid_request", False)
        with pytest.raises(EgressError) as caught:
            await egress.connect(to(provider), asked)
        assert (caught.value.code, caught.value.sent) == ("invalid_request", False)
        assert provider.connections == []


async def test_a_large_body_arrives_whole(egress: Egress) -> None:
    """20 MB and a bit."""
    body = os.urandom(20_000_003)
    async with Provider([answer()]) as provider:
        await fetch(egress, provider, body)
        assert provider.requests[0].body == body


async def test_redirects_are_passed_back(egress: Egress) -> None:
    """Nobody goes elsewhere with the agent's credentials."""
    moved = answer(status=307, lines=[b"Location: http://evil.example/"], reason=b"Temporary Redirect")
    async with Provider([moved]) as provider:
        got, body = await fetch(egress, provider)
        assert got == ReplyHead(307, b"Temporary Redirect", (Line(b"Location", b"http://evil.example/"),))
        assert body == b""
        assert len(provider.requests) == 1


async def test_proxies_of_the_environment_are_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor are cookies kept."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    async with Egress() as egress, Provider([answer(lines=[b"Set-Cookie: a=b"]), answer()]) as provider:
        await fetch(egress, provider)
        await fetch(egress, provider)
        assert provider.requests[1].values(b"cookie") == []


async def test_a_probe_connects_and_sends_nothing(egress: Egress) -> None:
    async with Provider([]) as provider:
        target = parse_target(provider.url)
        await egress.probe(target, wait_s=20.0)
        await until(lambda: len(provider.connections) == 1)
        await provider.connections[0].closed.wait()
        assert bytes(provider.connections[0].received) == b""
    with pytest.raises(EgressError, match=r"127\.0\.0\.1:\d+ cannot be reached") as caught:
        await egress.probe(target, wait_s=20.0)
    assert not caught.value.sent
