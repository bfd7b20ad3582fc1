"""The listener over real sockets."""

from __future__ import annotations

import asyncio

from segue.delta.heads import Line, ReplyHead, RequestHead
from segue.sidecar.request import Request
from tests.sidecar.agents import listening

OK = ReplyHead(200, b"OK", (Line(b"content-TYPE", b"text/plain"),))


async def echo(request: Request) -> None:
    await request.start(OK)
    await request.send(request.body or b"nothing")
    await request.end()


async def test_a_request_head_arrives_byte_for_byte() -> None:
    heads: list[RequestHead] = []

    async def handler(request: Request) -> None:
        heads.append(request.head)
        await echo(request)

    head = (
        b"PoST /v1/m%6fdels/%2e%2e/a%2Fb?x=%7e&key=%zz HTTP/1.1\r\n"
        b"HOST: localhost:1\r\nx-B: 2\r\nX-a:1\r\nx-B:   3  \r\nX-Empty:\r\nX-Obs: \xe9\tz\r\n"
        b"Connection: keep-alive, X-Mine\r\nx-mine: no\r\nTE: trailers\r\nContent-Length: 2\r\n\r\nhi"
    )
    async with listening(handler) as server:
        agent = await server.connect()
        await agent.send(head)
        assert await agent.head() == (
            b"HTTP/1.1 200 OK\r\ncontent-TYPE: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        assert await agent.until(b"0\r\n\r\n") == b"2\r\nhi\r\n0\r\n\r\n"
    lines = (
        Line(b"x-B", b"2"),
        Line(b"X-a", b"1"),
        Line(b"x-B", b"3"),
        Line(b"X-Empty", b""),
        Line(b"X-Obs", b"\xe9\tz"),
    )
    assert heads == [RequestHead(b"PoST", b"/v1/m%6fdels/%2e%2e/a%2Fb?x=%7e&key=%zz", lines)]


async def test_pipelined_requests_are_answered_in_order() -> None:
    async def handler(request: Request) -> None:
        await request.start(ReplyHead(200, b"OK", (Line(b"Content-Length", b"%d" % len(request.head.target)),)))
        await request.send(request.head.target)
        await request.end()

    async with listening(handler) as server:
        agent = await server.connect()
        await agent.send(b"".join(b"GET /%d HTTP/1.1\r\nHost: localhost\r\n\r\n" % number for number in range(5)))
        for number in range(5):
            assert await agent.head() == b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"
            assert await agent.exactly(2) == b"/%d" % number


async def test_a_hang_up_is_noticed_while_the_reply_is_awaited() -> None:
    noticed = asyncio.Event()

    async def handler(request: Request) -> None:
        await request.gone.wait()
        noticed.set()
        request.abort()

    async with listening(handler) as server:
        agent = await server.connect()
        await agent.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        agent.hang_up()
        await noticed.wait()
