"""The way out: what is on the provider's socket, what comes back, and what is said when something goes wrong."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from pathlib import Path

import httpcore
import pytest
import trustme
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.delta.heads import Line, ReplyHead, RequestHead
from segue.egress.client import Egress
from segue.egress.errors import EgressError
from segue.egress.limits import Limits
from segue.egress.network import client_tls
from segue.egress.reply import Reply
from segue.egress.routes import SELF, Resolved, parse_target
from tests.egress.provider import CLOSE, HANG, RESET, Connection, Provider, Step, answer, chunk, chunked, cut, head, sse

LIMITS = Limits(connect_s=5.0)


@pytest.fixture
async def egress() -> AsyncIterator[Egress]:
    async with Egress(limits=LIMITS) as egress:
        yield egress


def to(provider: Provider, path: bytes = b"/v1/messages") -> Resolved:
    return Resolved(target=parse_target(provider.url), path=path)


def request(
    lines: Iterable[tuple[bytes, bytes]] = (), *, method: bytes = b"POST", target: bytes = b"/p/v1/messages"
) -> RequestHead:
    return RequestHead(method, target, tuple(Line(name, value) for name, value in lines))


async def whole(reply: Reply) -> bytes:
    return b"".join([piece async for piece in reply.chunks()])


async def fetch(
    egress: Egress, provider: Provider, body: bytes | None = b"{}", asked: RequestHead | None = None
) -> tuple[ReplyHead, bytes]:
    reply = await egress.open(to(provider), asked or request(), body)
    return reply.head, await whole(reply)


async def error_of(egress: Egress, resolved: Resolved, body: bytes | None = b"{}") -> EgressError:
    with pytest.raises(EgressError) as caught:
        await egress.open(resolved, request([(b"Authorization", b"Bearer hunter2")]), body)
    assert "hunter2" not in caught.value.message
    assert "secret" not in caught.value.message
    return caught.value


# --------------------------------------------------------------------------------------------- on the provider's socket


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


@settings(max_examples=100)
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
    ],
)
async def test_what_would_be_another_request_is_not_sent(egress: Egress, asked: RequestHead) -> None:
    """Not one byte of it."""
    async with Provider() as provider:
        with pytest.raises(EgressError) as caught:
            await egress.open(to(provider), asked, b"")
        assert (caught.value.code, caught.value.sent) == ("invalid_request", False)
        assert all(not connection.received for connection in provider.connections)


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


# ------------------------------------------------------------------------------------------------------------ answers


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


@pytest.mark.parametrize(
    ("method", "status"), [(b"HEAD", 200), (b"HEAD", 404), (b"GET", 204), (b"GET", 304), (b"POST", 204)]
)
async def test_an_answer_without_content_keeps_what_it_says_of_it(egress: Egress, method: bytes, status: int) -> None:
    """And its connection serves the next request."""
    lines = [b"Content-Encoding: gzip", b"Content-Length: 123"]
    async with Provider([head(status, lines), answer(b"next")]) as provider:
        got, body = await fetch(egress, provider, None, request(method=method))
        assert got.lines == (Line(b"Content-Encoding", b"gzip"), Line(b"Content-Length", b"123"))
        assert body == b""
        assert (await fetch(egress, provider))[1] == b"next"
        assert len(provider.connections) == 1


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


# --------------------------------------------------------------------------------------------------- kept connections


async def test_a_connection_read_to_its_end_is_used_again(egress: Egress) -> None:
    """One after the other; at once there are two."""
    gate = asyncio.Event()
    async with Provider([answer(b"1"), answer(b"2"), [gate, answer(b"3")], answer(b"4")]) as provider:
        await fetch(egress, provider)
        await fetch(egress, provider)
        assert len(provider.connections) == 1
        provider.asked.clear()
        third = asyncio.ensure_future(fetch(egress, provider))
        await provider.asked.wait()
        assert (await fetch(egress, provider))[1] == b"4"
        gate.set()
        assert (await third)[1] == b"3"
        assert len(provider.connections) == 2


@pytest.mark.parametrize("how", [CLOSE, RESET])
async def test_a_connection_that_died_while_it_was_kept_is_not_used(egress: Egress, how: Step) -> None:
    """The request goes out once, on a new one."""
    async with Provider([[answer(b"1"), how], answer(b"2")]) as provider:
        await fetch(egress, provider)
        await provider.connections[0].closed.wait()
        assert (await fetch(egress, provider))[1] == b"2"
        assert len(provider.requests) == 2
        assert len(provider.connections) == 2


async def test_what_comes_unasked_is_not_taken_for_an_answer(egress: Egress) -> None:
    """Some servers say 408 before they close an idle connection."""
    async with Provider([[answer(b"1"), answer(b"unasked", status=408)], answer(b"2")]) as provider:
        await fetch(egress, provider)
        await until(lambda: provider.connections[0].sent_bytes > len(answer(b"1")))
        assert (await fetch(egress, provider))[1] == b"2"


async def until(holds: Callable[[], bool]) -> None:
    """Let the loop run until something is so."""
    while not holds():  # noqa: ASYNC110 - what is waited for sets no event
        await asyncio.sleep(0)


@pytest.mark.parametrize("how", [CLOSE, RESET])
@pytest.mark.parametrize("kept", [False, True])
async def test_a_request_is_never_sent_twice(egress: Egress, how: Step, kept: bool) -> None:
    """Once it went out, on a kept connection or a new one, nobody knows what it did."""
    first = [answer(b"1")] if kept else []
    async with Provider([*first, [how]]) as provider:
        for _ in first:
            await fetch(egress, provider)
        error = await error_of(egress, to(provider, b"/x?key=secret"))
        assert (error.code, error.sent) == ("upstream_closed", True)
        assert f"127.0.0.1:{provider.port} closed the connection before it answered" in error.message
        assert len(provider.requests) == len(first) + 1
        assert len(provider.connections) == 1


async def test_closing_an_answer_early_closes_its_connection(egress: Egress) -> None:
    """So that the provider stops making it."""
    async with Provider([[*sse([b"1"])[:2], HANG], answer(b"next")]) as provider:
        reply = await egress.open(to(provider), request(), b"{}")
        assert await reply.read() == b"data: 1\n\n"
        await reply.aclose()
        await provider.connections[0].closed.wait()
        with pytest.raises(EgressError):
            await reply.read()
        await reply.aclose()
        assert (await fetch(egress, provider))[1] == b"next"


async def test_closing_an_answer_that_somebody_reads_wakes_him(egress: Egress) -> None:
    """With an error: it did not end."""
    async with Provider([[head(200), HANG]]) as provider:
        reply = await egress.open(to(provider), request(), b"{}")
        reader = asyncio.ensure_future(reply.read())
        await asyncio.sleep(0)
        await reply.aclose()
        with pytest.raises(EgressError):
            await reader
        await provider.connections[0].closed.wait()


@pytest.mark.parametrize("has_head", [False, True])
async def test_a_cancelled_request_closes_its_connection(egress: Egress, has_head: bool) -> None:
    """That is how an agent hangs up."""
    async with Provider([[head(200) if has_head else b"", HANG]]) as provider:
        task = asyncio.ensure_future(fetch(egress, provider))
        await provider.asked.wait()
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        if has_head:
            await egress.aclose()
        await provider.connections[0].closed.wait()


async def test_more_requests_than_allowed_wait_for_their_turn() -> None:
    """And not for ever."""
    gate = asyncio.Event()
    limits = Limits(connect_s=5.0, requests=2)
    async with Egress(limits=limits) as egress, Provider(lambda _: [gate, answer(b"x")]) as provider:
        tasks = [asyncio.ensure_future(fetch(egress, provider)) for _ in range(5)]
        await until(lambda: len(provider.requests) == 2)
        for _ in range(50):
            await asyncio.sleep(0)
        assert len(provider.requests) == 2
        tasks.pop().cancel()
        gate.set()
        assert [body for _, body in await asyncio.gather(*tasks)] == [b"x"] * 4
        assert len(provider.connections) <= 2
    async with Egress(limits=Limits(connect_s=0.02, requests=1)) as egress, Provider([[HANG]]) as provider:
        first = asyncio.ensure_future(fetch(egress, provider))
        await provider.asked.wait()
        error = await error_of(egress, to(provider))
        assert (error.code, error.sent) == ("upstream_busy", False)
        first.cancel()


async def test_a_hundred_requests_run_at_once(egress: Egress) -> None:
    """None waits for another."""
    everybody = asyncio.Barrier(101)

    async def together(_: Connection) -> None:
        await everybody.wait()

    async with Provider(lambda asked: [together, answer(asked.body or b"")]) as provider:
        bodies = [b"%d" % number for number in range(100)]
        tasks = [asyncio.ensure_future(fetch(egress, provider, body)) for body in bodies]
        await everybody.wait()
        assert [body for _, body in await asyncio.gather(*tasks)] == bodies


# ------------------------------------------------------------------------------------------------------------ failures


async def test_a_port_where_nobody_listens_is_said(egress: Egress) -> None:
    """With nothing sent."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        error = await error_of(egress, Resolved(target=parse_target(f"http://127.0.0.1:{port}"), path=b"/?k=secret"))
    assert (error.code, error.sent) == ("upstream_unreachable", False)
    assert error.message == f"127.0.0.1:{port} cannot be reached: it refuses connections; is it running, at this port?"


