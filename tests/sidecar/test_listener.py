"""The listener over real sockets: what it takes, refuses and bounds."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.http.heads import Line, ReplyHead, RequestHead
from segue.peer_credentials.lookup import PeerUsers
from segue.sidecar.agent_access import AgentAccess
from segue.sidecar.agent_request import AgentRequest
from segue.sidecar.listener import ListenerLimits
from tests.loop_clock import LoopClock
from tests.sidecar.agents import GET, OK, POST, Listening, echo, listening, sized
from tests.strategies import examples


def error(answer: bytes) -> tuple[int, str]:
    """The status and code of a failure, which must be the connection's last reply."""
    head, _, body = answer.partition(b"\r\n\r\n")
    told = json.loads(body)
    assert set(told) == {"type", "error"}
    assert set(told["error"]) == {"type", "code", "message"}
    assert b"Connection: close" in head
    return int(head.split()[1]), told["error"]["code"]


async def unreachable(request: AgentRequest) -> None:
    raise AssertionError("the handler was called")


async def test_a_request_head_arrives_byte_for_byte() -> None:
    heads: list[RequestHead] = []

    async def handler(request: AgentRequest) -> None:
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


@settings(max_examples=examples(30))
@given(st.lists(st.integers(1, 400), max_size=8))
def test_any_cuts_on_the_socket_give_the_same_request(cuts: list[int]) -> None:
    body = bytes(range(256))
    data = b"POST /x HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    data += b"80\r\n" + body[:128] + b"\r\n80\r\n" + body[128:] + b"\r\n0\r\n\r\n"
    seen: list[bytes | None] = []

    async def handler(request: AgentRequest) -> None:
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
    async def handler(request: AgentRequest) -> None:
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
        assert await agent.head() == b"HTTP/1.1 100 Continue\r\n\r\n"
        await agent.send(b"abc")
        assert await agent.head() == b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n"
        assert await agent.exactly(3) == b"abc"


