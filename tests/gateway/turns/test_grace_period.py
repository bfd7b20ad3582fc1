"""Turns in their grace period: where they are found, and that they leave in time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from segue.gateway.turns.grace_period import GracePeriod
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


async def test_a_retained_turn_is_its_tenants_until_its_time_has_come() -> None:
    cache, now, released = TurnCache(1 << 20), [0.0], Released()
    grace = GracePeriod(cache, lambda: now[0], released)
    retained = turn()
    grace.retain("a", retained, 10)
    assert cache.peek_slot(grace.slot("a", "resp_1")) is retained
    assert cache.peek_slot(grace.slot("b", "resp_1")) is None
    now[0] = 9.9
    grace.purge()
    assert cache.size_bytes > 0
    assert released.names == []
    now[0] = 10
    grace.purge()
    assert cache.size_bytes == 0
    assert released.names == [("a", "resp_1")]
    grace.close()


async def test_grace_again_can_only_be_for_longer() -> None:
    cache, now = TurnCache(1 << 20), [0.0]
    grace = GracePeriod(cache, lambda: now[0], Released())
    retained = turn()
    grace.retain("a", retained, 10)
    grace.retain("a", retained, 5)
    now[0] = 7
    grace.purge()
    assert cache.peek_slot(grace.slot("a", "resp_1")) is retained
    grace.drop("a", "resp_1")
    assert cache.size_bytes == 0
    grace.close()


async def test_many_turns_leave_each_in_its_time_and_are_looked_at_once() -> None:
    """Also those that were held for longer meanwhile, or dropped and held again."""
    cache, now, released = TurnCache(1 << 24), [0.0], Released()
    grace = GracePeriod(cache, lambda: now[0], released)
    for number in range(100):
        grace.retain("a", turn(f"resp_{number}"), 1000 - number)
    grace.retain("a", turn("resp_99"), 2000)
    grace.drop("a", "resp_98")
    grace.retain("a", turn("resp_98"), 950)
    now[0] = 904
    grace.purge()
    assert [name for _, name in released.names] == ["resp_97", "resp_96"]
    assert grace.holds("a", "resp_98")
    now[0] = 1000
    grace.purge()
    assert len(released.names) == 99
    assert grace.holds("a", "resp_99")
    assert not grace.holds("a", "resp_98")
    grace.close()


async def test_nobody_needs_to_ask_for_the_purge() -> None:
    cache = TurnCache(1 << 20)
    grace = GracePeriod(cache, lambda: 100.0, Released())
    grace.retain("a", turn(), 100)
    for _ in range(3):
        await asyncio.sleep(0)
    assert cache.size_bytes == 0
    grace.close()


async def test_what_has_less_time_than_others_leaves_before_them() -> None:
    cache = TurnCache(1 << 20)
    grace = GracePeriod(cache, lambda: 100.0, Released())
    longer = turn("resp_2")
    grace.retain("a", longer, 1e6)
    grace.retain("a", turn(), 100)
    for _ in range(3):
        await asyncio.sleep(0)
    assert cache.peek_slot(grace.slot("a", "resp_1")) is None
    assert cache.peek_slot(grace.slot("a", "resp_2")) is longer
    grace.close()


async def test_a_tenant_is_held_no_longer() -> None:
    """Its turns are not released one by one: whoever drops the tenant tells of that."""
    cache, released = TurnCache(1 << 20), Released()
    grace = GracePeriod(cache, lambda: 0.0, released)
    for tenant in ("a", "b"):
        grace.retain(tenant, turn(), 10)
    grace.drop_tenant("a")
    assert cache.peek_slot(grace.slot("a", "resp_1")) is None
    assert cache.peek_slot(grace.slot("b", "resp_1")) is not None
    assert released.names == []
    grace.close()
