"""macOS: the table of TCP sockets, `net.inet.tcp.pcblist_n` of sysctl(3). Every user may read it. Pure.

It is a list of records, each with its length and kind in front, padded to 8 bytes. Those of one socket follow each
other: first `struct xinpcb_n` with the addresses, then `struct xsocket_n` with the user (xnu, bsd/netinet/in_pcb.h and
bsd/sys/socketvar.h, packed to 4 bytes). The table may have thousands of records, so the ports are searched for as
bytes. Not here: reading the table (`lookup`).
"""

from __future__ import annotations

import struct
from typing import Final

from segue.peer_credentials.tcp_connection import TcpConnection

NAME: Final = b"net.inet.tcp.pcblist_n"

_SOCKET, _PCB = 0x01, 0x10  # XSO_SOCKET, XSO_INPCB
_RECORD = struct.Struct("=II")  # length, kind
_PORTS = struct.Struct("!HH")  # foreign, local
_PORTS_AT = 16
_FLAGS_AT = 44  # inp_vflag
_IPV4 = 0x1
_FOREIGN_AT, _LOCAL_AT = 48, 64
_ADDRESS_BYTES = 16
_PCB_BYTES = _LOCAL_AT + _ADDRESS_BYTES
_USER = struct.Struct("=I")
_USER_AT = 64  # so_uid
_POINTER_AT = slice(8, 16)  # xso_so: zero if no socket is left of the connection


def user_in(table: bytes, connection: TcpConnection) -> int | None:
    """Return the user of the peer's socket; None: it is not there, or nobody has it open any more."""
    wanted = _PORTS.pack(connection.own_port, connection.peer_port)
    at = table.find(wanted)
    while at >= 0:
        start = at - _PORTS_AT
        if start >= 0 and _is_pcb_of(table[start : start + _PCB_BYTES], connection):
            return _user_of(table, start)
        at = table.find(wanted, at + 1)
    return None


def _is_pcb_of(record: bytes, connection: TcpConnection) -> bool:
    if len(record) < _PCB_BYTES or _RECORD.unpack_from(record)[1] != _PCB:
        return False
    if bool(record[_FLAGS_AT] & _IPV4) != connection.is_ipv4:
        return False
    ends = record[_FOREIGN_AT:_LOCAL_AT], record[_LOCAL_AT:]
    size = len(connection.own)  # an IPv4 address is in the last 4 bytes of its place
    return ends[0][-size:] == connection.own and ends[1][-size:] == connection.peer


def _user_of(table: bytes, pcb_at: int) -> int | None:
    """Return the user of the record behind that of the addresses."""
    length: int = _RECORD.unpack_from(table, pcb_at)[0]
    at = pcb_at + (length + 7) // 8 * 8
    record = table[at : at + _USER_AT + _USER.size]
    if len(record) < _USER_AT + _USER.size or _RECORD.unpack_from(record)[1] != _SOCKET:
        return None
    user: int = _USER.unpack_from(record, _USER_AT)[0]
    return user if any(record[_POINTER_AT]) else None
