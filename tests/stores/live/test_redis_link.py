"""Scripts at Redis: they travel together, wait for a bounded time, and are refused at once while nothing answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

from segue.stores.live.interface import LiveUnavailable
from segue.stores.live.live_url import LiveUrl, parse_live_url
from segue.stores.live.redis_link import RedisLink, Script, connect, load_script
from tests.loop_clock import LoopClock
from tests.stores.live.redis_servers import RedisServer, discard, temporary_server

pytestmark = pytest.mark.redis

ADD = Script("return redis.call('INCRBY', KEYS[1], ARGV[1])", "0" * 40)
WRONG = Script("return redis.error_reply('no')", "1" * 40)


@pytest.fixture
def own_server() -> Iterator[RedisServer]:
    server = temporary_server()
    yield server
    discard(server)


@asynccontextmanager
async def linked(url: str, call_s: float = 2.0) -> AsyncIterator[RedisLink]:
    link = RedisLink(parse_live_url(url), call_s=call_s)
    try:
        yield link
    finally:
        await link.aclose()


async def test_what_is_asked_for_at_once_is_answered_in_order(live_url: str) -> None:
    async with linked(live_url) as link:
        answers = await asyncio.gather(*(link.run(ADD, [f"k{number % 2}"], 1) for number in range(300)))
        assert answers == [number // 2 + 1 for number in range(300)]


async def test_a_script_is_sent_once_and_then_named(redis_server: RedisServer) -> None:
    async with linked(redis_server.url(redis_server.take_database())) as link:
        script = load_script("read_epoch")
        await redis_server.command("SCRIPT", "FLUSH")
        assert await link.run(script, ["none"]) is None
        assert await redis_server.command("SCRIPT", "EXISTS", script.sha) == [1]
        assert await link.run(script, ["none"]) is None


async def test_a_script_that_is_refused_fails_alone(live_url: str) -> None:
    async with linked(live_url) as link:
        calls = [link.run(WRONG, []), link.run(ADD, ["k"], 2)]
        answers = await asyncio.gather(*calls, return_exceptions=True)
        assert isinstance(answers[0], LiveUnavailable)
        assert answers[1] == 2
        assert link.available


async def test_a_server_that_is_gone_is_asked_again_after_a_pause(
    own_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = LoopClock(monkeypatch)
    async with linked(own_server.url()) as link:
        await link.run(ADD, ["k"], 1)
        own_server.kill()
        with clock.stopped():
            calls = [link.run(ADD, ["k"], 1) for _ in range(3)]
            refused = await asyncio.gather(*calls, return_exceptions=True)
            assert all(isinstance(one, LiveUnavailable) for one in refused)
            assert not link.available
            own_server.start()
            with pytest.raises(LiveUnavailable, match="a moment ago"):
                await link.run(ADD, ["k"], 1)
        async with asyncio.timeout(30):
            while not link.available:
                try:
                    assert await link.run(ADD, ["k"], 1) == 1
                except LiveUnavailable:
                    await asyncio.sleep(0.02)


async def test_a_server_that_stands_still_is_waited_for_no_longer_than_a_call_may_take(
    own_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = LoopClock(monkeypatch)
    loop = asyncio.get_running_loop()
    async with linked(own_server.url(), call_s=9.0) as link:
        await link.run(ADD, ["k"], 1)
        await own_server.command("CLIENT", "PAUSE", "3600000")
        for stands_still in (nothing, own_server.pause):
            stands_still()
            clock.forward(1.0)  # so that it is asked again
            began = loop.time()
            with pytest.raises(LiveUnavailable, match="does not answer"):
                await clock.hurry(link.run(ADD, ["k"], 1))
            assert loop.time() - began >= 9.0
        own_server.resume()


def nothing() -> None:
    """Do no more."""


async def test_closing_ends_what_waits(own_server: RedisServer) -> None:
    own_server.pause()
    async with linked(own_server.url()) as link:
        calls = [asyncio.create_task(link.run(ADD, ["k"], 1)) for _ in range(2)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert all(isinstance(one, LiveUnavailable) for one in await asyncio.gather(*calls, return_exceptions=True))
    own_server.resume()


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("redis://u:p@h:1/2", "Redis"),
        ("rediss://h", "Redis"),
        ("redis+sentinel://a,b/main", "Redis"),
        ("redis+cluster://a,b", "RedisCluster"),
    ],
)
async def test_each_kind_of_url_has_its_client(url: str, kind: str) -> None:
    """Nothing is asked of a server until the client is used."""
    where: LiveUrl = parse_live_url(url)
    client = connect(where, timeout_s=1.0)
    assert type(client).__name__ == kind
    await client.aclose()
