"""The listener over real sockets."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.delta.heads import Line, ReplyHead, RequestHead
from segue.sidecar.listener import Limits
from segue.sidecar.request import Request
from segue.sidecar.wire import AgentGone
from tests.sidecar.agents import Listening, RawAgent, listening

OK = ReplyHead(200, b"OK", (Line(b"content-TYPE", b"text/plain"),))
GET = b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n"
POST = b"POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello"


def sized(body: bytes) -> ReplyHead:
    return ReplyHead(200, b"OK", (Line(b"Content-Length", b"%d" % len(body)),))


async def echo(request: Request) -> None:
    body = request.body or b"nothing"
    await request.start(sized(body))
    await request.send(body)
    await request.end()


def error(answer: bytes) -> tuple[int, str]:
    """The status and code of a failure, which must be the connection's last reply."""
    head, _, body = answer.partition(b"\r\n\r\n")
    told = json.loads(body)
    assert set(told) == {"type", "error"}
    assert set(told["error"]) == {"type", "code", "message"}
    assert b"Connection: close" in head
    return int(head.split()[1]), told["error"]["code"]


# --------------------------------------------------------------------------------------------------- requests and heads


async def test_a_request_head_arrives_byte_for_byte() -> None:
    heads: list[RequestHead] = []

    async def handler(request: Request) -> None:
        heads.append(request.head)
        await request.start(OK)
        await request.send(request.body or b"")
        await request.end()

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


@settings(max_examples=30)
@given(st.lists(st.integers(1, 400), max_size=8))
def test_any_cuts_on_the_socket_give_the_same_request(cuts: list[int]) -> None:
    body = bytes(range(256))
    data = b"POST /x HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    data += b"80\r\n" + body[:128] + b"\r\n80\r\n" + body[128:] + b"\r\n0\r\n\r\n"
    seen: list[bytes | None] = []

    async def handler(request: Request) -> None:
        seen.append(request.body)
        await echo(request)

    async def run() -> None:
        async with listening(handler) as server:
            agent = await server.connect()
            start = 0
            for end in [*sorted(cuts), len(data)]:
                await agent.send(data[start:end])
                await asyncio.sleep(0)  # lets the listener see the pieces apart; the result is the same if it does not
                start = max(start, end)
            await agent.head()
            assert await agent.exactly(256) == body

    asyncio.run(run())
    assert seen == [body]


async def test_pipelined_requests_are_answered_in_order() -> None:
    async def handler(request: Request) -> None:
        await asyncio.sleep(0)
        await request.start(sized(request.head.target))
        await request.send(request.head.target)
        await request.end()

    async with listening(handler) as server:
        agent = await server.connect()
        await agent.send(b"".join(b"GET /%d HTTP/1.1\r\nHost: localhost\r\n\r\n" % number for number in range(5)))
        for number in range(5):
            assert await agent.head() == b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"
            assert await agent.exactly(2) == b"/%d" % number


async def test_a_body_is_awaited_only_after_100_continue() -> None:
    async with listening(echo) as server:
        agent = await server.connect()
        await agent.send(b"POST / HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
        assert await agent.head() == b"HTTP/1.1 100 \r\n\r\n"
        await agent.send(b"abc")
        assert await agent.head() == b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n"
        assert await agent.exactly(3) == b"abc"


async def test_a_body_of_64_mib_arrives() -> None:
    body = bytes(range(256)) * (4 * 1024 * 64)
    seen: list[bytes | None] = []

    async def handler(request: Request) -> None:
        seen.append(request.body)
        await request.start(ReplyHead(204, b"No Content", ()))
        await request.end()

    async with listening(handler) as server:
        agent = await server.connect()
        await agent.send(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        assert await agent.head() == b"HTTP/1.1 204 No Content\r\n\r\n"
    assert seen == [body]


async def test_http_1_0_is_answered_until_the_end_of_the_connection() -> None:
    async def handler(request: Request) -> None:
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
    async def handler(request: Request) -> None:
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

    async def handler(request: Request) -> None:
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


# --------------------------------------------------------------------------------------------------------------- limits


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 101\r\n\r\n", (413, "request_too_large")),
        (
            b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n65\r\n" + b"x" * 101,
            (413, "request_too_large"),
        ),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"y" * 2000, (431, "request_head_too_large")),
        (b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n", (403, "forbidden_host")),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nOrigin: https://evil.example\r\n\r\n", (403, "forbidden_origin")),
        (b"GET http://localhost/ HTTP/1.1\r\nHost: localhost\r\n\r\n", (400, "invalid_request")),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", (505, "unsupported_http_version")),
        (
            b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gzip\r\n\r\n",
            (501, "unsupported_transfer_encoding"),
        ),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", (400, "invalid_request")),
    ],
)
async def test_what_is_refused_never_reaches_the_handler(data: bytes, expected: tuple[int, str]) -> None:
    async def handler(request: Request) -> None:
        raise AssertionError("the handler was called")

    async with listening(handler, limits=Limits(max_body_bytes=100, max_head_bytes=1000)) as server:
        assert error(await server.ask(data)) == expected


