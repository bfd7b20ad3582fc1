"""Windows of quotas in Redis: what all nodes take adds up, and is given back by the server's own clock."""

from __future__ import annotations

import asyncio

import pytest

from segue.stores.live.interface import TakenUnits
from tests.stores.live.live_nodes import live_nodes
from tests.stores.live.redis_servers import RedisServer

pytestmark = pytest.mark.redis


async def test_what_several_nodes_take_adds_up(redis_server: RedisServer) -> None:
    db = redis_server.take_database()
    async with live_nodes(redis_server.url(db), "a", "b") as nodes:
        taken = [TakenUnits("requests", 1, 60), TakenUnits("tokens", 100, 6000)]
        told = await asyncio.gather(*(nodes[number % 2].live.windows.take("alice", taken) for number in range(10)))
        full_in_s = max(map(list, told))
        assert full_in_s == pytest.approx([10.0, 10.0], abs=1.0)
        assert await nodes[0].live.windows.take("bob", [TakenUnits("requests", 1, 60)]) == pytest.approx(
            [1.0], abs=0.01
        )
        assert await redis_server.lasting_keys(db) == []


async def test_a_window_is_as_far_as_one_node_says_that_counted_alone(live_url: str) -> None:
    async with live_nodes(live_url, "a") as (one,):
        for _ in range(2):
            told = await one.live.windows.take("a", [TakenUnits("requests", 0, 60, 30.0)])
            assert told == pytest.approx([30.0], abs=0.5)
        assert await one.live.windows.take("a", [TakenUnits("requests", 5, 60)]) == pytest.approx([35.0], abs=0.5)


async def test_a_debt_is_remembered_though_another_window_is_full_soon(redis_server: RedisServer) -> None:
    """All windows of a tenant are under one key, which must not expire before the last of them is full."""
    db = redis_server.take_database()
    async with live_nodes(redis_server.url(db), "a") as (one,):
        await one.live.windows.take("a", [TakenUnits("tokens", 60_000, 6000)])  # ten minutes
        await one.live.windows.take("a", [TakenUnits("requests", 1, 60)])
        keys = await redis_server.command("KEYS", "*windows", db=db)
        assert isinstance(keys, list)
        assert int(str(await redis_server.command("PTTL", *keys, db=db))) > 500_000
