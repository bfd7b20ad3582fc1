"""The names of connections: addresses as they are in packets, whatever family the sockets have."""

from __future__ import annotations

import pytest

from segue.peer_credentials.tcp_connection import TcpConnection, tcp_connection

LOOPBACK = b"\x7f\0\0\x01"


@pytest.mark.parametrize(
    ("peer", "own", "expected"),
    [
        (("127.0.0.1", 1), ("127.0.0.1", 2), TcpConnection(LOOPBACK, 1, LOOPBACK, 2)),
        (("::ffff:127.0.0.1", 1, 0, 0), ("::ffff:127.0.0.1", 2, 0, 0), TcpConnection(LOOPBACK, 1, LOOPBACK, 2)),
        (("::1", 1, 0, 0), ("::1", 2, 0, 0), TcpConnection(b"\0" * 15 + b"\x01", 1, b"\0" * 15 + b"\x01", 2)),
        (
            ("fe80::1%eth0", 1, 0, 3),
            ("fe80::2%eth0", 2, 0, 3),
            TcpConnection(b"\xfe\x80" + b"\0" * 13 + b"\x01", 1, b"\xfe\x80" + b"\0" * 13 + b"\x02", 2, 3),
        ),
        ("", "/run/socket", None),
        (("127.0.0.1", 1), ("::1", 2, 0, 0), None),
        (("name", 1), ("127.0.0.1", 2), None),
        ((), (), None),
        (None, None, None),
    ],
)
def test_ends_become_the_name_of_their_connection(peer: object, own: object, expected: TcpConnection | None) -> None:
    assert tcp_connection(peer, own) == expected


def test_a_connection_knows_its_packets() -> None:
    assert TcpConnection(LOOPBACK, 1, LOOPBACK, 2).is_ipv4
    assert not TcpConnection(b"\0" * 16, 1, b"\0" * 16, 2).is_ipv4
