"""Agents that read slowly, and agents that go."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from segue.sidecar.agent_request import AgentRequest
from segue.sidecar.agent_transport import AgentGone, AgentTransport
from tests.sidecar.agents import GET, OK, POST, RawAgent, echo, listening


async def test_a_slow_reader_holds_back_its_own_sender_only() -> None:
    piece = b"x" * 65536
    sent = 0
    stalled = asyncio.Event()

    async def handler(request: AgentRequest) -> None:
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


@pytest.mark.parametrize("leave", [RawAgent.hang_up, RawAgent.reset], ids=["hang up", "reset"])
@pytest.mark.parametrize("phase", ["wait", "stream"])
async def test_a_hang_up_is_noticed_at_once(leave: Callable[[RawAgent], None], phase: str) -> None:
    noticed = asyncio.Event()
    begun = asyncio.Event()

    async def handler(request: AgentRequest) -> None:
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

    async def handler(request: AgentRequest) -> None:
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
    async def handler(request: AgentRequest) -> None:
        raise AssertionError("the handler was called")

    async with listening(handler) as server:
        agent = await server.connect()
        await agent.send(data)
        agent.writer.write_eof()
        assert await agent.rest() == b""


async def test_an_agent_that_hangs_up_under_backpressure_frees_its_sender() -> None:
    freed = asyncio.Event()

    async def handler(request: AgentRequest) -> None:
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


class Socket(asyncio.Transport):
    """A connection that knows one thing of its socket."""

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Buffer nothing."""


@pytest.mark.parametrize(
    ("name", "peer"), [(("127.0.0.1", 5), "127.0.0.1"), (("::1", 5, 0, 0), "::1"), (None, None), ("", None)]
)
def test_an_agent_has_an_address_unless_its_socket_has_none(name: object, peer: str | None) -> None:
    transport = AgentTransport(lambda _: None)
    transport.connection_made(Socket({"peername": name}))
    assert transport.peer == peer
