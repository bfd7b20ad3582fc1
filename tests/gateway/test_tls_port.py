"""A port that speaks TLS counts a connection from the moment when it is accepted."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import pytest
import trustme

from segue.config import Config
from segue.gateway import tls_port
from segue.gateway.app import Gateway, serving
from segue.gateway.connections import RESERVED
from tests.faults.gateways import until
from tests.gateway.test_connections import upgrade
from tests.gateway.test_server_tls import issue, router

HEALTH = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
SECRET = trustme.CA()


@asynccontextmanager
async def gateway(folder: Path, **server: float) -> AsyncIterator[tuple[Gateway, int]]:
    settings = issue(SECRET, folder)
    for name, value in server.items():
        settings = type(settings)(
            **{**{key: getattr(settings, key) for key in settings.__struct_fields__}, name: value}
        )
    async with serving(Config(server=settings), router()) as (running, url):
        yield running, int(url.rpartition(":")[2])


def trusting() -> ssl.SSLContext:
    return ssl.create_default_context(cadata=SECRET.cert_pem.bytes().decode())


async def healthy(port: int) -> bool:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trusting())
    writer.write(HEALTH)
    reply = await reader.read()
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()
    return reply.startswith(b"HTTP/1.1 200")


async def silent(stack: AsyncExitStack, port: int) -> asyncio.StreamReader:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    stack.callback(writer.close)
    return reader


async def test_unfinished_handshakes_are_counted_and_give_way(tmp_path: Path) -> None:
    async with gateway(tmp_path, max_connections=4) as (running, port), AsyncExitStack() as stack:
        first = [await silent(stack, port) for _ in range(40)]
        for refused in first[4 + RESERVED :]:
            assert await refused.read() == b""
        assert len(running.connections) == 4 + RESERVED
        fresh = running.connections._fresh  # noqa: SLF001 - a test need not wait until they are old
        for one in fresh:
            fresh[one] -= 1.0
        assert await healthy(port)
        await until(lambda: len(running.connections) == 3)
        assert await first[0].read() == b""
        await until(lambda: len(running._tls_ports[0]._handshakes) == 3)  # noqa: SLF001 - none is left behind


async def test_a_handshake_that_is_not_done_in_time_is_cut(tmp_path: Path) -> None:
    async with gateway(tmp_path, head_timeout_s=0.05) as (running, port), AsyncExitStack() as stack:
        idle = await silent(stack, port)
        assert await idle.read() == b""
        await until(lambda: len(running.connections) == 0)


async def test_what_speaks_no_tls_is_forgotten_at_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with gateway(tmp_path) as (running, port):
        caplog.clear()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(HEALTH)
        with suppress(ConnectionResetError):
            await reader.read()
        writer.close()
        await until(lambda: len(running.connections) == 0)
        assert await healthy(port)
        assert caplog.messages == []


async def test_the_end_of_the_gateway_cuts_handshakes_that_are_under_way(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        async with gateway(tmp_path) as (running, port):
            idle = await silent(stack, port)
            await until(lambda: len(running.connections) == 1)
        assert await idle.read() == b""
        with pytest.raises(ConnectionRefusedError):
            await silent(stack, port)


async def test_without_descriptors_it_waits_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A client that gives up while it waits is no reason to wait, and none to end."""
    monkeypatch.setattr(tls_port, "_PAUSE_S", 0.0)
    loop = asyncio.get_running_loop()
    accept, failures = loop.sock_accept, [OSError(errno.EMFILE, "no more"), ConnectionAbortedError()]

    async def failing(listening: socket.socket) -> tuple[socket.socket, object]:
        if failures:
            raise failures.pop(0)
        return await accept(listening)

    monkeypatch.setattr(loop, "sock_accept", failing)
    async with gateway(tmp_path) as (_, port):
        assert await healthy(port)
    assert [message for message in caplog.messages if "action=accept" in message] == ["action=accept error='no more'"]


@pytest.mark.parametrize("path", ["/v1/responses", "/segue/tunnel"])
async def test_an_upgrade_that_is_given_up_is_quiet_over_tls_too(
    path: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with gateway(tmp_path) as (running, port):
        caplog.clear()
        for number in range(6):
            _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trusting())
            writer.write(upgrade(path, number))
            writer.transport.abort()
            with suppress(OSError):
                await writer.wait_closed()
        await until(lambda: len(running.connections) == 0)
        await until(lambda: not running.services.drain.connections)
        assert (running.tunnel.sessions, caplog.messages) == (0, [])
