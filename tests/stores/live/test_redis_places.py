"""Places in Redis: all nodes together get no more than there are, and those of a dead node are free."""

from __future__ import annotations

import pytest
from redis.asyncio import Redis

from segue.stores.live.interface import HeldPlaces, WantedPlaces
from tests.stores.live.live_nodes import TestNode, end_places, live_nodes
from tests.stores.live.redis_servers import RedisServer

pytestmark = pytest.mark.redis


async def hold(node: TestNode, used: int, wanted: int, *, most: int = 5, tenant: str = "a") -> HeldPlaces:
    (told,) = await node.live.places.hold(tenant, [WantedPlaces("turns", used, wanted, most)])
    return told


async def test_nodes_get_what_the_others_have_left(live_url: str) -> None:
    async with live_nodes(live_url, "a", "b") as (one, two):
        assert await hold(one, 0, 3) == HeldPlaces(3, 0)
        assert await hold(two, 0, 3) == HeldPlaces(2, 3)
        assert await hold(one, 1, 1) == HeldPlaces(1, 2), "it gives back what it does not want"
        assert await hold(two, 2, 9) == HeldPlaces(4, 1)
        assert await hold(one, 0, 0) == HeldPlaces(0, 4)
        assert await hold(two, 0, 9, tenant="b") == HeldPlaces(5, 0), "another tenant's are others"


async def test_what_is_used_counts_in_any_case(live_url: str) -> None:
    async with live_nodes(live_url, "a", "b") as (one, two):
        await hold(one, 4, 4)
        assert await hold(two, 3, 3) == HeldPlaces(3, 4)
        assert await hold(one, 4, 5) == HeldPlaces(4, 3)


async def test_several_limits_are_asked_for_together(live_url: str) -> None:
    async with live_nodes(live_url, "a") as (one,):
        told = await one.live.places.hold("a", [WantedPlaces("key:k:turns", 0, 3, 2), WantedPlaces("turns", 0, 3, 9)])
        assert told == [HeldPlaces(2, 0), HeldPlaces(3, 0)]


async def test_the_places_of_who_says_nothing_for_a_lease_are_free(live_url: str) -> None:
    async with live_nodes(live_url, "a", "b", lease_s=60.0) as (one, two):
        assert one.live.places.lease_s == 60.0
        await hold(one, 5, 5)
        async with Redis.from_url(live_url, decode_responses=True) as client:
            (key,) = await client.keys("*:places:*")
            ends_at_ms = int(str(await client.hget(key, "a")).partition(":")[2])
            now_s, _ = await client.time()
        assert 0 < ends_at_ms - now_s * 1000 <= 61_000
        assert (await hold(two, 0, 1)).held == 0
        await end_places(live_url, "a")
        assert (await hold(two, 0, 1)).held == 1
        assert await hold(one, 5, 5) == HeldPlaces(5, 1)


async def test_every_key_expires_and_no_name_is_written(redis_server: RedisServer) -> None:
    db = redis_server.take_database()
    async with live_nodes(redis_server.url(db), "a") as (one,):
        await one.live.places.hold("alice", [WantedPlaces("key:a-secret:turns", 1, 1, 5)])
        assert await redis_server.lasting_keys(db) == []
        assert "secret" not in str(await redis_server.command("KEYS", "*", db=db))