async def test_a_name_that_does_not_exist_is_said(egress: Egress) -> None:
    """The top-level domain is reserved for this (RFC 6761, 6.4)."""
    error = await error_of(egress, Resolved(target=parse_target("http://nowhere.invalid"), path=b"/"))
    assert (error.code, error.sent) == ("upstream_unreachable", False)
    assert error.message.startswith("nowhere.invalid cannot be reached: its name cannot be resolved")


class Silent(httpcore.AsyncNetworkBackend):
    """A network in which no connection comes about."""

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - the interface is httpcore's
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        raise httpcore.ConnectTimeout(f"after {timeout}")


async def test_a_machine_that_does_not_answer_is_said() -> None:
    """With nothing sent."""
    async with Egress(network=Silent()) as egress:
        error = await error_of(egress, Resolved(target=parse_target("http://t.example"), path=b"/"))
        assert (error.code, error.sent) == ("upstream_timeout", False)
        assert "t.example accepts no connection" in error.message


async def test_a_provider_that_hangs_is_waited_for_as_long_as_allowed() -> None:
    """By default for ever."""
    async with Egress(limits=Limits(silence_s=0.05)) as egress, Provider([[HANG], [head(200), HANG]]) as provider:
        error = await error_of(egress, to(provider))
        assert (error.code, error.sent) == ("upstream_timeout", True)
        reply = await egress.open(to(provider), request(), b"")
        with pytest.raises(EgressError) as caught:
            await reply.read()
        assert caught.value.code == "upstream_timeout"
        await provider.connections[1].closed.wait()


