"""Which peers count as one, and how many connections they have."""

from __future__ import annotations

import pytest

from segue.gateway.address_shares import AddressShares, address_group


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (("192.0.2.1", 1), ("192.0.2.1", 2), True),
        (("192.0.2.1", 1), ("192.0.2.2", 1), False),
        (("192.0.2.1", 1), ("::ffff:192.0.2.1", 1, 0, 0), True),
        (("2001:db8:0:1::1", 1, 0, 0), ("2001:db8:0:1:ffff::2", 2, 0, 0), True),
        (("2001:db8:0:1::1", 1, 0, 0), ("2001:db8:0:2::1", 1, 0, 0), False),
        (("fe80::1%eth0", 1, 0, 2), ("fe80::2%eth0", 1, 0, 2), True),
        ("", None, True),
        (("a name", 1), "", True),
        (("192.0.2.1", 1), "", False),
    ],
)
def test_an_ipv4_address_and_an_ipv6_network_are_one_peer(one: object, other: object, same: bool) -> None:
    assert (address_group(one) == address_group(other)) is same


def test_groups_without_connections_take_no_memory() -> None:
    shares = AddressShares()
    for _ in range(2):
        shares.add(b"a")
    shares.add(b"b")
    assert (shares.of(b"a"), shares.of(b"b"), shares.of(b"c"), len(shares)) == (2, 1, 0, 2)
    for group in (b"a", b"b", b"a"):
        shares.remove(group)
    assert vars(AddressShares()) == vars(shares)
