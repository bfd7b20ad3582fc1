"""The table of macOS, as bytes: records as xnu packs them."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from segue.peer_credentials.darwin_pcbs import user_in
from segue.peer_credentials.tcp_connection import TcpConnection
from tests.peer_credentials.connections import IPV4, IPV6

GENERATION = struct.pack("=IIQQ", 24, 1, 1, 1)


def record(kind: int, length: int, fields: dict[int, bytes]) -> bytes:
    data = bytearray(-(-length // 8) * 8)
    struct.pack_into("=II", data, 0, length, kind)
    for at, value in fields.items():
        data[at : at + len(value)] = value
    return bytes(data)


def pcb(local: tuple[bytes, int], foreign: tuple[bytes, int]) -> bytes:
    flags = b"\x01" if len(local[0]) == 4 else b"\x02"
    ports = struct.pack("!HH", foreign[1], local[1])
    return record(0x10, 100, {16: ports, 44: flags, 48: foreign[0].rjust(16, b"\0"), 64: local[0].rjust(16, b"\0")})


def entry(connection: TcpConnection, user: int, pointer: bytes = b"\x01" * 8) -> bytes:
    """The records of the peer's socket."""
    addresses = pcb((connection.peer, connection.peer_port), (connection.own, connection.own_port))
    owner = record(0x01, 104, {8: pointer, 64: struct.pack("=I", user)})
    return (
        addresses + owner + record(0x02, 32, {}) + record(0x04, 32, {}) + record(0x08, 112, {}) + record(0x20, 204, {})
    )


def accepted(connection: TcpConnection) -> bytes:
    """The records of our own end."""
    turned = TcpConnection(connection.own, connection.own_port, connection.peer, connection.peer_port)
    return entry(turned, 1)


def elsewhere(connection: TcpConnection) -> bytes:
    """A socket of root's with the same ports, to another machine."""
    return entry(TcpConnection(connection.peer, connection.peer_port, b"\x0a" * len(connection.own), 4748), 0)


def test_the_peers_end_tells_its_user() -> None:
    for connection in (IPV4, IPV6):
        table = GENERATION + accepted(connection) + elsewhere(connection) + entry(connection, 501) + GENERATION
        assert user_in(table, connection) == 501
        assert user_in(GENERATION + accepted(connection) + GENERATION, connection) is None
    assert user_in(GENERATION + entry(IPV6, 501), IPV4) is None


def test_a_socket_that_nobody_has_open_has_no_user() -> None:
    assert user_in(GENERATION + entry(IPV4, 0, pointer=b"\0" * 8), IPV4) is None


def test_a_table_that_is_cut_or_has_other_records_there_tells_nothing() -> None:
    whole = GENERATION + entry(IPV4, 501)
    for end in range(len(GENERATION) + 104 + 68):
        assert user_in(whole[:end], IPV4) is None
    assert user_in(GENERATION + pcb((IPV4.peer, 40000), (IPV4.own, 4748)) + record(0x02, 104, {}), IPV4) is None
    assert user_in(struct.pack("!HH", 4748, 40000) + b"\0" * 200, IPV4) is None


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_no_table_breaks_it(before: bytes, after: bytes) -> None:
    user_in(before + struct.pack("!HH", 4748, 40000) + after, IPV4)
