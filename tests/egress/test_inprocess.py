"""Connections without a socket, with aiohttp's server at the other end: what works on a socket works here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import httpcore
import pytest
from aiohttp import WSMsgType, web

from segue.egress.client import Egress
from segue.egress.errors import EgressError
from segue.egress.inprocess import MemoryStream, MemoryTransport, connect_in_process
from segue.egress.limits import EgressLimits
from segue.egress.reply import StreamedReply
from segue.egress.websocket import OutboundWebSocket
from segue.http.heads import Line, RequestHead
from segue.http.routes import SELF, Resolved
from segue.http.websocket import WebSocketClose, WebSocketMessage
from tests.loop_clock import LoopClock

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def serving(handler: Handler, limits: EgressLimits | None = None) -> AsyncIterator[Egress]:
    app = web.Application(client_max_size=1 << 30)
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app, handler_cancellation=True, auto_decompress=False, access_log=None)
    await runner.setup()
    assert runner.server is not None
    try:
        async with Egress(own=runner.server, limits=limits) as egress:
            yield egress
    finally:
        await runner.cleanup()


async def ask(
    egress: Egress, body: bytes | None = None, path: bytes = b"/v1/x", *, tenant: str = "t", method: bytes = b"POST"
) -> StreamedReply:
    head = RequestHead(method, b"/mount" + path, (Line(b"X-Two", b"1"), Line(b"x-two", b"2")))
    return await egress.open(Resolved(target=SELF, path=path), head, body, extra={"segue_tenant": tenant})


async def whole(reply: StreamedReply) -> bytes:
    return b"".join([piece async for piece in reply.chunks()])


def connection_of(request: web.Request) -> asyncio.Transport:
    assert request.transport is not None
    return request.transport


async def test_a_request_arrives_as_on_a_socket() -> None:
    """Raw target and lines, and whose it is."""

    async def handler(request: web.Request) -> web.Response:
        seen.append((request.raw_path, request.raw_headers, await request.read()))
        tenant = connection_of(request).get_extra_info("segue_tenant")
        return web.Response(body=f"{tenant} {request.remote}".encode(), headers={"X-Seen": "1"})

    seen: list[tuple[str, tuple[tuple[bytes, bytes], ...], bytes]] = []
    async with serving(handler) as egress:
        reply = await ask(egress, b"body", b"/v1/%2e~?x=%7e", tenant="alice")
        assert await whole(reply) == b"alice 127.0.0.1"
        assert (reply.head.status, Line(b"X-Seen", b"1") in reply.head.lines) == (200, True)
    lines = ((b"Host", b"localhost"), (b"X-Two", b"1"), (b"x-two", b"2"), (b"Content-Length", b"4"))
    assert seen == [("/v1/%2e~?x=%7e", lines, b"body")]


async def test_a_connection_is_kept_for_requests_of_the_same_extra() -> None:
    """And for no others."""

    async def handler(request: web.Request) -> web.Response:
        connections.append(connection_of(request))
        return web.Response(text=str(connection_of(request).get_extra_info("segue_tenant")))

    connections: list[asyncio.Transport] = []
    async with serving(handler) as egress:
        for tenant in ("a", "b", "a", "a", "b"):
            assert await whole(await ask(egress, tenant=tenant)) == tenant.encode()
    a, b = connections[:2]
    assert a is not b
    assert connections == [a, b, a, a, b]


async def test_a_connection_that_the_server_closed_is_not_used() -> None:
    """As on a socket."""

    async def handler(request: web.Request) -> web.Response:
        connections.append(connection_of(request))
        response = web.Response(text="x")
        if len(connections) == 1:
            response.force_close()
        return response

    connections: list[asyncio.Transport] = []
    async with serving(handler) as egress:
        assert await whole(await ask(egress)) == b"x"
        assert await whole(await ask(egress)) == b"x"
        connections[1].close()
        assert await whole(await ask(egress)) == b"x"
    assert len(set(connections)) == 3


async def test_events_come_as_they_are_written() -> None:
    """Each before the next."""

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for number, gate in enumerate(gates):
            await gate.wait()
            await response.write(b"data: %d\n\n" % number)
        return response

    gates = [asyncio.Event() for _ in range(3)]
    async with serving(handler) as egress:
        reply = await ask(egress)
        for number, gate in enumerate(gates):
            gate.set()
            assert await reply.read() == b"data: %d\n\n" % number
        assert await reply.read() == b""


@pytest.mark.parametrize("size", [0, 1, 65_536, 20_000_001])
async def test_bodies_of_any_size_pass_both_ways(size: int) -> None:
    """Whole."""

    async def handler(request: web.Request) -> web.Response:
        return web.Response(body=await request.read())

    body = bytes(range(251)) * (size // 251 + 1)
    async with serving(handler) as egress:
        assert await whole(await ask(egress, body[:size])) == body[:size]


async def test_a_slow_reader_slows_the_server_down() -> None:
    """What waits in memory is bounded."""
    written = 0

    async def handler(request: web.Request) -> web.StreamResponse:
        nonlocal written
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(1000):
            await response.write(b"x" * 10_000)
            written += 10_000
        return response

    async with serving(handler) as egress:
        reply = await ask(egress)
        for _ in range(300):
            await asyncio.sleep(0)
        assert written <= 200_000
        assert len(await whole(reply)) == 10_000_000


async def test_a_server_that_does_not_read_slows_the_sender_down() -> None:
    """And then gets all of it."""
    gate = asyncio.Event()
    started = asyncio.Event()

    async def handler(request: web.Request) -> web.Response:
        transports.append(connection_of(request))
        started.set()
        await gate.wait()
        return web.Response(text=str(len(await request.read())))

    transports: list[asyncio.Transport] = []
    async with serving(handler) as egress:
        asking = asyncio.ensure_future(ask(egress, b"x" * 30_000_000))
        await started.wait()
        for _ in range(300):
            await asyncio.sleep(0)
        assert not transports[0].is_reading()
        gate.set()
        assert await whole(await asking) == b"30000000"


@pytest.mark.parametrize("has_head", [True, False])
async def test_hanging_up_cancels_the_handler(has_head: bool) -> None:
    """That is how clients cancel."""
    started, cancelled = asyncio.Event(), asyncio.Event()

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        if has_head:
            await response.prepare(request)
            await response.write(b"x")
        started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise
        return response

    async with serving(handler) as egress:
        asking = asyncio.ensure_future(ask(egress))
        await started.wait()
        if has_head:
            await (await asking).aclose()
        else:
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
        await cancelled.wait()


async def test_a_handler_that_is_cut_off_is_a_truncated_answer() -> None:
    """Not the end of one."""

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"x")
        connection_of(request).abort()
        return response

    async with serving(handler) as egress:
        try:
            reply = await ask(egress)
            with pytest.raises(EgressError) as caught:
                await whole(reply)
            assert caught.value.code == "upstream_truncated"
        except EgressError as error:
            assert error.code == "upstream_closed"  # noqa: PT017 - the cut may overtake the head


async def test_websockets_work() -> None:
    """Both ways, with a close from either side."""

    async def handler(request: web.Request) -> web.WebSocketResponse:
        assert connection_of(request).get_extra_info("segue_tenant") == "t"
        socket = web.WebSocketResponse(protocols=["p"])
        await socket.prepare(request)
        async for message in socket:
            if message.type is WSMsgType.TEXT and message.data == "bye":
                await socket.close(code=4000, message=b"so long")
            elif message.type is WSMsgType.TEXT:
                await socket.send_str(message.data)
            else:
                await socket.send_bytes(message.data)
        closed.append(socket.close_code)
        return socket

    closed: list[int | None] = []
    head = RequestHead(b"GET", b"/m/v1", (Line(b"Sec-WebSocket-Protocol", b"p"),))
    async with serving(handler, EgressLimits(message_bytes=1 << 26)) as egress:
        for ours in (True, False):
            socket = await egress.connect(Resolved(target=SELF, path=b"/v1"), head, extra={"segue_tenant": "t"})
            assert isinstance(socket, OutboundWebSocket)
            assert Line(b"Sec-WebSocket-Protocol", b"p") in socket.head.lines
            for message in (WebSocketMessage("text", b"hi"), WebSocketMessage("binary", b"\xff" * 3_000_000)):
                await socket.send(message)
                assert await socket.receive() == message
            if ours:
                await socket.close(1001, b"x")
                assert isinstance(await socket.receive(), WebSocketClose)
            else:
                await socket.send(WebSocketMessage("text", b"bye"))
                assert await socket.receive() == WebSocketClose(4000, b"so long")
    assert len(closed) == 2


async def test_a_server_that_says_nothing_times_out_where_that_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a socket."""
    clock, asked = LoopClock(monkeypatch), asyncio.Event()

    async def handler(request: web.Request) -> web.Response:
        asked.set()
        await asyncio.Event().wait()
        return web.Response()

    async with serving(handler, EgressLimits(silence_s=60.0)) as egress:
        asking = asyncio.create_task(ask(egress))
        await asked.wait()
        with pytest.raises(EgressError) as caught:
            await clock.hurry(asking)
        assert (caught.value.code, caught.value.sent) == ("upstream_timeout", True)


