"""Leases in Redis, and notices that reach every node that lives: with nodes that come, leave, stop and lose data."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from segue.stores.live.interface import LiveUnavailable, Notice
from segue.stores.live.redis_nodes import LEASE_S
from segue.testing.live_conformance import LIVE_CHECKS, LiveCheck, LiveParts
from tests.stores.live.live_nodes import TestNode, live_nodes, outlive_loss, stop, until
from tests.stores.live.redis_servers import RedisServer, discard, temporary_server

pytestmark = pytest.mark.redis

DELETED = Notice("deleted", "alice", ("resp_1",))
#: Says at one moment which keys are kept for longer than an hour.
LASTING = """
local answers = {}
for number, key in ipairs(KEYS) do
  answers[number] = redis.call('PTTL', key) > 3600000 and 1 or 0
end
return answers
"""


@pytest.fixture
def own_server() -> Iterator[RedisServer]:
    server = temporary_server()
    yield server
    discard(server)


@pytest.mark.parametrize("check", LIVE_CHECKS, ids=lambda check: check.__name__)
async def test_redis_conforms(check: LiveCheck, live_url: str) -> None:
    node = TestNode(live_url, "a", 9.0)
    try:
        await check(LiveParts(nodes=node.nodes, claims=node.live.claims, locks=node.live.locks, logs=node.logs))
    finally:
        await node.live.aclose()


async def test_each_node_sees_all_that_live_and_tokens_grow(live_url: str) -> None:
    async with live_nodes(live_url, "a", "b") as (one, two):
        assert [lease.node for lease in await one.nodes.living()] == ["a", "b"]
        assert two.nodes.token > one.nodes.token
        assert two.nodes.epoch == one.nodes.epoch
        await two.live.aclose()
        assert [(lease.node, lease.address) for lease in await one.nodes.living()] == [("a", "http://a")]
        assert not two.nodes.held


async def test_a_notice_has_been_acted_on_everywhere_when_it_is_confirmed(live_url: str) -> None:
    async with live_nodes(live_url, "a", "b", "c") as (one, two, three):
        await asyncio.gather(one.nodes.tell(DELETED), two.nodes.tell(Notice("erased", "bob")))
        assert one.heard == [Notice("erased", "bob")]
        assert two.heard == [DELETED]
        assert sorted(three.heard, key=lambda notice: notice.kind) == [DELETED, Notice("erased", "bob")]
        assert (one.lost, two.lost, three.lost) == (0, 0, 0)


async def test_a_confirmation_waits_for_a_node_that_acts_slowly(live_url: str) -> None:
    gate = asyncio.Event()
    async with live_nodes(live_url, "a", "b") as (one, two):
        two.act_slowly(gate)
        telling = asyncio.create_task(one.nodes.tell(DELETED))
        await until(lambda: two.began > 0)
        assert not telling.done()
        gate.set()
        await telling


async def test_a_node_that_cannot_act_drops_what_it_holds(live_url: str) -> None:
    async with live_nodes(live_url, "a", "b") as (one, two):
        two.fail = True
        await one.nodes.tell(DELETED)
        assert two.lost == 1


async def test_a_node_that_stops_loses_its_lease_and_nobody_waits_for_it_longer(live_url: str) -> None:
    gate = asyncio.Event()
    async with live_nodes(live_url, "a", "b") as (one, two):
        await stop(two, gate, seen_by=one)
        assert not two.nodes.held
        assert [lease.node for lease in await one.nodes.living()] == ["a"]
        token = two.nodes.token
        gate.set()
        await until(lambda: two.nodes.held)
        assert two.nodes.token > token
        assert two.lost == 1


async def test_without_a_lease_nothing_is_told(own_server: RedisServer) -> None:
    async with live_nodes(own_server.url(), "a", lease_s=LEASE_S) as (one,):
        own_server.kill()
        one.clock.forward(LEASE_S)
        assert not one.nodes.held
        with pytest.raises(LiveUnavailable):
            await one.nodes.tell(DELETED)
        assert not one.live.available
        own_server.start()
        await until(lambda: one.live.available)
        await outlive_loss(own_server.url())
        await one.nodes.tell(DELETED)
        assert one.lost == 1, "all that was there is gone, and with it what the node has not heard"


async def test_lost_data_is_noticed_and_has_another_epoch(redis_server: RedisServer) -> None:
    db = redis_server.take_database()
    async with live_nodes(redis_server.url(db), "a", "b") as (one, two):
        await one.nodes.tell(DELETED)
        epoch = one.nodes.epoch
        await redis_server.command("FLUSHDB", db=db)
        await until(lambda: one.nodes.epoch == two.nodes.epoch != epoch and (one.lost, two.lost) == (1, 1))
        assert one.epoch_when_lost == two.epoch_when_lost == one.nodes.epoch, "who is told tells clients the new one"
        two.heard.clear()
        await outlive_loss(redis_server.url(db))
        await one.nodes.tell(DELETED)
        assert two.heard == [DELETED]


async def test_data_that_is_lost_while_a_notice_is_on_its_way_delays_it(redis_server: RedisServer) -> None:
    db = redis_server.take_database()
    gate = asyncio.Event()
    async with live_nodes(redis_server.url(db), "a", "b") as (one, two):
        two.act_slowly(gate)
        telling = asyncio.create_task(one.nodes.tell(DELETED))
        await until(lambda: two.began > 0)
        await redis_server.command("FLUSHDB", db=db)
        gate.set()
        await until(lambda: (one.lost, two.lost) == (1, 1))
        assert not telling.done()
        await outlive_loss(redis_server.url(db))
        await telling
        assert len(two.heard) in {1, 2}, "nobody is taken for dead because a lease was lost with all else"


async def test_a_node_that_missed_notices_drops_what_it_holds(redis_server: RedisServer) -> None:
    db = redis_server.take_database()
    async with live_nodes(redis_server.url(db), "a", "b") as (one, two):
        await one.nodes.tell(DELETED)
        await redis_server.command("INCR", "segue:{nodes}:notices:number", db=db)  # one was trimmed before it was read
        await one.nodes.tell(DELETED)
        assert (one.lost, two.lost) == (1, 1)


async def test_every_key_expires(redis_server: RedisServer) -> None:
    db = redis_server.take_database()
    async with live_nodes(redis_server.url(db), "a", "b") as (one, _):
        await one.nodes.tell(DELETED)
        assert await redis_server.lasting_keys(db) == []


async def test_a_node_does_not_start_without_redis(own_server: RedisServer) -> None:
    own_server.kill()
    node = TestNode(own_server.url(), "a", 9.0)
    with pytest.raises(LiveUnavailable, match="Redis"):
        await node.nodes.start(node.act)
    await node.live.aclose()


async def test_a_node_that_begins_right_after_a_loss_waits_for_those_it_does_not_see(redis_server: RedisServer) -> None:
    """The others count on leases that were lost, and have not noticed it yet."""
    db, gate = redis_server.take_database(), asyncio.Event()
    async with live_nodes(redis_server.url(db), "a") as (old,):
        old.act_slowly(gate)
        async with live_nodes(redis_server.url(db), "c") as (other,):
            telling = asyncio.create_task(other.nodes.tell(Notice("deleted", "bob")))
            await until(lambda: old.began > 0)  # it stands still from now on
            telling.cancel()
            await asyncio.gather(telling, return_exceptions=True)
        await redis_server.command("FLUSHDB", db=db)
        async with live_nodes(redis_server.url(db), "b") as (new,):
            assert [lease.node for lease in await new.nodes.living()] == ["b"]
            telling = asyncio.create_task(new.nodes.tell(DELETED))
            assert not await new.nodes.is_gone("a")
            assert (old.nodes.held, telling.done()) == (True, False)
            left_ms = await redis_server.command("PTTL", "segue:{nodes}:lost", db=db)
            old.clock.forward(int(str(left_ms)) / 1000)
            await outlive_loss(redis_server.url(db))
            await telling
            assert await new.nodes.is_gone("a")
            assert not old.nodes.held
            gate.set()


async def test_a_node_that_could_not_drop_its_memory_tries_again_before_it_trusts_it(live_url: str) -> None:
    """Whatever goes wrong there, the node goes on to renew its lease and to act on notices."""
    async with live_nodes(live_url, "a", "b") as (one, two):
        tries: list[bool] = []

        async def lose() -> None:
            tries.append(two.nodes.held)
            if len(tries) < 3:
                raise RuntimeError("it cannot drop anything")

        two.nodes.watch(lose)
        two.fail = True
        await one.nodes.tell(DELETED)
        two.fail = False
        await until(lambda: len(tries) == 3 and two.nodes.held)
        await one.nodes.tell(Notice("erased", "bob"))
        assert two.heard == [Notice("erased", "bob")]
        assert len(tries) == 3


async def test_after_a_quiet_time_no_notice_counts_as_missed(redis_server: RedisServer) -> None:
    """Notices expire after an hour without any. Their number goes on as long as a node lives."""
    db = redis_server.take_database()
    async with live_nodes(redis_server.url(db), "a", "b") as (one, two):
        await one.nodes.tell(DELETED)
        for name, kept_ms in (("notices", 0), ("notices:number", 3600 * 1000)):  # as if an hour had gone by
            await redis_server.command("PEXPIRE", f"segue:{{nodes}}:{name}", str(kept_ms), db=db)
        await one.nodes.drain()  # renews the lease
        keys = [f"segue:{{nodes}}:{name}" for name in ("epoch", "notices:number")]
        lasting = await redis_server.command("EVAL", LASTING, "2", *keys, db=db)
        assert lasting == [1, 1]
        await one.nodes.tell(DELETED)
        assert (one.lost, two.lost, two.heard) == (0, 0, [DELETED, DELETED])
