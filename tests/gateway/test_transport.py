"""The connection below a request: a kernel that watches the peer, a full flush, a reset."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import cast

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer, make_mocked_request
from yarl import URL

from segue.gateway.transport import abort, finish, send_whole, watch_peer
from segue.http.blocks import BLOCK_BYTES
from tests.faults.gateways import settled


@asynccontextmanager
async def answering(handle: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> AsyncIterator[str]:
    application = web.Application()
    application.add_routes([web.get("/", handle)])
    async with TestServer(application) as server:
        yield str(server.make_url("/"))


class Connected:
    """A transport with a real socket, not connected to anybody."""

    def __init__(self, sock: socket.socket | None) -> None:
        self._socket = sock

    def get_extra_info(self, name: str, default: object = None) -> object:
        return self._socket if name == "socket" else default


def connected(sock: socket.socket | None) -> asyncio.BaseTransport:
    return cast("asyncio.BaseTransport", Connected(sock))


def options(sock: socket.socket, names: Sequence[str]) -> dict[str, int]:
    here = [name for name in names if hasattr(socket, name)]
    return {name: sock.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)) for name in here}


def test_the_kernel_gives_up_a_peer_within_two_minutes() -> None:
    """Probes while it is silent, and a limit on what it does not acknowledge."""
    with socket.socket() as sock:
        watch_peer(connected(sock))
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) != 0
        expected = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 4, "TCP_USER_TIMEOUT": 120_000}
        found = options(sock, list(expected))
        assert found == {name: expected[name] for name in found}


def test_a_connection_without_a_socket_is_left_alone() -> None:
    """It was never one of the kernel's, or is gone already."""
    watch_peer(connected(None))


async def test_finish_returns_when_the_kernel_has_taken_everything() -> None:
    """So a drain cuts off nothing. Afterwards the buffer is as it was."""
    limits: list[tuple[int, int]] = []

    async def handle(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        transport = request.transport
        assert isinstance(transport, asyncio.WriteTransport)
        before = transport.get_write_buffer_limits()
        await finish(request, response, b"x" * 1_000_000)
        assert transport.get_write_buffer_size() == 0
        limits.extend((before, transport.get_write_buffer_limits()))
        return response

    async with answering(handle) as url, aiohttp.ClientSession() as client, client.get(url) as reply:
        assert await reply.read() == b"x" * 1_000_000
    assert limits[0] == limits[1]


async def test_finish_on_a_connection_that_is_gone_waits_for_nothing() -> None:
    request = make_mocked_request("GET", "/")
    response = web.Response(text="x")
    await response.prepare(request)
    request.protocol.transport = None
    await finish(request, response)
    assert response.prepared


@pytest.mark.parametrize("size", [0, 10, 64 * 1024, 64 * 1024 + 1, 300_000])
async def test_a_body_of_any_size_is_sent_with_its_length(size: int) -> None:
    shared = b"y" * size

    async def handle(request: web.Request) -> web.StreamResponse:
        return await send_whole(request, (b"x", memoryview(shared)), "text/x-y")

    async with answering(handle) as url, aiohttp.ClientSession() as client, client.get(url) as reply:
        assert reply.headers["Content-Type"] == "text/x-y"
        assert reply.headers["Content-Length"] == str(size + 1)
        assert await reply.read() == b"x" + shared


async def test_a_large_body_waits_for_its_reader() -> None:
    """No more of it is buffered than some blocks; a reader that leaves is no error."""
    taken: list[asyncio.Transport] = []
    left = asyncio.Event()

    async def handle(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        taken.append(request.transport)
        try:
            return await send_whole(request, (bytes(5_000_000),))
        finally:
            left.set()

    async with answering(handle) as url:
        with socket.socket() as reader:
            reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            reader.connect((URL(url).host, URL(url).port))
            reader.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await settled(lambda: taken[0].get_write_buffer_size() if taken else 0)
            assert taken[0].get_write_buffer_size() <= 3 * BLOCK_BYTES
            assert not left.is_set()
        await left.wait()


async def test_an_aborted_reply_is_no_whole_one() -> None:
    async def handle(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"half")
        abort(request)
        return response

    async with answering(handle) as url, aiohttp.ClientSession() as client:
        with pytest.raises(aiohttp.ClientError):
            await (await client.get(url)).read()


def test_a_connection_that_is_gone_need_not_be_aborted() -> None:
    request = make_mocked_request("GET", "/")
    request.protocol.transport = None
    abort(request)
    assert request.transport is None
