"""A Unix socket that only its own user can reach."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
import struct
from pathlib import Path

import pytest

from segue.gateway import user_socket
from segue.gateway.user_socket import (
    SameUserProtocol,
    UserSocketError,
    bind_socket,
    connect_socket,
    is_same_user,
    peer_uid,
)


def test_a_bound_socket_is_the_users_alone_and_replaces_a_stale_one(tmp_path: Path) -> None:
    path = tmp_path / "s"
    bind_socket(path).close()
    assert connect_socket(path) is None  # it is there, and nobody listens
    with bind_socket(path) as bound:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        bound.listen()
        with connect_socket(path) or pytest.fail("somebody listens") as connection:
            assert peer_uid(connection) == os.geteuid()


def test_nobody_listens_where_nothing_is(tmp_path: Path) -> None:
    assert connect_socket(tmp_path / "s") is None


def test_what_is_no_socket_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserSocketError, match="cannot be reached: Not a directory"):
        connect_socket(Path("/dev/null/s"))
    with pytest.raises(UserSocketError, match="cannot be made: No such file"):
        bind_socket(tmp_path / "none" / "s")


def test_a_path_that_does_not_fit_is_refused_before_anything_is_done(tmp_path: Path) -> None:
    path = tmp_path / ("s" * 100)
    for use in (bind_socket, connect_socket):
        with pytest.raises(UserSocketError, match=r"too long for a socket: set \[ssh\] directory"):
            use(path)


def test_another_users_listener_is_not_talked_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(user_socket, "peer_uid", lambda _: os.geteuid() + 1)
    with bind_socket(tmp_path / "s") as bound:
        bound.listen()
        with pytest.raises(UserSocketError, match="another user listens"):
            connect_socket(tmp_path / "s")


class Told(socket.socket):
    """A connection whose kernel says who the peer is, as that of another platform does."""

    def getsockopt(self, *_: object) -> bytes:  # type: ignore[override]  # only what is asked for here
        return struct.pack("=II", 0, 501) + bytes(68)


def test_each_platform_tells_the_user_in_its_own_way_or_not_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    with Told(socket.AF_UNIX) as connection:
        assert [peer_uid(connection, name) for name in ("darwin", "freebsd14")] == [501, 501]
        assert peer_uid(connection, "sunos5") is None
        monkeypatch.setattr(user_socket, "peer_uid", lambda _: None)
        assert is_same_user(connection)  # the modes of the folder have to do


class Echo(asyncio.Protocol):
    """Sends back what it gets."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        assert isinstance(self.transport, asyncio.Transport)
        self.transport.write(data)


@pytest.mark.parametrize("other", [False, True])
async def test_a_connection_is_served_only_to_the_same_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, other: bool
) -> None:
    if other:
        monkeypatch.setattr(user_socket, "peer_uid", lambda _: os.geteuid() + 1)
    loop = asyncio.get_running_loop()
    server = await loop.create_unix_server(lambda: SameUserProtocol(Echo()), sock=bind_socket(tmp_path / "s"))
    reader, writer = await asyncio.open_unix_connection(tmp_path / "s")
    if not other:  # what nobody reads would make the end a reset
        writer.write(b"hello")
    assert await reader.read(5) == (b"" if other else b"hello")
    writer.close()
    server.close()
