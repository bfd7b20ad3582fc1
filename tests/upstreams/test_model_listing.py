"""Lists of models that are kept: when a provider is asked, how long anybody waits, and whose list is whose."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from segue.upstreams import model_listing
from segue.upstreams.interface import Secret
from segue.upstreams.model_listing import FAILURE_KEPT_S, KEPT_S, MAX_LISTS, ModelListing


class Asked:
    """A provider that answers what it is told to, when it is told to; `keys` are those it was asked with."""

    def __init__(self, *answers: Sequence[str] | None) -> None:
        self.keys: list[str | None] = []
        self.answers = list(answers)
        self.gate = asyncio.Event()
        self.gate.set()
        self.asked = asyncio.Event()
        self.answered = asyncio.Event()
        self.cancelled = 0

    async def fetch(self, credential: Secret | None) -> Sequence[str] | None:
        self.keys.append(None if credential is None else credential.reveal())
        self.asked.set()
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        self.answered.set()
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    async def names_after_the_next_answer(self, one: ModelListing) -> tuple[Sequence[str], Sequence[str]]:
        """What is told at once while the provider is asked again, and what is told then."""
        self.answered.clear()
        before = await one.names(None)
        await self.answered.wait()
        return before, await one.names(None)


@asynccontextmanager
async def listing(asked: Asked) -> AsyncIterator[ModelListing]:
    one = ModelListing(asked.fetch)
    try:
        yield one
    finally:
        await one.aclose()


class Clock:
    """Time, as the loop tells it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        self.now = began
        monkeypatch.setattr(loop, "time", lambda: self.now)


async def test_a_list_is_asked_for_once_and_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Asked(("a",), ("a", "b"))
    async with listing(asked) as one:
        assert [await one.names(None) for _ in range(3)] == [("a",)] * 3
        assert asked.keys == [None]
        clock = Clock(monkeypatch)
        clock.now += KEPT_S + 1
        assert await asked.names_after_the_next_answer(one) == (("a",), ("a", "b"))
        assert len(asked.keys) == 2


async def test_a_failure_is_kept_for_a_shorter_time_and_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Asked(None, ("a",), None, ("b",))
    async with listing(asked) as one:
        assert (await one.names(None), await one.names(None), len(asked.keys)) == ((), (), 1)
        clock = Clock(monkeypatch)
        clock.now += FAILURE_KEPT_S + 1
        assert await asked.names_after_the_next_answer(one) == ((), ("a",))
        clock.now += KEPT_S + 1
        assert await asked.names_after_the_next_answer(one) == (("a",), ("a",))  # it does not answer now
        clock.now += FAILURE_KEPT_S + 1
        assert await asked.names_after_the_next_answer(one) == (("a",), ("b",))


async def test_many_at_once_ask_once() -> None:
    asked = Asked(("a",))
    asked.gate.clear()
    async with listing(asked) as one:
        waiting = [asyncio.create_task(one.names(None)) for _ in range(5)]
        await asked.asked.wait()
        asked.gate.set()
        assert await asyncio.gather(*waiting) == [("a",)] * 5
        assert len(asked.keys) == 1


async def test_nobody_waits_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer is there for the next one who asks."""
    monkeypatch.setattr(model_listing, "WAIT_S", 0.0)
    asked = Asked(("a",))
    asked.gate.clear()
    async with listing(asked) as one:
        assert await one.names(None) == ()
        await asked.asked.wait()
        asked.gate.set()
        await asked.answered.wait()
        assert await one.names(None) == ("a",)
        assert len(asked.keys) == 1


async def test_each_key_has_its_own_list() -> None:
    asked = Asked(("a",), ("b",), ("c",))
    async with listing(asked) as one:
        seen = [await one.names(key) for key in (None, Secret("x"), Secret("y"), None, Secret("x"), Secret("y"))]
        assert seen == [("a",), ("b",), ("c",)] * 2
        assert asked.keys == [None, "x", "y"]


async def test_lists_of_keys_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    """The least recently used is forgotten, and if it is still asked for, that stops."""
    asked = Asked(("a",))
    async with listing(asked) as one:
        for number in range(MAX_LISTS + 1):
            await one.names(Secret(str(number)))
        await one.names(Secret("0"))
        assert asked.keys == [*map(str, range(MAX_LISTS + 1)), "0"]
        monkeypatch.setattr(model_listing, "WAIT_S", 0.0)
        asked.gate.clear()
        for number in range(MAX_LISTS + 1):
            await one.names(Secret(f"slow{number}"))
        await one.names(Secret("slow1"))
        assert asked.cancelled == 1


async def test_closing_stops_what_is_under_way() -> None:
    asked = Asked(("a",))
    asked.gate.clear()
    async with listing(asked) as one:
        waiting = asyncio.create_task(one.names(None))
        await asked.asked.wait()
    assert await waiting == ()
