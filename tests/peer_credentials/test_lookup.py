"""Whose a connection is, asked of this machine's own kernel."""

from __future__ import annotations

import ctypes
import os
import socket
import sys
from collections.abc import Callable

import pytest

from segue.peer_credentials import proc_net_tcp
from segue.peer_credentials.lookup import PeerUsers, UserLookup, ask_netlink, peer_users, read_proc, read_sysctl
from segue.peer_credentials.tcp_connection import TcpConnection
from tests.peer_credentials.connections import IPV4, connected, name_of

linux = pytest.mark.skipif(sys.platform != "linux", reason="asks Linux")
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a socket to another user")
NOBODY = 65534


def unanswered(connection: TcpConnection) -> int | None:
    raise OSError(connection.peer_port, "not here")


def of_nobody(connection: TcpConnection) -> int:
    assert connection.is_ipv4
    return NOBODY


@linux
@pytest.mark.parametrize("way", [ask_netlink, read_proc])
@pytest.mark.parametrize(
    ("host", "listen"), [("127.0.0.1", None), ("::1", None), ("127.0.0.1", "::"), ("::ffff:127.0.0.1", "127.0.0.1")]
)
def test_both_ways_of_linux_tell_the_user(way: UserLookup, host: str, listen: str | None) -> None:
    with connected(host, listen) as (client, accepted):
        assert way(name_of(accepted)) == os.geteuid()
        assert way(name_of(client)) == os.geteuid()
        client.shutdown(socket.SHUT_WR)
        assert way(name_of(accepted)) == os.geteuid(), "it still reads"
        client.close()
        assert way(name_of(accepted)) is None, "nobody has it open, which is not the user 0"


@linux
@as_root
@pytest.mark.parametrize("way", [ask_netlink, read_proc])
def test_another_users_socket_is_told_apart(way: UserLookup) -> None:
    with connected() as (client, accepted):
        os.fchown(client.fileno(), NOBODY, -1)
        assert way(name_of(accepted)) == NOBODY
        assert not PeerUsers((way,)).is_own(accepted)


@linux
@pytest.mark.parametrize("way", [ask_netlink, read_proc])
def test_a_connection_of_elsewhere_is_nobodys(way: UserLookup) -> None:
    assert way(IPV4) is None


@linux
def test_linux_and_the_mac_are_asked_and_others_are_not() -> None:
    users = peer_users()
    assert users.known
    with connected() as (_, accepted):
        assert users.user_of(accepted) == os.geteuid()
        assert users.is_own(accepted)
    assert users.user_of(accepted) is None, "it is closed"
    assert not peer_users("win32").known
    assert not peer_users("darwin").known, "its C library has other functions"


def test_what_does_not_know_this_process_is_not_asked() -> None:
    """A sandbox may forbid netlink, and a kernel may answer for another namespace."""
    for ways in ((), (unanswered,), (unanswered, of_nobody)):
        users = PeerUsers(ways)
        assert not users.known
        with connected() as (_, accepted):
            assert users.user_of(accepted) is None
            assert not users.is_own(accepted)
    assert PeerUsers((unanswered, lambda _: os.geteuid())).known


def test_what_fails_later_is_not_known() -> None:
    asked: list[TcpConnection] = []

    def once(connection: TcpConnection) -> int:
        asked.append(connection)
        if len(asked) > 1:
            raise OSError
        return os.geteuid()

    users = PeerUsers((once,))
    with connected() as (_, accepted):
        assert users.known
        assert users.user_of(accepted) is None
        assert not users.is_own(accepted)
        assert not users.is_own(None)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert users.user_of(ours) is None, "a Unix socket is no TCP connection"


class Sysctl:
    """A C library that lists no sockets, or fails at a call."""

    def __init__(self, fails_at: int) -> None:
        self._left = fails_at

    def sysctlbyname(self, *_: object) -> int:
        self._left -= 1
        return -1 if self._left == 0 else 0


@pytest.mark.parametrize(("fails_at", "works"), [(1, False), (2, False), (3, True)])
def test_the_macs_table_is_asked_for_twice(fails_at: int, works: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    library: Callable[..., Sysctl] = lambda *_, **__: Sysctl(fails_at)  # noqa: E731 - stands for the class
    monkeypatch.setattr(ctypes, "CDLL", library)
    if works:
        assert read_sysctl(IPV4) is None
    else:
        with pytest.raises(OSError, match="does not list"):
            read_sysctl(IPV4)


def test_a_machine_without_ipv6_has_one_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proc_net_tcp, "PATHS", ("/nonexistent/tcp", "/nonexistent/tcp6"))
    assert read_proc(IPV4) is None