async def test_many_at_once() -> None:
    """Each its own connection."""
    everybody = asyncio.Barrier(100)

    async def handler(request: web.Request) -> web.Response:
        await everybody.wait()
        return web.Response(body=await request.read())

    async with serving(handler) as egress:
        replies = await asyncio.gather(*(ask(egress, b"%d" % number) for number in range(100)))
        assert [await whole(reply) for reply in replies] == [b"%d" % number for number in range(100)]


# ------------------------------------------------------------------------------------------------------- the transport


class Recording(asyncio.Protocol):
    """A server that notes what it is told."""

    def __init__(self) -> None:
        self.notes: list[object] = []
        self.transport: MemoryTransport | None = None
        self.lost = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, MemoryTransport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.notes.append(data)

    def pause_writing(self) -> None:
        self.notes.append("pause")

    def resume_writing(self) -> None:
        self.notes.append("resume")

    def connection_lost(self, exc: Exception | None) -> None:
        self.notes.append(exc)
        self.lost.set()


def pair() -> tuple[MemoryStream, MemoryTransport, Recording]:
    server = Recording()
    stream = connect_in_process(lambda: server, {"who": "me", "peername": ("10.0.0.1", 5)})
    assert server.transport is not None
    return stream, server.transport, server


async def test_the_server_is_asked_to_pause_and_to_resume() -> None:
    """At its limits."""
    stream, transport, server = pair()
    transport.set_write_buffer_limits(high=10, low=4)
    assert transport.get_write_buffer_limits() == (4, 10)
    transport.write(b"x" * 10)
    assert server.notes == []
    transport.writelines([b"y", b"z"])
    assert (server.notes, transport.get_write_buffer_size()) == (["pause"], 12)
    assert await stream.read(7) == b"xxxxxxx"
    assert server.notes == ["pause"]
    assert await stream.read(1) == b"x"
    assert server.notes == ["pause", "resume"]
    assert await stream.read(100) == b"xxyz"
    transport.set_write_buffer_limits()
    assert transport.get_write_buffer_limits() == (16_384, 65_536)


