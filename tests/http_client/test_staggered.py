"""Equal attempts one after the other, of which the first to end counts."""

from __future__ import annotations

import asyncio

import pytest

from segue.http_client import staggered
from segue.http_client.staggered import MOST, first_of


class Attempts:
    """Each attempt hangs until the test ends it."""

    def __init__(self) -> None:
        self.begun: list[asyncio.Future[int]] = []
        self.cancelled: list[int] = []
        self.discarded: list[int] = []
        self.each: list[asyncio.Event] = [asyncio.Event() for _ in range(20)]

    async def begin(self) -> int:
        number = len(self.begun)
        self.begun.append(asyncio.get_running_loop().create_future())
        self.each[number].set()
        try:
            return await asyncio.shield(self.begun[number])
        except asyncio.CancelledError:
            if self.begun[number].done():
                return self.begun[number].result()  # it had succeeded just before
            self.cancelled.append(number)
            raise

    def start(self) -> asyncio.Task[int]:
        return asyncio.get_running_loop().create_task(first_of(self.begin, self.discarded.append))

    async def until(self, number: int) -> None:
        await asyncio.wait_for(self.each[number].wait(), 20)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staggered, "INTERVAL_S", 0.01)


async def test_the_newest_may_be_the_first_and_the_oldest_stays() -> None:
    attempts = Attempts()
    task = attempts.start()
    await attempts.until(MOST + 1)
    attempts.begun[MOST + 1].set_result(7)
    assert await task == 7
    assert attempts.cancelled[:2] == [1, 2]
    assert attempts.cancelled[2] == 0
    assert attempts.discarded == []


async def test_the_slow_first_one_may_still_be_the_first() -> None:
    attempts = Attempts()
    task = attempts.start()
    await attempts.until(MOST + 1)
    attempts.begun[0].set_result(1)
    assert await task == 1


async def test_a_failure_is_an_answer() -> None:
    attempts = Attempts()
    task = attempts.start()
    await attempts.until(1)
    attempts.begun[1].set_exception(OSError("refused"))
    with pytest.raises(OSError, match="refused"):
        await task
    assert 0 in attempts.cancelled


async def test_what_succeeds_too_late_is_discarded() -> None:
    attempts = Attempts()
    task = attempts.start()
    await attempts.until(2)
    for number in range(len(attempts.begun)):
        attempts.begun[number].set_result(number)
    assert await task == 0
    assert attempts.discarded[:2] == [1, 2]


async def test_who_is_cancelled_cancels_all() -> None:
    attempts = Attempts()
    task = attempts.start()
    await attempts.until(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert {0, 1} <= set(attempts.cancelled)
