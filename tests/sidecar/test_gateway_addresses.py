"""Where a session looks for its gateway, in which order."""

from __future__ import annotations

import pytest

from segue.sidecar.gateway_addresses import GatewayAddresses

ONE, TWO, THREE = "wss://one", "wss://two", "wss://three"
NODE = "wss://node7"


def test_at_first_the_gateways_are_tried_in_order() -> None:
    addresses = GatewayAddresses([ONE, TWO, THREE])
    assert addresses.current == ONE
    assert addresses.begin_round(owner_only=False) == [ONE, TWO, THREE]
    assert addresses.begin_round(owner_only=True) == [ONE]


def test_after_a_link_the_node_comes_first_then_its_gateway_then_the_others() -> None:
    addresses = GatewayAddresses([ONE, TWO, THREE])
    addresses.note_welcome(TWO, NODE.encode(), new_epoch=True)
    assert addresses.current == TWO
    assert addresses.begin_round(owner_only=False) == [NODE, TWO, ONE, THREE]
    assert addresses.begin_round(owner_only=True) == [NODE, TWO]


def test_a_node_that_is_one_of_the_gateways_is_tried_once() -> None:
    addresses = GatewayAddresses([ONE, TWO])
    addresses.note_welcome(ONE, TWO.encode(), new_epoch=True)
    assert addresses.begin_round(owner_only=False) == [TWO, ONE]


@pytest.mark.parametrize("new_epoch", [False, True])
def test_an_address_at_which_the_node_itself_was_not_found_is_not_tried_again(*, new_epoch: bool) -> None:
    addresses = GatewayAddresses([ONE])
    addresses.note_welcome(ONE, NODE.encode(), new_epoch=True)
    addresses.begin_round(owner_only=False)
    addresses.note_failed(NODE)
    addresses.note_welcome(ONE, NODE.encode(), new_epoch=new_epoch)
    expected = [NODE, ONE] if new_epoch else [ONE]  # another node may be found there
    assert addresses.begin_round(owner_only=False) == expected


def test_a_failure_of_an_earlier_round_is_forgotten() -> None:
    addresses = GatewayAddresses([ONE])
    addresses.note_failed(NODE)
    addresses.begin_round(owner_only=False)
    addresses.note_welcome(ONE, NODE.encode(), new_epoch=False)
    assert addresses.begin_round(owner_only=False) == [NODE, ONE]


@pytest.mark.parametrize(
    ("address", "gateway", "usable"),
    [
        (b"ws://10.0.0.1:4747", "http://balancer", True),
        (b"wss://node1.example.com", "wss://balancer.example.com", True),
        (b"ws://10.0.0.1:4747", "wss://balancer.example.com", False),  # our key would travel in the clear
        (b"", "ws://balancer", False),
        (b"node1", "ws://balancer", False),
        (b"\xff", "ws://balancer", False),
    ],
)
def test_an_address_is_used_if_it_is_as_safe_as_the_gateways(address: bytes, gateway: str, *, usable: bool) -> None:
    addresses = GatewayAddresses([gateway])
    addresses.note_welcome(gateway, address, new_epoch=True)
    found = addresses.begin_round(owner_only=True)
    assert found == ([address.decode(), gateway] if usable else [gateway])