async def test_the_client_waits_while_the_server_reads_nothing() -> None:
    """Until it resumes, or is gone."""
    stream, transport, server = pair()
    transport.pause_reading()
    writing = asyncio.ensure_future(stream.write(b"a"))
    await asyncio.sleep(0)
    with pytest.raises(httpcore.WriteTimeout):
        await stream.write(b"b", timeout=0.01)
    assert server.notes == []
    transport.resume_reading()
    await writing
    assert server.notes == [b"a"]
    transport.pause_reading()
    writing = asyncio.ensure_future(stream.write(b"c"))
    await asyncio.sleep(0)
    transport.close()
    with pytest.raises(httpcore.WriteError):
        await writing
    transport.pause_reading()
    with pytest.raises(httpcore.WriteError):
        await stream.write(b"d")


async def test_what_was_written_before_the_end_is_read() -> None:
    """Then comes the end, again and again."""
    stream, transport, server = pair()
    transport.write(b"last")
    transport.close()
    transport.close()
    transport.write(b"too late")
    assert transport.is_closing()
    await server.lost.wait()
    assert [await stream.read(100) for _ in range(3)] == [b"last", b"", b""]
    assert server.notes == [None]


async def test_one_direction_can_end_alone() -> None:
    """The other goes on."""
    stream, transport, server = pair()
    assert transport.can_write_eof()
    transport.write_eof()
    assert await stream.read(1) == b""
    await stream.write(b"more")
    assert server.notes == [b"more"]
    assert not transport.is_closing()


async def test_a_cut_drops_what_was_written() -> None:
    """As a reset does."""
    stream, transport, server = pair()
    transport.write(b"lost")
    transport.abort()
    with pytest.raises(httpcore.ReadError):
        await stream.read(10)
    await server.lost.wait()


async def test_hanging_up_is_noticed_once() -> None:
    """And what the server still writes goes nowhere."""
    stream, transport, server = pair()
    reading = asyncio.ensure_future(stream.read(1))
    await asyncio.sleep(0)
    await stream.aclose()
    await stream.aclose()
    with pytest.raises(httpcore.ReadError):
        await reading
    await server.lost.wait()
    transport.write(b"x")
    assert server.notes == [None]
    assert transport.get_write_buffer_size() == 0


async def test_what_is_known_of_the_client_is_told() -> None:
    """There is no socket."""
    _, transport, server = pair()
    names = ("who", "peername", "socket", "sslcontext")
    assert [transport.get_extra_info(name) for name in names] == ["me", ("10.0.0.1", 5), None, None]
    assert transport.get_protocol() is server
    other = Recording()
    transport.set_protocol(other)
    transport.close()
    await other.lost.wait()
