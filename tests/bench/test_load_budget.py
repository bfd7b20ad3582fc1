"""A load budget never gives more than there is, in the order of asking, and nobody waits for ever."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from hypothesis import given, settings
from hypothesis import strategies as st

from segue.bench.load_budget import LoadBudget
from tests.strategies import examples


@settings(max_examples=examples(80), deadline=None)
@given(loads=st.lists(st.floats(0.1, 15), min_size=1, max_size=12), cancelled=st.sets(st.integers(0, 11)))
def test_never_more_than_there_is_and_everyone_gets_a_turn(loads: list[float], cancelled: set[int]) -> None:
    asyncio.run(_play(loads, cancelled))


async def _play(loads: list[float], cancelled: set[int]) -> None:
    budget, running, served = LoadBudget(10), dict[int, float](), list[int]()

    async def work(number: int, load: float) -> None:
        async with budget.take(load):
            running[number] = min(load, 10)
            served.append(number)
            assert sum(running.values()) <= 10.0001
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            del running[number]

    tasks = [asyncio.create_task(work(number, load)) for number, load in enumerate(loads)]
    await asyncio.sleep(0)
    for number in cancelled & set(range(len(tasks))) - set(served):
        tasks[number].cancel()
    for task in tasks:
        with suppress(asyncio.CancelledError):
            await task
    assert served == sorted(served)
    assert set(served) >= set(range(len(tasks))) - cancelled
    async with asyncio.timeout(5), budget.take(10):
        assert not running


async def test_one_that_is_cancelled_as_it_gets_its_turn_gives_it_back() -> None:
    budget = LoadBudget(1)
    async with budget.take(1):
        waiting = asyncio.create_task(budget.take(1).__aenter__())
        await asyncio.sleep(0)
    waiting.cancel()
    with suppress(asyncio.CancelledError):
        await waiting
    async with asyncio.timeout(5), budget.take(1):
        pass
