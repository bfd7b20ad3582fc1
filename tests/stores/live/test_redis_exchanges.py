"""An exchange is one node's, for as long as a sidecar may come back for it."""

from __future__ import annotations

import asyncio

import pytest

from tests.stores.live.live_nodes import live_nodes
from tests.stores.live.redis_servers import RedisServer

pytestmark = pytest.mark.redis


async def test_one_node_has_an_exchange(redis_server: RedisServer) -> None:
    db = redis_server.take_database()
    async with live_nodes(redis_server.url(db), "a", "b") as nodes:
        exchanges = [node.live.exchanges for node in nodes]
        mine = await asyncio.gather(*(one.claim("alice", "s", 1) for one in exchanges))
        assert sorted(mine) == [False, True]
        assert await exchanges[mine.index(True)].claim("alice", "s", 1), "it is its own still"
        others = [("bob", "s", 1), ("alice", "t", 1), ("alice", "s", 2)]
        assert all([await exchanges[1].claim(*other) for other in others])
        assert await redis_server.lasting_keys(db) == []
