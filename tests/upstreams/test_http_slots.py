"""The client for a provider with slots, or behind a router: what each request says of the conversation it belongs to,
and that a slot is free again however its turn ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Any

import pytest

from segue.dialects.render_cache import RenderCache
from segue.history.chains import History, Turn
from segue.protocol.ids import ENTROPY_BYTES, ResponseId, new_response_id
from segue.protocol.items import user_message
from segue.protocol.problems import Refused
from segue.protocol.requests import Settings
from segue.upstreams.http import HttpUpstream, Provider, UpstreamRuntime
from segue.upstreams.interface import UpstreamRequest
from segue.upstreams.retries import RetryPolicy
from segue.upstreams.session_affinity import SessionAffinity
from tests.upstreams.plain_dialect import END, PlainDialect, fail, say
from tests.upstreams.provider import Exchange, Play, hangs, providing, refuses, streams

HI = user_message("Hi")
ANSWERS = streams(say("Hello"), END)


class Talk:
    """A conversation: its next turn continues the last one."""

    def __init__(self, number: int, tenant: str = "ann") -> None:
        self._tenant = tenant
        self._root = new_response_id(bytes([number]) * ENTROPY_BYTES)
        self.parent: Turn | None = None
        self.turns = 0

    def next(self, model: str = "m") -> UpstreamRequest:
        self.turns += 1
        name = self._root if self.parent is None else self._name()
        request = UpstreamRequest(model, name, self._tenant, History(self.parent, (HI,)), Settings(model=model))
        self.parent = Turn(id=name, parent=self.parent, input=(HI,), output=(), calls=frozenset(), stored=False)
        return request

    def _name(self) -> ResponseId:
        return new_response_id(bytes([self.turns]) * ENTROPY_BYTES, self._root)


@asynccontextmanager
async def upstream(
    url: str,
    slots: int | None = None,
    affinity: SessionAffinity | None = None,
    **more: Any,  # noqa: ANN401 - any setting
) -> AsyncIterator[HttpUpstream]:
    retry = RetryPolicy(attempts=3, first_wait_s=0.001, longest_wait_s=0.001)
    provider = Provider(name="acme", base_url=url, retry=retry, slots=slots, max_concurrent=slots or 64, **more)
    runtime = UpstreamRuntime(clock=lambda: 0.0, jitter=lambda: 1.0, render_cache=RenderCache(0))
    one = HttpUpstream(provider, PlainDialect(), runtime, models=["m"], key=None, affinity=affinity)
    await one.start()
    try:
        yield one
    finally:
        await one.aclose()


async def run(one: HttpUpstream, request: UpstreamRequest) -> None:
    async for _ in one.stream(request):
        pass


def gated(gate: asyncio.Event) -> Play:
    async def play(exchange: Exchange) -> None:
        await gate.wait()
        await ANSWERS(exchange)

    return play


async def test_each_conversation_is_sent_to_its_slot() -> None:
    async with providing(ANSWERS) as provider, upstream(provider.url, 2) as one:
        talks = Talk(1), Talk(2), Talk(1, "bob")
        for number in (0, 1, 0, 1, 2, 1):
            await run(one, talks[number].next())
    assert [got.json["id_slot"] for got in provider.got] == [0, 1, 0, 1, 0, 1]
    assert all(got.json["items"] for got in provider.got)


async def test_without_slots_nothing_is_said_of_them() -> None:
    async with providing(ANSWERS) as provider, upstream(provider.url) as one:
        await run(one, Talk(1).next())
    assert provider.got[0].json.keys() == {"model", "items"}
    assert "x-session-id" not in provider.got[0].headers


async def test_turns_at_once_have_a_slot_each_and_one_more_waits() -> None:
    """The waiting turn takes the slot of the turn that ends, even of another conversation."""
    gate = asyncio.Event()
    async with providing(gated(gate)) as provider, upstream(provider.url, 2) as one:
        turns = [asyncio.create_task(run(one, Talk(number).next())) for number in range(3)]
        await provider.until(lambda: len(provider.got) == 2)
        assert (one.admission.running, one.admission.waiting) == (2, 1)
        assert sorted(got.json["id_slot"] for got in provider.got) == [0, 1]
        gate.set()
        await asyncio.gather(*turns)
    assert provider.got[2].json["id_slot"] in {0, 1}


@pytest.mark.parametrize(
    "breaks",
    [refuses(503), refuses(408), streams(fail("server_overloaded"))],
    ids=["503", "408", "fails"],
)
async def test_a_turn_that_is_tried_again_stays_in_its_slot(breaks: Play) -> None:
    """No other turn gets the slot between the attempts."""
    gate = asyncio.Event()

    async with providing(gated(gate), breaks, breaks, ANSWERS) as provider, upstream(provider.url, 3) as one:
        first = asyncio.create_task(run(one, Talk(1).next()))
        await provider.until(lambda: len(provider.got) == 1)
        await run(one, Talk(2).next())
        gate.set()
        await first
    assert [got.json["id_slot"] for got in provider.got] == [0, 1, 1, 1]
    assert len({got.body for got in provider.got[1:]}) == 1


@pytest.mark.parametrize("breaks", [refuses(400), streams(fail("server_error")), streams(say("Hel"))])
async def test_a_turn_that_fails_leaves_its_slot_to_its_conversation(breaks: Play) -> None:
    async with providing(breaks, ANSWERS) as provider, upstream(provider.url, 1, max_queued=0) as one:
        talk = Talk(1)
        with suppress(Refused):
            await run(one, talk.next())
        await run(one, talk.next())
    assert [got.json["id_slot"] for got in provider.got][-1] == 0


async def test_a_turn_that_is_cancelled_leaves_its_slot() -> None:
    async with providing(hangs, ANSWERS) as provider, upstream(provider.url, 1, max_queued=0) as one:
        turn = asyncio.create_task(run(one, Talk(1).next()))
        await provider.until(lambda: len(provider.got) == 1)
        turn.cancel()
        await asyncio.wait([turn])
        await run(one, Talk(2).next())
    assert [got.json["id_slot"] for got in provider.got] == [0, 0]


async def test_a_turn_that_nobody_reads_on_leaves_its_slot() -> None:
    async def talks_on(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.chunk(say("Hel"))
        await exchange.gone.wait()

    async with providing(talks_on, ANSWERS) as provider, upstream(provider.url, 1, max_queued=0) as one:
        async with aclosing(one.stream(Talk(1).next())) as batches:
            assert [await anext(batches), len(await anext(batches)) > 0] == [(), True]
        await run(one, Talk(2).next())
    assert [got.json["id_slot"] for got in provider.got] == [0, 0]


async def test_what_is_refused_before_it_is_sent_takes_no_slot() -> None:
    async with providing(ANSWERS) as provider, upstream(provider.url, 2) as one:
        with pytest.raises(Refused):
            await run(one, Talk(1).next(model="never"))
        await run(one, Talk(2).next())
    assert [got.json["id_slot"] for got in provider.got] == [0]


async def test_a_router_is_told_what_belongs_together() -> None:
    """The affinity key is in one header and names neither tenant nor response."""
    affinity = SessionAffinity("X-Session-ID", lambda tenant: tenant.encode())
    async with providing(ANSWERS) as provider, upstream(provider.url, affinity=affinity) as one:
        talks = Talk(1), Talk(2), Talk(1, "bob")
        for number in (0, 1, 2, 0, 1, 2):
            await run(one, talks[number].next())
    words = [got.headers["x-session-id"] for got in provider.got]
    assert words[:3] == words[3:]
    assert len(set(words)) == 3
    assert all(got.count("x-session-id") == 1 for got in provider.got)
