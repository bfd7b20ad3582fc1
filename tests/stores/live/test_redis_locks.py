"""Locks over several nodes: one has a lock, also when its node dies, stands still, or Redis goes away."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from tests.loop_clock import LoopClock
from tests.stores.live.live_nodes import TestNode, live_nodes, stop, until
from tests.stores.live.redis_servers import RedisServer, discard, temporary_server

pytestmark = pytest.mark.redis

LOCK = ("a", "l")


@pytest.fixture
def own_server() -> Iterator[RedisServer]:
    server = temporary_server()
    yield server
    discard(server)


async def has(node: TestNode, holder: str) -> bool:
    """Whether a holder gets the lock at a node, or has it there."""
    return await node.live.locks.take(*LOCK, holder)


async def test_of_several_nodes_at_once_one_has_the_lock(live_url: str) -> None:
    async with live_nodes(live_url, "a", "b", "c") as nodes:
        taken = await asyncio.gather(*(has(nodes[number % 3], str(number)) for number in range(30)))
        assert sum(taken) == 1
        await nodes[taken.index(True) % 3].live.locks.release(*LOCK, str(taken.index(True)))
        assert await has(nodes[1], "next")


async def test_the_lock_of_a_dead_node_is_free(live_url: str) -> None:
    async with live_nodes(live_url, "a", "b") as (one, two):
        assert await has(one, "1")
        assert not await has(two, "2")
        await one.nodes.aclose()
        assert await has(two, "2")


async def test_who_comes_back_after_its_lease_has_lost_what_another_took(live_url: str) -> None:
    gate = asyncio.Event()
    async with live_nodes(live_url, "a", "b") as (one, two):
        assert await has(one, "1")
        assert await one.live.locks.take("a", "m", "1")
        await stop(one, gate, seen_by=two)
        assert await has(two, "2")
        gate.set()
        await until(lambda: one.nodes.held)
        assert not await one.live.locks.keeps(*LOCK, "1")
        assert await one.live.locks.keeps("a", "m", "1"), "nobody else took it"
        await one.live.locks.release(*LOCK, "1")
        assert await two.live.locks.keeps(*LOCK, "2")
        assert not await has(one, "3")


async def test_while_the_lease_holds_nothing_is_asked_about_a_lock(own_server: RedisServer) -> None:
    async with live_nodes(own_server.url(), "a", lease_s=60) as (one,):
        assert await has(one, "1")
        own_server.pause()
        assert await one.live.locks.keeps(*LOCK, "1")
        own_server.resume()


async def test_without_redis_each_node_locks_alone_and_says_afterwards_what_it_gave_back(
    own_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = LoopClock(monkeypatch)
    async with live_nodes(own_server.url(), "a", "b", lease_s=60) as (one, two):
        assert await has(one, "1")
        own_server.pause()
        assert not await clock.hurry(has(one, "2")), "its own node knows"
        assert await clock.hurry(has(two, "3"))
        await clock.hurry(one.live.locks.release(*LOCK, "1"))
        await clock.hurry(two.live.locks.release(*LOCK, "3"))
        own_server.resume()
        await until(lambda: not len(one.live.locks.owed) and not len(two.live.locks.owed))
        assert await has(two, "4")
        assert not await has(one, "5")


async def test_locks_that_were_lost_with_the_data_are_taken_again(redis_server: RedisServer) -> None:
    db = redis_server.take_database()
    async with live_nodes(redis_server.url(db), "a", "b") as (one, two):
        assert await has(one, "1")
        epoch = one.nodes.epoch
        await redis_server.command("FLUSHDB", db=db)
        await until(lambda: epoch not in (one.nodes.epoch, two.nodes.epoch))
        await one.live.locks.renew()
        assert not await has(two, "2")
        assert await one.live.locks.keeps(*LOCK, "1")


async def test_a_lock_whose_taker_is_cancelled_is_free(own_server: RedisServer) -> None:
    async with live_nodes(own_server.url(), "a", "b", lease_s=60) as (one, two):
        own_server.pause()
        taking = asyncio.create_task(has(one, "1"))
        await asyncio.sleep(0)
        taking.cancel()
        await asyncio.gather(taking, return_exceptions=True)
        own_server.resume()
        await until(lambda: not len(one.live.locks.owed))
        assert await has(two, "2")


async def test_a_lock_whose_release_is_owed_can_be_taken_at_its_node(
    own_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = LoopClock(monkeypatch)
    async with live_nodes(own_server.url(), "a", lease_s=60) as (one,):
        assert await has(one, "1")
        own_server.pause()
        await clock.hurry(one.live.locks.release(*LOCK, "1"))
        assert await clock.hurry(has(one, "2"))
        own_server.resume()
        await until(lambda: not len(one.live.locks.owed))
        assert await one.live.locks.keeps(*LOCK, "2")


async def test_every_lock_expires_and_no_name_is_written(redis_server: RedisServer) -> None:
    db = redis_server.take_database()
    async with live_nodes(redis_server.url(db), "a") as (one,):
        await one.live.locks.take("alice", "a conversation", "1")
        assert await redis_server.lasting_keys(db) == []
        keys = str(await redis_server.command("KEYS", "*", db=db))
        assert "alice" not in keys
        assert "conversation" not in keys