async def test_a_body_of_64_mib_arrives() -> None:
    body = bytes(range(256)) * (4 * 1024 * 64)
    seen: list[bytes | None] = []

    async def handler(request: AgentRequest) -> None:
        seen.append(request.body)
        await request.start(ReplyHead(204, b"No Content", ()))
        await request.end()

    async with listening(handler) as server:
        agent = await server.connect()
        await agent.send(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        assert await agent.head() == b"HTTP/1.1 204 No Content\r\n\r\n"
    assert seen == [body]


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
    async with listening(unreachable, limits=ListenerLimits(max_body_bytes=100, max_head_bytes=1000)) as server:
        assert error(await server.ask(data)) == expected


async def test_a_refusal_reaches_an_agent_that_goes_on_sending() -> None:
    async with listening(echo, limits=ListenerLimits(max_body_bytes=100)) as server:
        agent = await server.connect()
        head = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2000000\r\n\r\n"
        await agent.send(head + b"x" * 1_000_000)
        await agent.send(b"x" * 1_000_000)
        assert error(await agent.rest()) == (413, "request_too_large")


async def test_a_slow_head_is_given_up() -> None:
    async with listening(echo, limits=ListenerLimits(head_s=0.05)) as server:
        assert error(await server.ask(b"GET / HTTP/1.1\r\nHost: local")) == (408, "request_timeout")


async def test_a_body_that_stops_is_given_up() -> None:
    async with listening(echo, limits=ListenerLimits(body_s=0.05)) as server:
        data = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nhalf"
        assert error(await server.ask(data)) == (408, "request_timeout")


async def test_an_idle_connection_is_closed_without_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = LoopClock(monkeypatch)
    async with listening(echo, limits=ListenerLimits(idle_s=60.0)) as server:
        agent = await server.connect()
        await agent.send(GET)
        answer = await agent.until(b"nothing")
        assert await clock.hurry(agent.rest()) == b""
        assert answer.endswith(b"nothing")
        assert await clock.hurry(server.ask(b"")) == b""


async def test_bodies_share_one_budget_and_give_it_back() -> None:
    gate = asyncio.Event()
    inside = asyncio.Event()

    async def handler(request: AgentRequest) -> None:
        inside.set()
        await gate.wait()
        await echo(request)

    async with listening(handler, limits=ListenerLimits(max_held_bytes=8)) as server:
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

    async def handler(request: AgentRequest) -> None:
        inside.release()
        await gate.wait()
        await echo(request)

    async with listening(handler, limits=ListenerLimits(max_connections=2, linger_s=0.05)) as server:
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


async def test_closing_the_listener_cancels_what_is_being_answered() -> None:
    cancelled = asyncio.Event()
    inside = asyncio.Event()

    async def handler(request: AgentRequest) -> None:
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
        await server.listener.aclose()
        assert cancelled.is_set()
        assert await agent.rest() == b""
        assert await idle.rest() == b""
        with pytest.raises(OSError, match="Connect call failed"):
            await server.connect()
        await server.listener.aclose()


@pytest.mark.parametrize("steps", range(5))
async def test_closing_the_listener_leaves_no_socket_open(steps: int) -> None:
    """However far it has come with a new connection."""
    async with listening(echo) as server:
        agent = socket.create_connection(("127.0.0.1", server.port))
        before = len(asyncio.all_tasks())
        while len(asyncio.all_tasks()) == before:  # noqa: ASYNC110 - the loop makes a task to accept it
            await asyncio.sleep(0)
        for _ in range(steps):
            await asyncio.sleep(0)
        await server.listener.aclose()
        for _ in range(2):  # a transport that is cut closes its socket in the next step
            await asyncio.sleep(0)
        with suppress(ConnectionResetError):
            assert agent.recv(1) == b""
        agent.close()


async def test_a_listener_says_where_it_listens() -> None:
    async with listening(echo) as server:
        assert isinstance(server, Listening)
        assert server.url == f"http://127.0.0.1:{server.port}"


def others() -> PeerUsers:
    """A platform that takes every connection for another user's, once it has been tried."""
    answers = iter([os.geteuid()])
    return PeerUsers((lambda _: next(answers, os.geteuid() + 1),))


UPGRADE = (
    b"GET /openai/v1/responses HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


#: They tell paths, and the sizes of documents, by which one can guess what is in them.
STATS = b"GET /segue/stats HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.mark.parametrize("data", [GET, POST, UPGRADE, STATS, b""])
async def test_another_user_is_refused_before_anything_is_read(data: bytes) -> None:
    async with listening(unreachable, access=AgentAccess("user", None, others())) as server:
        answer = await server.ask(data)
        assert error(answer) == (403, "forbidden_peer")
        assert b"SEGUE_SIDECAR_ACCESS=anyone" in answer


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a socket to another user")
async def test_the_kernel_tells_another_users_socket() -> None:
    async with listening(echo) as server:
        assert (await server.ask(POST.replace(b"Host:", b"Connection: close\r\nHost:"))).endswith(b"hello")
        foreign = socket.socket()
        os.fchown(foreign.fileno(), 65534, -1)
        foreign.setblocking(False)
        await asyncio.get_running_loop().sock_connect(foreign, ("127.0.0.1", server.port))
        reader, writer = await asyncio.open_connection(sock=foreign)
        writer.write(POST)
        assert error(await reader.read()) == (403, "forbidden_peer")
        writer.close()


@pytest.mark.parametrize("data", [GET, POST, UPGRADE])
async def test_another_user_with_the_token_is_served_and_the_token_goes_no_further(data: bytes) -> None:
    targets: list[bytes] = []

    async def handler(request: AgentRequest) -> None:
        targets.append(request.head.target)
        await echo(request)

    async with listening(handler, access=AgentAccess("user", "the-token", others())) as server:
        agent = await server.connect()
        path = data.split()[1]
        await agent.send(data.replace(path, b"/the-token" + path))
        assert (await agent.head()).startswith(b"HTTP/1.1 200")
        assert error(await server.ask(data))[0] == 403
        assert error(await server.ask(data.replace(path, b"/the-tokens" + path)))[0] == 403
    assert targets == [path]


async def test_each_request_of_a_stranger_needs_the_token() -> None:
    with_token = POST.replace(b"/v1/", b"/the-token/v1/")
    async with listening(echo, access=AgentAccess("token", "the-token", PeerUsers(()))) as server:
        agent = await server.connect()
        for _ in range(2):
            await agent.send(with_token)
            await agent.head()
            assert await agent.exactly(5) == b"hello"
        await agent.send(POST)
        assert error(await agent.rest()) == (403, "forbidden_peer")


@pytest.mark.parametrize("token", [None, "the-token"])
async def test_strangers_take_the_place_of_nobody_else(token: str | None) -> None:
    """They hold connections without a request; those who belong here come and go as if they were alone."""
    own = os.geteuid()
    answers = iter([own, *[own + 1] * 40])
    access = AgentAccess("user", token, PeerUsers((lambda _: next(answers, own),)))
    limits = ListenerLimits(max_connections=2, max_strangers=3)
    async with listening(echo, access=access, limits=limits) as server:
        strangers = [await server.connect() for _ in range(40)]
        for _ in range(4):
            agent = await server.connect()
            await agent.send(POST)
            assert (await agent.head()).startswith(b"HTTP/1.1 200")
        for stranger in strangers[:37]:
            with suppress(ConnectionResetError):
                await stranger.rest()


async def test_a_stranger_who_has_shown_the_token_gives_way_to_none() -> None:
    access = AgentAccess("token", "the-token", PeerUsers(()))
    async with listening(echo, access=access, limits=ListenerLimits(max_strangers=1)) as server:
        agent = await server.connect()
        head, _, body = POST.replace(b"/v1/", b"/the-token/v1/").partition(b"\r\n\r\n")
        await agent.send(head + b"\r\nExpect: 100-continue\r\n\r\n")
        await agent.head()
        silent = [await server.connect() for _ in range(3)]
        with suppress(ConnectionResetError):
            assert await silent[0].rest() == b""
        await agent.send(body)
        assert (await agent.head()).startswith(b"HTTP/1.1 200")
