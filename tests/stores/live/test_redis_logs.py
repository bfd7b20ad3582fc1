"""Event logs over several nodes: followed elsewhere, copied in full when Redis was away, and bounded."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Sequence

import pytest

from segue.protocol.events import Event
from segue.protocol.ids import ResponseId
from segue.stores.event_logs import EventLogs, EventsGone, LogTaken, OwnerGone
from segue.stores.live.interface import LiveUnavailable
from tests.loop_clock import LoopClock
from tests.stores.live.live_nodes import live_nodes, until
from tests.stores.live.redis_servers import RedisServer, discard, temporary_server

pytestmark = pytest.mark.redis

ONE, TWO, THREE = (ResponseId(f"resp_{number}") for number in (1, 2, 3))
ECHO = b'{"model":"m"}'
CREATED = Event("response.created", b'{"type":"response.created","response":{"id":"resp_1",', 0, echo=ECHO)


@pytest.fixture
def own_server() -> Iterator[RedisServer]:
    server = temporary_server()
    yield server
    discard(server)


def events(first: int, count: int, size: int = 10) -> list[Event]:
    return [Event("response.output_text.delta", b"x" * size, number) for number in range(first, first + count)]


async def collect(logs: EventLogs, after: int = -1, ident: ResponseId = ONE) -> list[Event]:
    return [event async for batch in logs.follow("a", ident, after) for event in batch]


async def written(logs: EventLogs, *pages: Sequence[Event], ident: ResponseId = ONE) -> None:
    await logs.open("a", ident, shared=True)
    for page in pages:
        await logs.append("a", ident, page)
        await asyncio.sleep(0)


async def test_another_node_follows_from_any_number_to_the_end(live_url: str) -> None:
    async with live_nodes(live_url, "a", "b") as (one, two):
        await written(one.logs, [CREATED, *events(1, 3)])
        assert await two.logs.begun("a", ONE)
        assert await two.logs.latest("a", ONE) == CREATED
        assert await two.logs.runs_elsewhere("a", ONE)
        following = [asyncio.create_task(collect(two.logs, after)) for after in (-1, 2)]
        await asyncio.sleep(0.03)
        await one.logs.append("a", ONE, events(4, 2))
        last = Event("response.completed", b'{"type":"response.completed","response":{', 6, echo=ECHO)
        await one.logs.append("a", ONE, [last])
        await one.logs.end("a", ONE, 100)
        whole = [CREATED, *events(1, 5), last]
        assert [await task for task in following] == [whole, whole[3:]]
        assert await two.logs.latest("a", ONE) == last
        assert not await two.logs.runs_elsewhere("a", ONE)
        with pytest.raises(EventsGone):
            await collect(two.logs, 7)


async def test_what_is_unstored_is_in_the_memory_of_its_node_alone(redis_server: RedisServer) -> None:
    db = redis_server.take_database()
    async with live_nodes(redis_server.url(db), "a", "b") as (one, two):
        await one.logs.open("a", ONE, shared=False)
        await one.logs.append("a", ONE, [Event("x", b"a secret", 0)])
        assert await two.logs.begun("a", ONE)
        with pytest.raises(EventsGone) as caught:
            await collect(two.logs)
        assert caught.value.held_at == "http://a"
        await one.logs.end("a", ONE, 100)
        await one.logs.settled("a", ONE)
        assert len(await collect(one.logs)) == 1
        assert await redis_server.command("KEYS", "*events*", db=db) == []
        assert await redis_server.lasting_keys(db) == []


async def test_the_log_of_a_dead_node_is_ended_once(live_url: str) -> None:
    async with live_nodes(live_url, "a", "b", "c") as (one, two, three):
        await written(one.logs, [CREATED, *events(1, 3)])
        await until_copied(two.logs, 3)
        await one.nodes.aclose()  # its lease is over, and it does not know
        with pytest.raises(OwnerGone) as caught:
            await collect(two.logs)
        assert (caught.value.latest, caught.value.number) == (CREATED, 4)
        for reader in (two, three):
            with pytest.raises(OwnerGone):
                await reader.logs.latest("a", ONE)
        ends = [Event("response.failed", b'{"response":{', 4, echo=ECHO) for _ in range(2)]
        await asyncio.gather(
            *(node.logs.fail("a", ONE, end, keep_s=5) for node, end in zip((two, three), ends, strict=True))
        )
        assert await collect(three.logs) == [CREATED, *events(1, 3), ends[0]]
        await one.logs.append("a", ONE, events(4, 1))
        await one.logs.settled("a", ONE)
        with pytest.raises(LogTaken):
            await one.logs.wait_for_room("a", ONE)
        await one.logs.drop("a", ONE)
        assert len(await collect(two.logs)) == 5, "what others were told stays"


async def test_who_ends_a_log_that_goes_on_after_all_ends_it_at_its_end(live_url: str) -> None:
    async with live_nodes(live_url, "a", "b") as (one, two):
        await written(one.logs, [CREATED])
        await until_copied(two.logs, 0)
        await one.nodes.aclose()  # its lease is over, and it does not know
        with pytest.raises(OwnerGone) as caught:
            await two.logs.latest("a", ONE)
        await one.logs.append("a", ONE, events(1, 3))
        await until_copied(two.logs, 3)
        late = Event("response.failed", b'{"response":{', caught.value.number, echo=ECHO)
        await two.logs.fail("a", ONE, late, keep_s=5)
        with pytest.raises(OwnerGone) as caught:
            await two.logs.latest("a", ONE)
        assert caught.value.number == 4
        end = Event("response.failed", b'{"response":{', 4, echo=ECHO)
        await two.logs.fail("a", ONE, end, keep_s=5)
        assert await collect(two.logs) == [CREATED, *events(1, 3), end]


async def until_copied(logs: EventLogs, number: int, ident: ResponseId = ONE) -> None:
    following = logs.follow("a", ident, -1)
    async for batch in following:
        if batch[-1].sequence_number >= number:
            break
    await following.aclose()


async def test_a_log_that_is_dropped_is_gone_everywhere(live_url: str) -> None:
    async with live_nodes(live_url, "a", "b") as (one, two):
        await written(one.logs, events(0, 3))
        following = asyncio.create_task(collect(two.logs))
        await until_copied(two.logs, 2)
        waiting = asyncio.create_task(two.logs.begun("a", TWO))
        assert not await waiting
        await one.logs.drop("a", ONE)
        with pytest.raises(EventsGone):
            await following


async def test_what_came_while_redis_was_away_is_copied_afterwards(own_server: RedisServer) -> None:
    async with live_nodes(own_server.url(), "a", "b") as (one, two):
        await written(one.logs, [CREATED, *events(1, 3)])
        following = asyncio.create_task(collect(two.logs))
        await until_copied(two.logs, 3)
        own_server.kill()
        for number in range(4, 40):
            await one.logs.wait_for_room("a", ONE)
            await one.logs.append("a", ONE, events(number, 1))
            await asyncio.sleep(0)
        own_server.start()
        await one.logs.end("a", ONE, 100)
        assert await collect(one.logs) == [CREATED, *events(1, 39)]
        await one.logs.settled("a", ONE)
        with contextlib.suppress(EventsGone):  # if it looked when all was gone; it is there again for who asks now
            assert await following == [CREATED, *events(1, 39)]
        assert await collect(two.logs) == [CREATED, *events(1, 39)]


async def test_what_was_copied_although_nobody_said_so_is_read_once(
    own_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call that got no answer was carried out; what is sent again is more by then."""
    clock = LoopClock(monkeypatch)
    async with live_nodes(own_server.url(), "a", "b", lease_s=60.0) as (one, two):
        await written(one.logs, [CREATED])
        await one.logs.published("a", ONE)
        own_server.pause()
        await one.logs.append("a", ONE, events(1, 3))
        await clock.hurry(until(lambda: not one.live.link.available))
        await one.logs.append("a", ONE, events(4, 3))
        own_server.resume()
        await until(lambda: one.live.link.available)
        await one.logs.end("a", ONE, 100)
        await one.logs.settled("a", ONE)
        assert await collect(two.logs) == [CREATED, *events(1, 6)]
        assert await collect(two.logs, 2) == events(3, 4)


