"""A TCP connection by its two ends, as the tables of the kernel name it. Pure.

Not here: the tables (`inet_diag`, `proc_net_tcp`, `darwin_pcbs`), and reading them (`lookup`).
"""

from __future__ import annotations

import ipaddress

import msgspec


class TcpConnection(msgspec.Struct, frozen=True):
    """The ends of a connection: addresses as they are in packets (4 or 16 bytes), and ports.

    `scope` is the number of the network interface that a link-local IPv6 address belongs to.
    """

    peer: bytes
    peer_port: int
    own: bytes
    own_port: int
    scope: int = 0

    @property
    def is_ipv4(self) -> bool:
        """Say whether its packets are IPv4, whatever the family of its sockets is."""
        return len(self.peer) == ipaddress.IPV4LENGTH // 8


def tcp_connection(peer: object, own: object) -> TcpConnection | None:
    """Return the connection between two ends, as `getpeername` and `getsockname` tell them; None: it is not TCP."""
    match peer, own:
        case (
            (str(peer_host), int(peer_port), *peer_rest),
            (str(own_host), int(own_port), *_),
        ):
            try:
                ends = _packed(peer_host), _packed(own_host)
            except ValueError:
                return None
            if len(ends[0]) != len(ends[1]):
                return None
            scope = peer_rest[1] if len(peer_rest) > 1 and isinstance(peer_rest[1], int) else 0
            return TcpConnection(ends[0], peer_port, ends[1], own_port, scope)
        case _:
            return None


def _packed(host: str) -> bytes:
    """Return an address as it is in packets: what an IPv6 socket calls ::ffff:127.0.0.1 is IPv4 (RFC 4291, 2.5.5.2)."""
    address = ipaddress.ip_address(host.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped.packed
    return address.packed
