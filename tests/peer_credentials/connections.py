"""Connections for these tests: real ones, with both ends in this process, and their names."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from segue.peer_credentials.tcp_connection import TcpConnection, tcp_connection

IPV4 = TcpConnection(b"\x7f\0\0\x01", 40000, b"\x7f\0\0\x02", 4748)
IPV6 = TcpConnection(b"\0" * 15 + b"\x01", 40000, b"\xfe\x80" + b"\0" * 13 + b"\x01", 4748, 3)


def name_of(accepted: socket.socket) -> TcpConnection:
    found = tcp_connection(accepted.getpeername(), accepted.getsockname())
    assert found is not None
    return found


@contextmanager
def connected(host: str = "127.0.0.1", listen: str | None = None) -> Iterator[tuple[socket.socket, socket.socket]]:
    """The client's end and the accepted end; `listen` on another address than the one that the client names."""
    family = socket.AF_INET6 if ":" in (listen or host) else socket.AF_INET
    with socket.socket(family) as server:
        if listen == "::":
            server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        server.bind((listen or host, 0))
        server.listen()
        with socket.create_connection((host, server.getsockname()[1])) as client, server.accept()[0] as accepted:
            yield client, accepted
