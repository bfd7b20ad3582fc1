"""What counts as a change of the network between two looks."""

from __future__ import annotations

from segue.network_changes.watch import LOOK_EVERY_S, SUSPENDED_S, NetworkChange, NetworkLook, NetworkWatch

HOME = ("192.168.1.7",)
TRAIN = ("10.4.0.2", "2001:db8::7")


def looks(*seen: tuple[tuple[str, ...], float], told: bool = False) -> list[NetworkChange | None]:
    watch = NetworkWatch()
    return [watch.look(NetworkLook(addresses, clock_s), told=told) for addresses, clock_s in seen]


def test_looks_that_show_the_same_are_no_change() -> None:
    assert looks((HOME, 0.0), (HOME, LOOK_EVERY_S), (HOME, 2 * LOOK_EVERY_S)) == [None, None, None]


def test_another_address_is_a_change_and_so_is_a_network_that_comes_back() -> None:
    assert looks((HOME, 0.0), (TRAIN, 2.0), ((), 4.0), (TRAIN, 6.0)) == [None, "moved", None, "moved"]


def test_a_machine_that_was_suspended_has_moved() -> None:
    late = LOOK_EVERY_S + SUSPENDED_S
    assert looks((HOME, 0.0), (HOME, late - 0.1), (HOME, late + late)) == [None, None, "moved"]


def test_what_the_system_tells_counts_though_the_addresses_are_the_same() -> None:
    assert looks((HOME, 0.0), (HOME, 0.1), told=True) == [None, "stirred"]
    assert looks((HOME, 0.0), ((), 0.1), told=True) == [None, None]
