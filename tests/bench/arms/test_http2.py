"""Requests of HTTP/1.1 go over one connection of HTTP/2, and what breaks on it ends them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import h11
import pytest
from aiohttp import web

from segue.bench.arms import http2
from segue.bench.arms.coded_wire import CodedWire, ServeConnection, listening
from segue.bench.arms.http2 import WireClosedError, http2_wire, next_event
from segue.bench.meters.tcp import WireBytes
from segue.testing.link import LinkProfile

LARGE = bytes(range(256)) * 3_000


async def echo(request: web.Request) -> web.StreamResponse:
    if request.path == "/missing":
        return web.Response(status=404, text="there is none")
    response = web.StreamResponse(headers={"X-Kept": request.headers.get("X-Kept", "")})
    await response.prepare(request)
    async for piece in request.content.iter_any():
        await response.write(piece)
    return response


@asynccontextmanager
async def echoing(*, tls: bool = True, profile: LinkProfile | None = None) -> AsyncIterator[CodedWire]:
    app = web.Application(client_max_size=1 << 30)
    app.router.add_route("*", "/{path:.*}", echo)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0]
    try:
        async with http2_wire(host, port, tls=tls, profile=profile) as wire:
            yield wire
    finally:
        await runner.cleanup()


@pytest.mark.parametrize("tls", [False, True])
async def test_requests_share_one_connection_and_repeated_head_lines_cost_little(*, tls: bool) -> None:
    async with echoing(tls=tls) as wire, aiohttp.ClientSession() as session:
        carried: list[WireBytes] = []
        for _ in range(2):
            headers = {"X-Kept": "a line that is always the same, and long enough to be seen" * 4}
            async with session.post(f"{wire.url}/v1", data=b"x" * 1000, headers=headers) as answer:
                assert (answer.status, await answer.read()) == (200, b"x" * 1000)
                assert answer.headers["X-Kept"] == headers["X-Kept"]
            carried.append(wire.carried.take())
        first, second = carried
        assert 1000 < second.up_bytes < first.up_bytes - 200
        async with session.get(f"{wire.url}/missing") as answer:
            assert (answer.status, await answer.text()) == (404, "there is none")
        (set_up,) = wire.carried.set_ups
        assert (set_up.up_bytes > 400, set_up.down_bytes > 500) == (tls, tls)


async def test_requests_of_several_connections_run_side_by_side_and_large_bodies_wait_for_the_window(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http2, "WINDOW_BYTES", 70_000)
    async with echoing() as wire, aiohttp.ClientSession() as session:

        async def ask(body: bytes) -> bool:
            async with session.post(f"{wire.url}/v1", data=body) as answer:
                return await answer.read() == body

        assert all(await asyncio.gather(ask(LARGE), ask(b"short"), ask(b"")))
        assert len(wire.carried.set_ups) == 1
        assert wire.carried.take().up_bytes > len(LARGE)


async def test_setting_up_over_a_link_takes_a_round_trip_for_tcp_and_for_tls() -> None:
    async with echoing(profile=LinkProfile(rtt_s=0.02, setup_rtts=1.0)) as wire, aiohttp.ClientSession() as session:
        async with session.post(f"{wire.url}/v1", data=b"x") as answer:
            assert await answer.read() == b"x"
        assert wire.carried.set_ups[0].time_s > 0.04


async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1)
    writer.transport.abort()


async def nonsense(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1)
    writer.write(b"nonsense\r\n\r\n")


@pytest.mark.parametrize("server", [refuse, nonsense])
async def test_a_server_that_breaks_ends_the_request_and_not_the_wire(server: ServeConnection) -> None:
    async with (
        listening(server) as (host, port),
        http2_wire(host, port) as wire,
        aiohttp.ClientSession() as session,
    ):
        for _ in range(2):
            with pytest.raises(aiohttp.ClientError):
                await session.post(f"{wire.url}/v1", data=b"x")
        assert len(wire.carried.set_ups) == 1


async def test_without_a_server_a_request_ends() -> None:
    async with listening(refuse) as (host, port):
        pass
    async with http2_wire(host, port) as wire, aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.ClientError):
            await session.post(f"{wire.url}/v1", data=b"x")


async def test_an_agent_that_says_nonsense_is_cut_off() -> None:
    async with echoing() as wire:
        reader, writer = await asyncio.open_connection(wire.host, wire.port)
        writer.write(b"nonsense\r\n\r\n")
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await reader.readexactly(1)
        writer.close()


async def test_an_agent_that_leaves_is_forgotten() -> None:
    async with echoing() as wire, aiohttp.ClientSession() as session:
        _, writer = await asyncio.open_connection(wire.host, wire.port)
        writer.write(b"POST /v1 HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf")
        await writer.drain()
        writer.close()
        async with session.post(f"{wire.url}/v1", data=b"x") as answer:
            assert await answer.read() == b"x"


async def test_half_a_message_is_an_error() -> None:
    reader = asyncio.StreamReader()
    reader.feed_data(b"POST / HTTP/1.1\r\nHost")
    reader.feed_eof()
    with pytest.raises(WireClosedError):
        await next_event(h11.Connection(h11.SERVER), reader)