async def test_a_redis_that_stands_still_delays_a_turn_by_one_call_at_most(own_server: RedisServer) -> None:
    async with live_nodes(own_server.url(), "a", lease_s=60.0, call_s=1.0, log_bytes=4096) as (one,):
        await written(one.logs, [CREATED])
        await one.logs.published("a", ONE)
        own_server.pause()
        async with asyncio.timeout(30):  # a call for each would take a minute
            for number in range(1, 60):
                await one.logs.wait_for_room("a", ONE)
                await one.logs.append("a", ONE, events(number, 1, 200))
        own_server.resume()
        await one.logs.end("a", ONE, 100)
        await one.logs.settled("a", ONE)


async def test_a_log_that_is_dropped_while_redis_stands_still_is_gone_afterwards(
    own_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = LoopClock(monkeypatch)
    async with live_nodes(own_server.url(), "a", "b", lease_s=60.0) as (one, two):
        await written(one.logs, [CREATED])
        await until_copied(two.logs, 0)
        own_server.pause()
        await clock.hurry(one.logs.drop("a", ONE))
        own_server.resume()
        async with asyncio.timeout(30):
            while True:
                with contextlib.suppress(LiveUnavailable):
                    if not await two.logs.runs_elsewhere("a", ONE):
                        break
                await asyncio.sleep(0.01)


async def test_who_waits_for_a_copy_waits_for_one_attempt(
    own_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = LoopClock(monkeypatch)
    async with live_nodes(own_server.url(), "a", "b", lease_s=60.0) as (one, two):
        await written(one.logs, [CREATED])
        assert await one.logs.published("a", ONE)
        assert await two.logs.latest("a", ONE) == CREATED
        own_server.pause()
        await clock.hurry(written(one.logs, [CREATED], ident=TWO))
        assert not await clock.hurry(one.logs.published("a", TWO))
        assert not await one.logs.published("a", THREE), "there is no such log"
        own_server.resume()


async def test_a_log_and_those_of_a_tenant_have_bounds(redis_server: RedisServer) -> None:
    db = redis_server.take_database()
    async with live_nodes(redis_server.url(db), "a", "b", log_bytes=8192) as (one, two):
        for ident in (ONE, TWO, THREE):
            await written(one.logs, events(0, 7, 1000), ident=ident)
            if ident == THREE:
                await until_copied(two.logs, 6, ident=THREE)
                await one.logs.append("a", ident, events(7, 4, 1000))
            await one.logs.end("a", ident, 100)
            await one.logs.settled("a", ident)
        with pytest.raises(EventsGone):
            await collect(two.logs, ident=THREE)
        assert await collect(two.logs, 6, ident=THREE) == events(7, 4, 1000)
        with pytest.raises(EventsGone):
            await collect(two.logs, 6, ident=ONE)
        assert await collect(two.logs, 6, ident=TWO) == []
        sizes = await redis_server.command("KEYS", "*log-bytes", db=db)
        assert isinstance(sizes, list)
        assert int(str(await redis_server.command("HGET", sizes[0], "all", db=db))) <= 16384


async def test_logs_that_have_expired_are_forgotten(live_url: str) -> None:
    async with live_nodes(live_url, "a") as (one,):
        await written(one.logs, events(0, 1))
        await one.logs.end("a", ONE, 0.01)
        await one.logs.settled("a", ONE)
        await one.logs.purge(1)
        await asyncio.sleep(0.02)
        with pytest.raises(EventsGone):
            await collect(one.logs)


async def test_a_log_that_is_dropped_while_redis_is_away_is_dropped_when_it_is_back(
    own_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who waits for its turn elsewhere would wait for ever."""
    clock = LoopClock(monkeypatch)
    async with live_nodes(own_server.url(), "a", "b", lease_s=60.0) as (one, two):
        await one.logs.open("a", ONE, shared=True)
        own_server.pause()
        await clock.hurry(one.logs.drop("a", ONE))
        own_server.resume()
        await until(lambda: two.live.link.available)
        async with asyncio.timeout(30):
            assert not await two.logs.begun("a", ONE)


async def test_a_log_that_is_there_no_more_needs_no_end(live_url: str) -> None:
    """Between the look at a lost log and its end, its tenant may have been erased."""
    async with live_nodes(live_url, "a", "b") as (one, two):
        await written(one.logs, [CREATED])
        await two.logs.drop("a", ONE)
        await two.logs.fail("a", ONE, Event("response.failed", b"{}", 1), keep_s=5)
        assert await two.logs.latest("a", ONE) is None


@pytest.mark.parametrize("how", ["purge", "drop_tenant", "distrust", "aclose"])
async def test_several_may_drop_logs_at_once(how: str, live_url: str) -> None:
    """Each waits for copies that it stops, and another one may take out what it comes to next."""
    async with live_nodes(live_url, "a") as (one,):
        for ident in (ONE, TWO, THREE):
            await written(one.logs, [CREATED], ident=ident)
            await one.logs.end("a", ident, 0.0)
            await one.logs.settled("a", ident)
        calls = {
            "purge": lambda: one.logs.purge(1.0),
            "drop_tenant": lambda: one.logs.drop_tenant("a", everywhere=False),
            "distrust": one.logs.distrust,
            "aclose": one.logs.aclose,
        }
        others = [one.logs.drop("a", ident) for ident in (THREE, TWO, ONE)]
        await asyncio.gather(calls[how](), *others)
        assert not one.logs.holds("a", ONE)
