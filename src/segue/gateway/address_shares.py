"""How many connections each peer address has: what one address may take is measured by what others have.

An IPv4 address counts by itself. Of IPv6, one network of 64 bits counts, since every customer of a provider has one
(RFC 6177) and can take a new address in it for each connection. Pure. Not here: which connection gives way
(`connections`).
"""

from __future__ import annotations

import ipaddress
from typing import TypeAlias

#: What counts as one peer; empty for all that have no address, as on a Unix socket.
AddressGroup: TypeAlias = bytes

_NETWORK_BYTES = 8


def address_group(peer: object) -> AddressGroup:
    """Return the group of a peer, by its name as a socket tells it."""
    match peer:
        case (str(host), *_):
            try:
                address = ipaddress.ip_address(host.partition("%")[0])
            except ValueError:
                return b""
            if isinstance(address, ipaddress.IPv4Address):
                return address.packed
            mapped = address.ipv4_mapped
            return address.packed[:_NETWORK_BYTES] if mapped is None else mapped.packed
        case _:
            return b""


class AddressShares:
    """The numbers of connections that are open, by address."""

    def __init__(self) -> None:
        self._counts: dict[AddressGroup, int] = {}

    def __len__(self) -> int:
        """Return how many groups have some."""
        return len(self._counts)

    def of(self, group: AddressGroup) -> int:
        """Return how many connections a group has."""
        return self._counts.get(group, 0)

    def add(self, group: AddressGroup) -> None:
        """Count a connection."""
        self._counts[group] = self.of(group) + 1

    def remove(self, group: AddressGroup) -> None:
        """Count a connection no more."""
        left = self._counts[group] - 1
        if left:
            self._counts[group] = left
        else:
            del self._counts[group]
