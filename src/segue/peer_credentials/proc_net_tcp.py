"""Linux: the tables `/proc/net/tcp` and `/proc/net/tcp6` (proc_net(5)), where netlink may not be used. Pure.

Sandboxes such as gVisor, and services that may use no netlink socket, still have these. Their text grows with the
number of sockets, so netlink comes first. Not here: reading the files (`lookup`).
"""

from __future__ import annotations

import struct
from typing import Final

from segue.peer_credentials.tcp_connection import TcpConnection

#: The tables, in the order in which `user_in` takes them.
PATHS: Final = ("/proc/net/tcp", "/proc/net/tcp6")

_MAPPED = b"\0" * 10 + b"\xff\xff"
_OPEN = frozenset({"01", "04", "05", "08"})  # as in `inet_diag`
#: The columns behind the addresses: state, queues, timer, retransmits, user, timeout, inode.
_STATE, _USER, _INODE = 0, 4, 6


def user_in(table: str, connection: TcpConnection, *, ipv6: bool) -> int | None:
    """Return the user of the peer's socket by one of the two tables; None: it is not there, or not open any more."""
    if not connection.is_ipv4 and not ipv6:
        return None
    mapped = _MAPPED if connection.is_ipv4 and ipv6 else b""  # an IPv6 socket that speaks IPv4
    peer = _end(mapped + connection.peer, connection.peer_port)
    own = _end(mapped + connection.own, connection.own_port)
    _, found, rest = table.partition(f" {peer} {own} ")
    if not found:
        return None
    columns = rest.partition("\n")[0].split()
    if len(columns) <= _INODE or columns[_STATE] not in _OPEN or columns[_INODE] == "0":
        return None
    return int(columns[_USER]) if columns[_USER].isdigit() else None


def _end(address: bytes, port: int) -> str:
    """Return an end as the tables write it: words of 32 bits, each as a number of this machine."""
    words = struct.unpack(f"={len(address) // 4}I", address)
    return "".join(f"{word:08X}" for word in words) + f":{port:04X}"
