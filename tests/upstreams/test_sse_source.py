"""The body of a provider's reply as events: its pieces, what is left behind its end, and whose connection it is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import aiohttp
import pytest

from segue.dialects.provider_errors import ProviderError
from segue.http_client.body import JsonBody
from segue.protocol.events import Ended
from segue.upstreams.sse_source import SseSource, drop
from tests.upstreams.plain_dialect import END, say
from tests.upstreams.provider import Exchange, Play, Provider, providing, streams


async def at_once(_size: int) -> None:
    """Go on without a wait."""


@asynccontextmanager
async def opened(
    play: Play, *, turn: Callable[[int], Awaitable[None]] = at_once
) -> AsyncIterator[tuple[SseSource, Provider]]:
    """The source of one reply."""
    body = JsonBody((b"{}",))
    async with providing(play) as provider, aiohttp.ClientSession() as session:
        response = await session.post(provider.url, data=body)
        source = SseSource(response, body, turn=turn)
        try:
            yield source, provider
        finally:
            source.drop()


async def read_all(source: SseSource) -> int:
    """Read a whole stream; return how many events it had."""
    count = 0
    while (events := await source.next_events()) is not None:
        count += len(events)
    return count


async def test_the_tail_of_a_complete_reply_is_read_for_the_next_turn() -> None:
    async with opened(streams(END, b"data: [DONE]\n\n")) as (source, provider):
        while not await source.next_events():
            pass
        tail = source.release(ended=Ended("completed"))
        if tail is not None:  # else all of it had come
            await tail
        assert provider.gone == 0


async def test_a_reply_that_was_read_to_its_end_has_no_tail() -> None:
    async with opened(streams(END)) as (source, _):
        assert await read_all(source) == 1
        assert source.error_instead() is None
        assert source.release(ended=Ended("completed")) is None


@pytest.mark.parametrize("tail", [b"x" * 200_000, b""], ids=["too long", "never ends"])
async def test_a_tail_is_given_up(monkeypatch: pytest.MonkeyPatch, tail: bytes) -> None:
    monkeypatch.setattr("segue.upstreams.sse_source._TAIL_S", 0.02)

    async def play(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.chunk(END)
        if tail:
            await exchange.chunk(tail)
        await exchange.gone.wait()

    async with opened(play) as (source, provider):
        while not await source.next_events():
            pass
        reading = source.release(ended=Ended("completed"))
        assert reading is not None
        await reading
        await provider.until(lambda: provider.gone == 1)


async def test_a_reset_right_after_the_answer_takes_nothing_of_it_back() -> None:
    async def cuts(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.chunk(say("Hello"))
        await exchange.chunk(END)
        exchange.reset()

    async with opened(cuts) as (source, _):
        async with asyncio.timeout(10):
            while source._content.exception() is None:  # noqa: ASYNC110, SLF001 - it tells nobody
                await asyncio.sleep(0)
        assert len(await source.next_events() or ()) == 2


async def test_a_stream_that_still_comes_is_broken_off() -> None:
    async def goes_on(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.chunk(say("Hel"))
        await exchange.gone.wait()

    async with opened(goes_on) as (source, provider):
        assert await source.next_events()
        assert source.release(ended=None) is None
        await provider.until(lambda: provider.gone == 1)


async def test_a_body_that_is_no_stream_may_be_an_error() -> None:
    async with opened(streams(b'{"error":{"message":"Busy.","type":"overloaded_error"}}')) as (source, _):
        assert await read_all(source) == 0
        assert source.error_instead() == ProviderError("Busy.", ("overloaded_error",))


async def test_a_complete_response_is_dropped_without_breaking_its_connection() -> None:
    """The connection may be another turn's by now."""
    body = JsonBody((b"{}",))
    async with providing(streams(END)) as provider, aiohttp.ClientSession() as session:
        for _ in range(2):
            response = await session.post(provider.url, data=body)
            await response.read()
            drop(response, body)
    assert [got.connection for got in provider.got] == [0, 0]


async def test_many_events_at_once_leave_time_for_others() -> None:
    """A read of a quarter of a megabyte is taken in pieces, and the loop turns between them."""
    turns, many = 0, say("x") * 12_000

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    paced: list[int] = []

    async def turn(size: int) -> None:
        paced.append(size)
        await asyncio.sleep(0)

    async with opened(streams(many + END), turn=turn) as (source, _):
        counting = asyncio.create_task(count())
        sizes = []
        while (events := await source.next_events()) is not None:
            sizes.append(len(events))
        counting.cancel()
    assert sum(sizes) == 12_001
    assert turns >= len(paced)
    assert max(sizes) <= 4 * 1024 // len(say("x")) + 1
    assert set(paced) == {4 * 1024}
    assert len(many) * 0.9 <= sum(paced) <= len(many + END)
