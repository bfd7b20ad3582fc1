"""Linux: asking the kernel for one socket by netlink (sock_diag(7), `struct inet_diag_req_v2` and `inet_diag_msg`).

The kernel looks the connection up in its hash table, so that the question costs some microseconds however many sockets
there are. Pure: it writes the question and reads the answer. Not here: the netlink socket (`lookup`).
"""

from __future__ import annotations

import struct
from typing import Final

from segue.peer_credentials.tcp_connection import TcpConnection

#: NETLINK_SOCK_DIAG.
PROTOCOL: Final = 4
#: More than one answer about one socket.
ANSWER_BYTES: Final = 8192

_SOCK_DIAG_BY_FAMILY = 20
_REQUEST = 1  # NLM_F_REQUEST, without NLM_F_DUMP: one socket
_AF_INET, _AF_INET6 = 2, 10
_TCP = 6
_ANY = 0xFFFFFFFF  # INET_DIAG_NOCOOKIE; any state

_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr
_QUESTION = struct.Struct("=BBBBI")
_PORTS = struct.Struct("!HH")
_INTERFACE_AND_COOKIE = struct.Struct("=III")
_STATE = struct.Struct("=BBBB")  # family, state, timer, retransmits
_END = struct.Struct("=IIIII")  # expires, receive queue, send queue, user, inode
_SOCKET_ID_BYTES = 48

#: States of a connection that somebody has opened and not closed: established, and those in which only one end has
#: said that it is done.
_OPEN = frozenset({1, 4, 5, 8})


def question(connection: TcpConnection) -> bytes:
    """Return the message that asks for the peer's socket: seen from there, the peer is the source."""
    family = _AF_INET if connection.is_ipv4 else _AF_INET6
    body = b"".join(
        (
            _QUESTION.pack(family, _TCP, 0, 0, _ANY),
            _PORTS.pack(connection.peer_port, connection.own_port),
            connection.peer.ljust(16, b"\0"),
            connection.own.ljust(16, b"\0"),
            _INTERFACE_AND_COOKIE.pack(connection.scope, _ANY, _ANY),
        )
    )
    return _HEADER.pack(_HEADER.size + len(body), _SOCK_DIAG_BY_FAMILY, _REQUEST, 0, 0) + body


def user_of(answer: bytes) -> int | None:
    """Return the user of the socket that an answer describes.

    None: there is no such socket here, or nobody has it open any more. Of one that was closed the kernel still knows
    the ports, but tells user 0 and inode 0.
    """
    end_at = _HEADER.size + _STATE.size + _SOCKET_ID_BYTES
    if len(answer) < end_at + _END.size or _HEADER.unpack_from(answer)[1] != _SOCK_DIAG_BY_FAMILY:
        return None
    state: int = _STATE.unpack_from(answer, _HEADER.size)[1]
    user: int
    inode: int
    *_, user, inode = _END.unpack_from(answer, end_at)
    return user if inode and state in _OPEN else None