@pytest.mark.parametrize(
    "raw",
    [
        b"SSH-2.0-OpenSSH_9.0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        b"HTTP/2 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000,
    ],
)
async def test_an_answer_that_is_no_http_is_said(egress: Egress, raw: bytes) -> None:
    """Without a word of it."""
    async with Provider([[raw, HANG]]) as provider:
        error = await error_of(egress, to(provider))
        assert (error.code, error.sent) == ("upstream_protocol_error", True)
        assert error.message == f"127.0.0.1:{provider.port} does not answer in correct HTTP/1.1"
        await provider.connections[0].closed.wait()


@pytest.mark.parametrize("how", [CLOSE, RESET])
@pytest.mark.parametrize(
    "raw", [answer(b"x" * 30), chunked([b"x" * 10, b"y" * 10, b"z" * 10])], ids=["length", "chunks"]
)
async def test_a_truncated_answer_is_never_taken_for_a_whole_one(egress: Egress, raw: bytes, how: Step) -> None:
    """Wherever it is cut; what came before the cut is given out, unless a reset dropped it."""
    begin = raw.index(b"\r\n\r\n") + 4
    everything = b"x" * 30 if raw.endswith(b"x") else b"x" * 10 + b"y" * 10 + b"z" * 10
    cuts = range(begin, len(raw))
    async with Provider([cut(raw, at, how) for at in cuts]) as provider:
        for _ in cuts:
            try:
                reply = await egress.open(to(provider), request(), b"{}")
            except EgressError as error:
                assert (how, error.code) == (RESET, "upstream_closed")  # noqa: PT017 - a reset may overtake the head
                continue
            got = bytearray()
            with pytest.raises(EgressError) as caught:
                await read_into(got, reply)
            assert (caught.value.code, caught.value.sent) == ("upstream_truncated", True)
            assert everything.startswith(got)
            with pytest.raises(EgressError):
                await reply.read()


async def read_into(got: bytearray, reply: Reply) -> None:
    async for piece in reply.chunks():
        got += piece


async def test_a_head_that_is_cut_off_is_no_answer(egress: Egress) -> None:
    """At any byte."""
    raw = head(200, [b"Content-Length: 0"])
    cuts = range(1, len(raw))
    async with Provider([cut(raw, at) for at in cuts]) as provider:
        for _ in cuts:
            error = await error_of(egress, to(provider))
            assert error.code in {"upstream_protocol_error", "upstream_closed"}
            assert error.sent


async def test_a_broken_chunk_is_a_broken_answer(egress: Egress) -> None:
    """As if it had been cut."""
    raw = head(200, [b"Transfer-Encoding: chunked"]) + chunk(b"ok") + b"no number\r\n"
    async with Provider([[raw, HANG]]) as provider:
        reply = await egress.open(to(provider), request(), b"{}")
        assert await reply.read() == b"ok"
        with pytest.raises(EgressError) as caught:
            await reply.read()
        assert caught.value.code == "upstream_truncated"
        await provider.connections[0].closed.wait()


