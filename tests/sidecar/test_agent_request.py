"""Answers over real sockets: their heads, their framing, and how they are cut."""

from __future__ import annotations

import asyncio
import logging

import pytest

from segue.http.heads import Line, ReplyHead
from segue.sidecar.agent_request import AgentRequest
from tests.sidecar.agents import GET, OK, echo, listening


async def test_http_1_0_is_answered_until_the_end_of_the_connection() -> None:
    async def handler(request: AgentRequest) -> None:
        await request.start(OK)
        await request.send(b"a")
        await request.send(b"b")
        await request.end()

    async with listening(handler) as server:
        answer = await server.ask(b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n")
    assert answer == b"HTTP/1.1 200 OK\r\ncontent-TYPE: text/plain\r\nConnection: close\r\n\r\nab"


async def test_connection_close_is_obeyed() -> None:
    async with listening(echo) as server:
        answer = await server.ask(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    assert answer == b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\nConnection: close\r\n\r\nnothing"


@pytest.mark.parametrize(
    ("method", "status", "lines", "head"),
    [
        (b"HEAD", 200, (Line(b"Content-Length", b"99"),), b"Content-Length: 99\r\n"),
        (b"GET", 304, (Line(b"ETag", b"1"), Line(b"Content-Length", b"99")), b"ETag: 1\r\nContent-Length: 99\r\n"),
        (b"DELETE", 204, (Line(b"Content-Length", b"0"), Line(b"X", b"1")), b"X: 1\r\n"),
    ],
)
async def test_replies_without_a_body_send_none(
    method: bytes, status: int, lines: tuple[Line, ...], head: bytes
) -> None:
    async def handler(request: AgentRequest) -> None:
        await request.start(ReplyHead(status, b"R", lines))
        await request.send(b"dropped")
        await request.end()

    async with listening(handler) as server:
        agent = await server.connect()
        for _ in range(2):
            await agent.send(method + b" / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert await agent.head() == b"HTTP/1.1 %d R\r\n%s\r\n" % (status, head)


async def test_a_reply_head_keeps_its_lines_and_gets_its_own_framing() -> None:
    lines = (
        Line(b"x-B", b"1"),
        Line(b"X-a", b"2"),
        Line(b"x-B", b"3"),
        Line(b"Connection", b"X-Hop, close"),
        Line(b"X-Hop", b"no"),
        Line(b"Transfer-Encoding", b"gzip"),
        Line(b"Content-Length", b"5"),
        Line(b"content-length", b"5"),
        Line(b"Date", b"the provider's"),
        Line(b"X-Obs", b"\xe9"),
    )

    async def handler(request: AgentRequest) -> None:
        await request.start(ReplyHead(529, b"Over\xe9\r\nloaded", lines))
        await request.end()

    async with listening(handler) as server:
        agent = await server.connect()
        await agent.send(GET)
        assert await agent.head() == (
            b"HTTP/1.1 529 \r\nx-B: 1\r\nX-a: 2\r\nx-B: 3\r\nDate: the provider's\r\nX-Obs: \xe9\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        assert await agent.until(b"\r\n\r\n") == b"0\r\n\r\n"


async def test_each_send_leaves_at_once_and_in_one_write() -> None:
    written: list[bytes] = []
    seen = asyncio.Event()
    events = [b"data: %d\n\n" % number for number in range(5)]

    async def handler(request: AgentRequest) -> None:
        await request.start(OK)
        for event in events:
            seen.clear()
            await request.send(event)
            await seen.wait()
        await request.end()

    async with listening(handler) as server:
        agent = await server.connect()
        await agent.send(GET)
        await agent.head()
        for event in events:
            written.append(await agent.reader.read(1000))
            assert written[-1] == b"%x\r\n%s\r\n" % (len(event), event)
            seen.set()
        assert await agent.until(b"\r\n\r\n") == b"0\r\n\r\n"


async def test_a_handler_that_fails_is_an_error_before_the_head_and_a_cut_after_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def handler(request: AgentRequest) -> None:
        if request.head.target == b"/late":
            await request.start(OK)
            await request.send(b"part")
        if request.head.target != b"/forgotten":
            raise LookupError("of the handler")

    async with listening(handler) as server:
        for target in (b"/early", b"/forgotten"):
            agent = await server.connect()
            await agent.send(b"POST %s HTTP/1.1\r\nHost: localhost\r\n\r\n" % target)
            head = await agent.head()
            assert head.startswith(b"HTTP/1.1 424 ")
            assert b"\r\nx-should-retry: false\r\n" in head  # it may have been forwarded before that
            assert b'"code":"segue_internal_error"' in await agent.until(b"}}")
        late = await server.ask(b"GET /late HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert late.endswith(b"\r\n\r\n4\r\npart\r\n")  # without the last chunk
    assert [record.levelno for record in caplog.records] == [logging.ERROR] * 3


async def test_a_cut_reply_cannot_be_taken_for_a_whole_one() -> None:
    async def handler(request: AgentRequest) -> None:
        await request.start(OK if request.head.target == b"/chunked" else ReplyHead(200, b"OK", (SIX,)))
        await request.send(b"part")
        request.abort()
        request.abort()
        with pytest.raises(RuntimeError):
            await request.send(b"more")

    SIX = Line(b"Content-Length", b"6")  # noqa: N806 - a constant of this test
    async with listening(handler) as server:
        chunked = await server.ask(b"GET /chunked HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert chunked.endswith(b"\r\n\r\n4\r\npart\r\n")
        assert (await server.ask(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")).endswith(b"\r\n\r\npart")


async def test_a_cut_reply_that_ends_with_its_connection_ends_in_an_error() -> None:
    async def handler(request: AgentRequest) -> None:
        await request.start(OK)
        await request.send(b"part")
        request.abort()

    async with listening(handler) as server:
        with pytest.raises(ConnectionResetError):
            await server.ask(b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n")


async def test_an_aborted_wait_is_a_connection_without_an_answer() -> None:
    async def handler(request: AgentRequest) -> None:
        request.abort()

    async with listening(handler) as server:
        assert await server.ask(GET) == b""


async def test_what_is_answered_wrongly_is_an_error_of_the_handler() -> None:
    problems: list[str] = []

    async def handler(request: AgentRequest) -> None:
        for wrong in (request.send(b"x"), request.end(), request.receive(), request.close(1000), request.accept(OK)):
            with pytest.raises(RuntimeError) as raised:
                await wrong
            problems.append(str(raised.value))
        with pytest.raises(ValueError, match="103"):
            await request.start(ReplyHead(103, b"", ()))
        await echo(request)
        with pytest.raises(RuntimeError):
            await request.end()

    async with listening(handler) as server:
        agent = await server.connect()
        await agent.send(GET)
        assert (await agent.until(b"nothing")).startswith(b"HTTP/1.1 200 ")
    assert len(problems) == 5


async def test_a_reply_head_that_cannot_be_sent_is_an_error_of_ours(caplog: pytest.LogCaptureFixture) -> None:
    async def handler(request: AgentRequest) -> None:
        await request.start(ReplyHead(200, b"OK", (Line(b"X", b"a\r\nSet-Cookie: b"),)))

    async with listening(handler) as server:
        agent = await server.connect()
        await agent.send(GET)
        assert (await agent.head()).startswith(b"HTTP/1.1 500 ")