async def test_a_refusal_reaches_an_agent_that_goes_on_sending() -> None:
    async with listening(echo, limits=Limits(max_body_bytes=100)) as server:
        agent = await server.connect()
        head = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2000000\r\n\r\n"
        await agent.send(head + b"x" * 1_000_000)
        await agent.send(b"x" * 1_000_000)
        assert error(await agent.rest()) == (413, "request_too_large")


async def test_a_slow_head_is_given_up() -> None:
    async with listening(echo, limits=Limits(head_s=0.05)) as server:
        assert error(await server.ask(b"GET / HTTP/1.1\r\nHost: local")) == (408, "request_timeout")


async def test_a_body_that_stops_is_given_up() -> None:
    async with listening(echo, limits=Limits(body_s=0.05)) as server:
        data = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nhalf"
        assert error(await server.ask(data)) == (408, "request_timeout")


async def test_an_idle_connection_is_closed_without_a_word() -> None:
    async with listening(echo, limits=Limits(idle_s=0.05)) as server:
        agent = await server.connect()
        await agent.send(GET)
        assert (await agent.rest()).endswith(b"nothing")
        assert await server.ask(b"") == b""


async def test_bodies_share_one_budget_and_give_it_back() -> None:
    gate = asyncio.Event()
    inside = asyncio.Event()

    async def handler(request: Request) -> None:
        inside.set()
        await gate.wait()
        await echo(request)

    async with listening(handler, limits=Limits(max_held_bytes=8)) as server:
        first = await server.connect()
        await first.send(POST)
        await inside.wait()
        assert error(await server.ask(POST)) == (503, "segue_overloaded")
        gate.set()
        assert await first.until(b"hello") == b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
        await first.send(POST)
        assert await first.until(b"hello") == b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


async def test_too_many_connections_are_told_so_and_idle_ones_make_room() -> None:
    gate = asyncio.Event()
    inside = asyncio.Semaphore(0)

    async def handler(request: Request) -> None:
        inside.release()
        await gate.wait()
        await echo(request)

    async with listening(handler, limits=Limits(max_connections=2, linger_s=0.05)) as server:
        idle = await server.connect()
        first, second = await server.connect(), await server.connect()
        await first.send(GET)
        await inside.acquire()
        assert await idle.rest() == b""  # it made room for the third
        await second.send(GET)
        await inside.acquire()
        assert error(await server.ask(b"")) == (503, "segue_overloaded")
        gate.set()
        for agent in (first, second):
            assert (await agent.until(b"nothing")).startswith(b"HTTP/1.1 200 ")


# -------------------------------------------------------------------------------------------------------------- replies


async def test_each_send_leaves_at_once_and_in_one_write() -> None:
    written: list[bytes] = []
    seen = asyncio.Event()
    events = [b"data: %d\n\n" % number for number in range(5)]

    async def handler(request: Request) -> None:
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