async def test_a_request_whose_body_is_refused_gets_the_refusal(egress: Egress) -> None:
    """A provider may answer and close before it has read all."""

    async def refuse(connection: Connection) -> None:
        await connection.write(answer(b"too large", status=413, lines=[b"Connection: close"]))
        connection.writer.write_eof()
        while await connection.reader.read(65536):
            pass

    async with Early(refuse) as provider:
        got, body = await fetch(egress, provider, b"x" * 3_000_000)
        assert (got.status, body) == (413, b"too large")


class Early(Provider):
    """Answers as soon as there is a head."""

    def __init__(self, play: Callable[[Connection], Awaitable[None]]) -> None:
        super().__init__()
        self._play_early = play

    async def _serve(self, connection: Connection) -> None:
        self.connections.append(connection)
        await connection.read_until(b"\r\n\r\n")
        await self._play_early(connection)
        connection.closed.set()
        connection.writer.close()


async def test_there_may_be_no_own_api(egress: Egress) -> None:
    """As in the sidecar."""
    error = await error_of(egress, Resolved(target=SELF, path=b"/v1/responses"))
    assert (error.code, error.sent) == ("upstream_unreachable", False)


# ----------------------------------------------------------------------------------------------------------------- TLS


@pytest.fixture
def authority(tmp_path: Path) -> tuple[trustme.CA, Path]:
    ca = trustme.CA()
    path = tmp_path / "ca.pem"
    ca.cert_pem.write_to_path(path)
    return ca, path


def server_tls(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    context.set_alpn_protocols(["h2", "http/1.1"])
    return context


async def test_tls_is_spoken_with_a_server_of_an_authority_that_is_known(authority: tuple[trustme.CA, Path]) -> None:
    """HTTP/1.1, whatever else it offers; connections are kept."""
    ca, cafile = authority
    tls = server_tls(ca.issue_cert("127.0.0.1"))
    async with (
        Egress(tls=client_tls(cafile)) as egress,
        Provider([answer(b"1"), chunked([b"2" * 200_000])], tls=tls) as provider,
    ):
        assert (await fetch(egress, provider, b"x" * 1_000_000))[1] == b"1"
        assert (await fetch(egress, provider))[1] == b"2" * 200_000
        assert len(provider.connections) == 1
        assert provider.requests[0].body == b"x" * 1_000_000


@pytest.mark.parametrize(
    ("name", "is_known", "words"),
    [
        ("127.0.0.1", False, "unable to get local issuer certificate"),
        ("other.example", True, "IP address mismatch"),
    ],
)
async def test_a_certificate_that_is_not_accepted_is_said(
    authority: tuple[trustme.CA, Path], name: str, is_known: bool, words: str
) -> None:
    """With what to do; nothing was sent."""
    ca, cafile = authority
    tls = server_tls(ca.issue_cert(name))
    async with Egress(tls=client_tls(cafile if is_known else None)) as egress, Provider(tls=tls) as provider:
        error = await error_of(egress, to(provider))
        assert (error.code, error.sent) == ("upstream_unreachable", False)
        assert "its certificate is not accepted" in error.message
        assert words in error.message
        assert "cafile" in error.message


async def test_a_server_without_tls_is_said(egress: Egress) -> None:
    """A slip in the URL of a target."""

    async def speak(connection: Connection) -> None:
        await connection.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with Greeting(speak) as provider:
        target = parse_target(provider.url.replace("http://", "https://"))
        error = await error_of(egress, Resolved(target=target, path=b"/"))
        assert (error.code, error.sent) == ("upstream_unreachable", False)
        assert "does it speak https at this port?" in error.message


class Greeting(Early):
    """Speaks first."""

    async def _serve(self, connection: Connection) -> None:
        self.connections.append(connection)
        await self._play_early(connection)


async def test_tls_cut_in_an_answer_is_a_truncation(authority: tuple[trustme.CA, Path]) -> None:
    """As without TLS."""
    ca, cafile = authority
    tls = server_tls(ca.issue_cert("127.0.0.1"))
    async with (
        Egress(tls=client_tls(cafile)) as egress,
        Provider([cut(answer(b"x" * 30), 50)], tls=tls) as provider,
    ):
        with pytest.raises(EgressError) as caught:
            await fetch(egress, provider)
        assert caught.value.code == "upstream_truncated"
