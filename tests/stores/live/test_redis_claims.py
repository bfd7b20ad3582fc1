"""Idempotency keys over several nodes: one create runs, also when its node dies, stops, or Redis goes away."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from segue.protocol.ids import ResponseId
from segue.stores.idempotency_keys import Claim
from segue.stores.live.interface import LiveUnavailable
from segue.testing.live_conformance import MINE, YOURS
from tests.loop_clock import LoopClock
from tests.stores.live.live_nodes import live_nodes, stop, until
from tests.stores.live.redis_servers import RedisServer, discard, temporary_server

pytestmark = pytest.mark.redis


@pytest.fixture
def own_server() -> Iterator[RedisServer]:
    server = temporary_server()
    yield server
    discard(server)


async def test_of_several_nodes_at_once_one_has_the_key(live_url: str) -> None:
    async with live_nodes(live_url, "a", "b", "c") as nodes:
        claims = [Claim(ResponseId(f"resp_{number}"), b"1") for number in range(30)]
        found = await asyncio.gather(
            *(nodes[number % 3].live.claims.claim("a", "k", claim, 0) for number, claim in enumerate(claims))
        )
        assert len(set(found)) == 1
        assert found[0] in claims


async def test_the_claim_of_a_dead_node_is_free_if_nothing_was_forwarded(live_url: str) -> None:
    async with live_nodes(live_url, "a", "b") as (one, two):
        for key in ("claimed", "forwarded", "done"):
            await one.live.claims.claim("a", key, MINE, 0)
        for key in ("forwarded", "done"):
            assert await one.live.claims.forward("a", key, MINE.response_id)
        await one.live.claims.expire("a", "done", MINE.response_id, at=1000, now=0)
        assert await two.live.claims.claim("a", "claimed", YOURS, 0) == MINE, "its node lives"
        await one.nodes.aclose()
        assert await two.live.claims.claim("a", "claimed", YOURS, 0) == YOURS
        assert await two.live.claims.claim("a", "forwarded", YOURS, 0) == Claim(
            MINE.response_id, MINE.digest, lost=True
        )
        assert await two.live.claims.claim("a", "done", YOURS, 0) == MINE
        assert not await one.live.claims.forward("a", "claimed", MINE.response_id), "it is not its own any more"


async def test_a_node_that_comes_back_does_not_forward_what_was_taken_over(live_url: str) -> None:
    gate = asyncio.Event()
    async with live_nodes(live_url, "a", "b") as (one, two):
        await one.live.claims.claim("a", "k", MINE, 0)
        await stop(one, gate, seen_by=two)
        assert not await one.live.claims.forward("a", "k", MINE.response_id), "it has no lease"
        assert await two.live.claims.claim("a", "k", YOURS, 0) == YOURS
        gate.set()
        await until(lambda: one.nodes.held)
        assert not await one.live.claims.forward("a", "k", MINE.response_id)
        assert await two.live.claims.forward("a", "k", YOURS.response_id)
        assert not await two.live.claims.forward("a", "k", YOURS.response_id), "once"


async def test_after_a_loss_of_data_nothing_is_claimed_until_the_epoch_is_another(redis_server: RedisServer) -> None:
    db, gate = redis_server.take_database(), asyncio.Event()
    async with live_nodes(redis_server.url(db), "a", "b") as (one, two):
        epoch = one.nodes.epoch
        await one.live.claims.claim("a", "k", MINE, 0)
        one.act_slowly(gate)  # it does not notice the loss before the gate is open
        telling = asyncio.create_task(two.nodes.tell(one.anything))
        await until(lambda: one.began > 0)
        telling.cancel()
        await redis_server.command("FLUSHDB", db=db)
        with pytest.raises(LiveUnavailable, match="lost"):
            await one.live.claims.claim("a", "k", YOURS, 0)
        gate.set()
        await until(lambda: one.nodes.epoch != epoch)
        await until(lambda: not one.live.claims.owed)
        assert await one.live.claims.claim("a", "k", YOURS, 0) == YOURS, "who names an epoch is refused before"


async def test_what_redis_did_not_hear_is_said_when_it_is_back(
    own_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = LoopClock(monkeypatch)
    async with live_nodes(own_server.url(), "a", lease_s=60) as (one,):
        claims = one.live.claims
        await claims.claim("a", "k", MINE, 0)
        await claims.claim("a", "l", MINE, 0)
        own_server.pause()
        await clock.hurry(claims.release("a", "k", MINE.response_id))
        await clock.hurry(claims.expire("a", "l", MINE.response_id, at=100, now=0))
        with pytest.raises(LiveUnavailable):
            await clock.hurry(claims.claim("a", "m", MINE, 0))
        own_server.resume()
        await until(lambda: not claims.owed)
        assert await claims.claim("a", "k", YOURS, 0) == YOURS
        assert await claims.claim("a", "l", YOURS, 0) == MINE
        assert await claims.claim("a", "m", YOURS, 0) == YOURS


async def test_every_key_expires_and_no_client_key_is_written(redis_server: RedisServer) -> None:
    db = redis_server.take_database()
    async with live_nodes(redis_server.url(db), "a") as (one,):
        await one.live.claims.claim("alice", "a secret key", MINE, 0)
        assert await redis_server.lasting_keys(db) == []
        keys = await redis_server.command("KEYS", "*", db=db)
        assert "alice" not in str(keys)
        assert "secret" not in str(keys)
