"""Asks the platform which user is at the other end of a TCP connection of this machine.

Linux tells it by netlink or in `/proc`, macOS by sysctl. An answer is never a guess: it is None for a connection that
comes from another machine or another network namespace (a container), through a translation of addresses, or from a
program that has closed it. Not here: the user at the other end of a Unix socket (`segue.gateway.user_socket`), and who
may do what.
"""

from __future__ import annotations

import ctypes
import os
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias

from segue.peer_credentials import darwin_pcbs, inet_diag, proc_net_tcp
from segue.peer_credentials.tcp_connection import TcpConnection, tcp_connection

#: Returns the user of the peer's socket; raises OSError where it cannot ask.
UserLookup: TypeAlias = Callable[[TcpConnection], int | None]

_LINUX = "linux"
_DARWIN = "darwin"
#: The table may grow between the question for its size and the one for itself.
_SPARE_BYTES = 64 * 1024


class PeerUsers:
    """Tells the users at the other ends of connections, by the first of these ways that knows this very process."""

    def __init__(self, ways: Sequence[UserLookup]) -> None:
        self._lookup = next((way for way in ways if _finds_itself(way)), None)

    @property
    def known(self) -> bool:
        """Whether this platform tells anything."""
        return self._lookup is not None

    def user_of(self, connection: socket.socket | None) -> int | None:
        """Return the user at the other end of a connection that was accepted; None: it cannot be known."""
        if connection is None or self._lookup is None:
            return None
        with suppress(OSError):
            ends = tcp_connection(connection.getpeername(), connection.getsockname())
            return None if ends is None else self._lookup(ends)
        return None

    def is_own(self, connection: socket.socket | None) -> bool:
        """Tell whether the other end is surely a program of this process's own user."""
        return self.user_of(connection) == os.geteuid()


def peer_users(platform: str = sys.platform) -> PeerUsers:
    """Return what this platform can tell. It is found out once: ask at the start, and keep it."""
    if platform == _LINUX:
        return PeerUsers((ask_netlink, read_proc))
    return PeerUsers((read_sysctl,) if platform == _DARWIN else ())


def ask_netlink(connection: TcpConnection) -> int | None:
    """Linux: ask for one socket. The kernel answers before `send` returns, so nothing waits."""
    kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
    with socket.socket(socket.AF_NETLINK, kind, inet_diag.PROTOCOL) as netlink:
        netlink.send(inet_diag.question(connection))
        return inet_diag.user_of(netlink.recv(inet_diag.ANSWER_BYTES))


def read_proc(connection: TcpConnection) -> int | None:
    """Linux: search the tables of all sockets."""
    for path in proc_net_tcp.PATHS:
        with suppress(FileNotFoundError):  # a machine without IPv6 has no second one
            table = Path(path).read_text("ascii")
            user = proc_net_tcp.user_in(table, connection, ipv6=path.endswith("6"))
            if user is not None:
                return user
    return None


def read_sysctl(connection: TcpConnection) -> int | None:
    """macOS: search the table of all TCP sockets."""
    libc = ctypes.CDLL(None, use_errno=True)
    size = ctypes.c_size_t(0)
    if libc.sysctlbyname(darwin_pcbs.NAME, None, ctypes.byref(size), None, ctypes.c_size_t(0)) != 0:
        raise OSError(ctypes.get_errno(), "sysctl does not list the sockets")
    size.value += _SPARE_BYTES
    table = ctypes.create_string_buffer(size.value)
    if libc.sysctlbyname(darwin_pcbs.NAME, table, ctypes.byref(size), None, ctypes.c_size_t(0)) != 0:
        raise OSError(ctypes.get_errno(), "sysctl does not list the sockets")
    return darwin_pcbs.user_in(table.raw[: size.value], connection)


def _finds_itself(lookup: UserLookup) -> bool:
    """Try a way of asking with a connection whose other end is known: both are this process's."""
    try:
        with socket.socket() as server:
            server.bind(("127.0.0.1", 0))
            server.listen()
            with socket.create_connection(server.getsockname()) as client:
                ends = tcp_connection(client.getsockname(), client.getpeername())
                return ends is not None and lookup(ends) == os.geteuid()
    except (OSError, AttributeError):  # AttributeError: a C library without this function
        return False
