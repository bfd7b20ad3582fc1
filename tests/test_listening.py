"""A server stops listening: whoever it has accepted is connected, and everybody else is refused."""

from __future__ import annotations

import asyncio
import socket
from unittest.mock import create_autospec

import pytest

from segue.listening import stop_listening


class Accepted(asyncio.Protocol):
    """The server's end of a connection."""

    def __init__(self, accepted: list[asyncio.BaseTransport]) -> None:
        self._accepted = accepted

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._accepted.append(transport)


async def test_a_connection_that_is_being_accepted_is_not_lost() -> None:
    """Its socket would be left open: pytest fails a test for that."""
    accepted: list[asyncio.BaseTransport] = []
    server = await asyncio.get_running_loop().create_server(lambda: Accepted(accepted), "127.0.0.1", 0)
    address = server.sockets[0].getsockname()
    client = socket.create_connection(address)
    before = len(asyncio.all_tasks())
    while len(asyncio.all_tasks()) == before:  # noqa: ASYNC110 - the loop makes a task to accept it
        await asyncio.sleep(0)
    assert accepted == [], "it has a socket and no transport"
    await stop_listening(server)
    (transport,) = accepted
    assert client.getpeername() == address
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address)
    transport.close()
    client.close()


async def test_connections_stay_and_a_server_may_be_stopped_twice() -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readexactly(5))
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    for _ in range(2):
        await stop_listening(server)
    writer.write(b"hello")
    assert await reader.read() == b"hello"
    writer.close()
    await writer.wait_closed()


async def test_another_loops_server_is_closed_at_once() -> None:
    server = create_autospec(asyncio.AbstractServer, instance=True)
    await stop_listening(server)
    server.close.assert_called_once_with()