async def test_a_slow_reader_holds_back_its_own_sender_only() -> None:
    piece = b"x" * 65536
    sent = 0
    stalled = asyncio.Event()

    async def handler(request: Request) -> None:
        nonlocal sent
        if request.head.target == b"/other":
            await echo(request)
            return
        await request.start(OK)
        for _ in range(500):
            task = asyncio.ensure_future(request.send(piece))
            done, _ = await asyncio.wait([task], timeout=0.2)
            if not done:
                stalled.set()
            await task
            sent += len(piece)
        await request.end()

    async with listening(handler) as server:
        slow = await server.connect(receive_buffer=4096)
        await slow.send(GET)
        await stalled.wait()
        assert sent < 16 * 1024 * 1024  # what the kernel's buffers hold, and no more
        other = await server.connect()
        await other.send(b"GET /other HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await other.until(b"nothing")).startswith(b"HTTP/1.1 200 ")
        await slow.head()
        body = 0
        while (chunk := await slow.until(b"\r\n")) != b"0\r\n":
            size = int(chunk, 16)
            await slow.exactly(size + 2)
            body += size
        assert body == 500 * len(piece)


async def test_a_handler_that_fails_is_a_500_before_the_head_and_a_cut_after_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def handler(request: Request) -> None:
        if request.head.target == b"/late":
            await request.start(OK)
            await request.send(b"part")
        if request.head.target != b"/forgotten":
            raise LookupError("of the handler")

    async with listening(handler) as server:
        for target in (b"/early", b"/forgotten"):
            agent = await server.connect()
            await agent.send(b"GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n" % target)
            assert (await agent.head()).startswith(b"HTTP/1.1 500 ")
            assert b'"code":"segue_internal_error"' in await agent.until(b"}}")
        late = await server.ask(b"GET /late HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert late.endswith(b"\r\n\r\n4\r\npart\r\n")  # without the last chunk
    assert [record.levelno for record in caplog.records] == [logging.ERROR] * 3


async def test_a_cut_reply_cannot_be_taken_for_a_whole_one() -> None:
    async def handler(request: Request) -> None:
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
    async def handler(request: Request) -> None:
        await request.start(OK)
        await request.send(b"part")
        request.abort()

    async with listening(handler) as server:
        with pytest.raises(ConnectionResetError):
            await server.ask(b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n")


async def test_an_aborted_wait_is_a_connection_without_an_answer() -> None:
    async def handler(request: Request) -> None:
        request.abort()

    async with listening(handler) as server:
        assert await server.ask(GET) == b""


async def test_what_is_answered_wrongly_is_an_error_of_the_handler() -> None:
    problems: list[str] = []

    async def handler(request: Request) -> None:
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


# ------------------------------------------------------------------------------------------------------- agents that go


@pytest.mark.parametrize("leave", [RawAgent.hang_up, RawAgent.reset], ids=["hang up", "reset"])
@pytest.mark.parametrize("phase", ["wait", "stream"])
async def test_a_hang_up_is_noticed_at_once(leave: Callable[[RawAgent], None], phase: str) -> None:
    noticed = asyncio.Event()
    begun = asyncio.Event()

    async def handler(request: Request) -> None:
        if phase == "stream":
            await request.start(OK)
            await request.send(b"x")
        begun.set()
        await request.gone.wait()
        with pytest.raises(AgentGone):
            await (request.send(b"y") if phase == "stream" else request.start(OK))
        noticed.set()
        raise AgentGone

    async with listening(handler) as server:
        agent = await server.connect()
        await agent.send(POST)
        await begun.wait()
        leave(agent)
        await noticed.wait()


async def test_a_shut_down_of_the_sending_half_is_a_hang_up() -> None:
    noticed = asyncio.Event()

    async def handler(request: Request) -> None:
        await request.gone.wait()
        noticed.set()
        request.abort()

    async with listening(handler) as server:
        agent = await server.connect()
        await agent.send(POST)
        agent.writer.write_eof()
        await noticed.wait()
        assert await agent.rest() == b""


@pytest.mark.parametrize("data", [b"", b"GET / HT", POST[:-1], b"POST / HTTP/1.1\r\nHost: localhost\r\n"])
async def test_half_a_request_is_nothing(data: bytes) -> None:
    async def handler(request: Request) -> None:
        raise AssertionError("the handler was called")

    async with listening(handler) as server:
        agent = await server.connect()
        await agent.send(data)
        agent.writer.write_eof()
        assert await agent.rest() == b""


async def test_an_agent_that_hangs_up_under_backpressure_frees_its_sender() -> None:
    freed = asyncio.Event()

    async def handler(request: Request) -> None:
        await request.start(OK)
        try:
            while True:
                await request.send(b"x" * 65536)
        except AgentGone:
            freed.set()
            raise

    async with listening(handler) as server:
        agent = await server.connect(receive_buffer=4096)
        await agent.send(GET)
        await agent.head()
        agent.reset()
        await freed.wait()


async def test_closing_the_listener_cancels_what_is_being_answered() -> None:
    cancelled = asyncio.Event()
    inside = asyncio.Event()

    async def handler(request: Request) -> None:
        inside.set()
        try:
            await request.gone.wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    async with listening(handler) as server:
        agent, idle = await server.connect(), await server.connect()
        await agent.send(GET)
        await inside.wait()
        await server.listener.close()
        assert cancelled.is_set()
        assert await agent.rest() == b""
        assert await idle.rest() == b""
        with pytest.raises(OSError, match="Connect call failed"):
            await server.connect()
        await server.listener.close()


async def test_a_listener_says_where_it_listens() -> None:
    async with listening(echo) as server:
        assert isinstance(server, Listening)
        assert server.url == f"http://127.0.0.1:{server.port}"
