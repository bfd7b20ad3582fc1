"""A server stops listening: whoever it has accepted is connected, and everybody else is refused."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from unittest.mock import create_autospec

import pytest

from segue.listening import bind, stop_listening


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


async def test_every_address_of_a_name_is_listened_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that this machine does not have is left out, as ::1 where there is no IPv6."""
    loop = asyncio.get_running_loop()
    found = [("127.0.0.1", 0), ("192.0.2.1", 0), ("127.0.0.1", 0), ("127.0.0.2", 0)]
    monkeypatch.setattr(loop, "getaddrinfo", _resolver(found))
    sockets = await bind("name", 0)
    assert [one.getsockname()[0] for one in sockets] == ["127.0.0.1", "127.0.0.2"]
    assert all(one.gettimeout() == 0 for one in sockets)
    for one in sockets:
        one.close()


async def test_a_port_that_is_taken_leaves_no_socket_open(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        found = [("127.0.0.2", 0), ("127.0.0.1", taken.getsockname()[1])]
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", _resolver(found))
        with pytest.raises(OSError, match="in use"):
            await bind("name", 0)


async def test_nothing_is_opened_where_no_address_is_ours() -> None:
    with pytest.raises(OSError, match="requested address"):
        await bind("192.0.2.1", 0)


async def test_a_port_can_be_shared() -> None:
    (first,) = await bind("127.0.0.1", 0, shared=True)
    (second,) = await bind("127.0.0.1", first.getsockname()[1], shared=True)
    with first, second:
        assert first.getsockname() == second.getsockname()


def _resolver(found: list[tuple[str, int]]) -> Callable[..., Awaitable[object]]:
    async def resolve(*_: object, **__: object) -> object:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in found]

    return resolve
