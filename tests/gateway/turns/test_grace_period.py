"""Parked turns: where they are found, and that they leave in time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from segue.gateway.turns.grace_period import Parking
from segue.history.cache import TurnCache
from segue.history.chains import Turn
from segue.protocol.ids import ResponseId


def turn(name: str = "resp_1") -> Turn:
    return Turn(id=ResponseId(name), parent=None, input=(b"{}",), output=(), calls=frozenset(), stored=False)


class Released:
    """Notes what was let go of."""

    def __init__(self) -> None:
        self.names: list[tuple[str, str]] = []

    def __call__(self, tenant: str, response_ids: Sequence[ResponseId]) -> None:
        self.names += [(tenant, response_id) for response_id in response_ids]


async def test_a_parked_turn_is_its_tenants_until_its_time_has_come() -> None:
    cache, now, released = TurnCache(1 << 20), [0.0], Released()
    parking = Parking(cache, lambda: now[0], released)
    parked = turn()
    parking.park("a", parked, 10)
    assert cache.peek_slot(parking.slot("a", "resp_1")) is parked
    assert cache.peek_slot(parking.slot("b", "resp_1")) is None
    now[0] = 9.9
    parking.purge()
    assert cache.size_bytes > 0
    assert released.names == []
    now[0] = 10
    parking.purge()
    assert cache.size_bytes == 0
    assert released.names == [("a", "resp_1")]
    parking.close()


async def test_parking_again_can_only_be_for_longer() -> None:
    cache, now = TurnCache(1 << 20), [0.0]
    parking = Parking(cache, lambda: now[0], Released())
    parked = turn()
    parking.park("a", parked, 10)
    parking.park("a", parked, 5)
    now[0] = 7
    parking.purge()
    assert cache.peek_slot(parking.slot("a", "resp_1")) is parked
    parking.drop("a", "resp_1")
    assert cache.size_bytes == 0
    parking.close()


async def test_nobody_needs_to_ask_for_the_purge() -> None:
    cache = TurnCache(1 << 20)
    parking = Parking(cache, lambda: 100.0, Released())
    parking.park("a", turn(), 100)
    for _ in range(3):
        await asyncio.sleep(0)
    assert cache.size_bytes == 0
    parking.close()


async def test_what_has_less_time_than_others_leaves_before_them() -> None:
    cache = TurnCache(1 << 20)
    parking = Parking(cache, lambda: 100.0, Released())
    longer = turn("resp_2")
    parking.park("a", longer, 1e6)
    parking.park("a", turn(), 100)
    for _ in range(3):
        await asyncio.sleep(0)
    assert cache.peek_slot(parking.slot("a", "resp_1")) is None
    assert cache.peek_slot(parking.slot("a", "resp_2")) is longer
    parking.close()
