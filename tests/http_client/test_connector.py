"""A connection on which a provider spoke out of turn is not used again, over real sockets."""

from __future__ import annotations

import asyncio
import socket
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import aiohttp
import pytest
import trustme
from aiohttp.client_proto import ResponseHandler

from segue.http_client import staggered
from segue.http_client.connector import DesyncSafeConnector
from tests.upstreams.provider import Exchange, Play, Provider, providing, streams

STRAY = b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 5\r\n\r\nstray"
ANSWERS = streams(b"answer")


@asynccontextmanager
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(connector=DesyncSafeConnector()) as one:
        yield one


async def ask(one: aiohttp.ClientSession, provider: Provider) -> tuple[int, bytes]:
    async with one.post(provider.url, data=b"x") as response:
        return response.status, await response.read()


async def test_requests_share_a_connection_that_is_quiet_between_them() -> None:
    async with providing(ANSWERS) as provider, session() as one:
        assert [await ask(one, provider) for _ in range(3)] == [(200, b"answer")] * 3
    assert [got.connection for got in provider.got] == [0, 0, 0]


async def test_tls_connections_are_shared_too() -> None:
    """What TLS itself sends after the handshake, such as session tickets, is no reply."""
    authority = trustme.CA()
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("127.0.0.1").configure_cert(server)
    authority.configure_trust(client)
    async with providing(ANSWERS, tls=server) as provider, session() as one:
        for _ in range(3):
            async with one.post(provider.url, data=b"x", ssl=client) as response:
                assert await response.read() == b"answer"
    assert [got.connection for got in provider.got] == [0, 0, 0]


def talks_on(stray: bytes, *, at: asyncio.Event, sent: asyncio.Event) -> Play:
    """Answer, then say more when `at` is set."""

    async def play(exchange: Exchange) -> None:
        await ANSWERS(exchange)
        await at.wait()
        await exchange.send(stray)
        sent.set()

    return play


@pytest.mark.parametrize(
    ("stray", "read"),
    [(STRAY, False), (STRAY, True), (b"?", False), (b"?", True), (b"HTTP/1.1 408 Request", False)],
    ids=["a reply in the kernel", "a reply", "a byte in the kernel", "a byte", "half a reply in the kernel"],
)
async def test_what_a_provider_says_unasked_answers_no_request(stray: bytes, *, read: bool) -> None:
    """Else each request would get the reply to the one before."""
    at, sent = asyncio.Event(), asyncio.Event()
    async with providing(talks_on(stray, at=at, sent=sent), ANSWERS) as provider, session() as one:
        assert await ask(one, provider) == (200, b"answer")
        at.set()
        await sent.wait()
        for _ in range(5 if read else 0):  # the loop reads what has arrived
            await asyncio.sleep(0)
        assert [await ask(one, provider) for _ in range(3)] == [(200, b"answer")] * 3
    assert [got.connection for got in provider.got] == [0, 1, 1, 1]


async def test_a_provider_that_speaks_first_does_not_keep_us_connecting() -> None:
    """On a new connection its words are the reply, and the connector does not connect again and again."""

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(STRAY)
        await reader.read()
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with session() as one, one.post(url, data=b"x") as response:
        assert response.status == 408
    server.close()
    await server.wait_closed()


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse what does not fit into a queue")
async def test_a_connection_whose_first_packet_was_lost_gets_rivals(monkeypatch: pytest.MonkeyPatch) -> None:
    """A full queue drops the first packet of each connection, as an outage does. TCP repeats it after a second."""
    monkeypatch.setattr(staggered, "INTERVAL_S", 0.05)
    connect, begun, back = aiohttp.TCPConnector._create_connection, list[int](), asyncio.Event()  # noqa: SLF001 - what has rivals

    async def counted(*how: Any) -> ResponseHandler:  # noqa: ANN401 - passed on as they are
        begun.append(len(begun))
        if len(begun) == 3:
            back.set()
        return await connect(*how)

    monkeypatch.setattr(aiohttp.TCPConnector, "_create_connection", counted)
    with (
        socket.create_server(("127.0.0.1", 0), backlog=0) as listener,
        socket.create_connection(listener.getsockname()),
    ):
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        async with aiohttp.ClientSession(connector=DesyncSafeConnector(staggered=True)) as one:
            asking = asyncio.get_running_loop().create_task(one.get(url))
            await asyncio.wait_for(back.wait(), 20)
            listener.accept()[0].close()
            async with await asyncio.start_server(_say_hello, sock=listener), await asking as response:
                assert await response.read() == b"hello"
        assert len(begun) >= 3


async def _say_hello(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer a request; a connection that was given up has none."""
    with suppress(asyncio.IncompleteReadError, ConnectionError):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello")
        await writer.drain()
    writer.close()
