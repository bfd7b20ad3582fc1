"""A thread beside the event loop works for a slice at a time; the loop goes round between two, and has its share."""

from __future__ import annotations

import asyncio
import threading
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segue.upstreams import time_slices
from segue.upstreams.time_slices import MOST_REST_S, TimeAccounts, TimeSlices

_SECONDS = st.floats(0.0, 10.0)
_SLICES = st.lists(st.tuples(st.sampled_from(["ann", "bob"]), st.floats(0.0, 0.002)), max_size=30)


@given(slices=_SLICES)
def test_a_tenant_rests_for_three_quarters_of_the_time_and_for_nobody_else(slices: list[tuple[str, float]]) -> None:
    """However many threads it has: here all of them have computed until now."""
    accounts = TimeAccounts()
    rests = {"ann": 0.0, "bob": 0.0}
    for tenant, computed_s in slices:
        rests[tenant] = accounts.book(tenant, computed_s, 100.0)
    for tenant, rest_s in rests.items():
        computed = [computed_s for of, computed_s in slices if of == tenant]
        assert rest_s <= 4 * sum(computed) + 1e-9
        assert rest_s >= min(4 * sum(computed) - max(computed, default=0.0), MOST_REST_S) - 1e-9


@given(computed_s=_SECONDS)
def test_a_thread_always_goes_on(computed_s: float) -> None:
    accounts = TimeAccounts()
    assert accounts.book("ann", computed_s, 100.0) == pytest.approx(min(3 * computed_s, MOST_REST_S))
    assert accounts.book("ann", computed_s, 100.0) <= MOST_REST_S


def test_who_rests_no_longer_is_forgotten() -> None:
    accounts = TimeAccounts()
    for number in range(1000):
        accounts.book(f"tenant{number}", 0.001, float(number))
    assert len(accounts) < 100


class _Clock:
    """The clock of a thread; `round_s` is how long each round of the loop takes."""

    def __init__(self, round_s: float) -> None:
        self.computed_s = 0.0
        self.rests: list[float] = []
        self._round_s = round_s
        self._now = 0.0

    def perf_counter(self) -> float:
        self._now += self._round_s
        return self._now

    def thread_time(self) -> float:
        return self.computed_s

    def sleep(self, duration_s: float) -> None:
        self.rests.append(duration_s)


def _rests(monkeypatch: pytest.MonkeyPatch, slices: TimeSlices, round_s: float) -> list[float]:
    """Return how long a thread rests between slices of 2 ms."""
    clock = _Clock(round_s)
    monkeypatch.setattr(time_slices, "time", clock)
    for _ in range(3):
        slices.pause()
        clock.computed_s += 0.002
    return clock.rests


async def test_a_thread_rests_while_the_loop_has_work(monkeypatch: pytest.MonkeyPatch) -> None:
    slices = TimeSlices(asyncio.get_running_loop(), TimeAccounts(), "ann", slice_s=0.0)
    assert await asyncio.to_thread(_rests, monkeypatch, slices, 0.002) == pytest.approx([0.006, 0.006])


async def test_a_thread_does_not_rest_beside_an_idle_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    slices = TimeSlices(asyncio.get_running_loop(), TimeAccounts(), "ann", slice_s=0.0)
    assert await asyncio.to_thread(_rests, monkeypatch, slices, 0.0001) == []


async def test_what_turns_wait_for_does_not_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    slices = TimeSlices(asyncio.get_running_loop(), slice_s=0.0)
    assert await asyncio.to_thread(_rests, monkeypatch, slices, 0.002) == []


class _LoopClock:
    """A clock that a busy loop drives: each of its rounds takes a millisecond, and so does each slice of a thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._of_thread = threading.local()
        self._round = threading.Condition()
        self.rounds = 0
        self._again = loop.call_soon(self._go_round)

    def _go_round(self) -> None:
        with self._round:
            self.rounds += 1
            self._round.notify_all()
        self._again = self._loop.call_soon(self._go_round)

    def perf_counter(self) -> float:
        return self.rounds * 0.001

    def thread_time(self) -> float:
        self._of_thread.slices = getattr(self._of_thread, "slices", 0) + 1
        return float(self._of_thread.slices * 0.001)

    def sleep(self, duration_s: float) -> None:
        ends_at = self.perf_counter() + duration_s
        with self._round:
            self._round.wait_for(lambda: self.perf_counter() >= ends_at)

    def close(self) -> None:
        self._again.cancel()


@pytest.mark.parametrize("threads", [1, 3])
async def test_a_busy_loop_goes_round_four_times_for_each_slice_of_a_tenant(
    monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    loop, accounts = asyncio.get_running_loop(), TimeAccounts()
    clock = _LoopClock(loop)
    monkeypatch.setattr(time_slices, "time", clock)

    def compute() -> None:
        with TimeSlices(loop, accounts, "ann", slice_s=0.0) as slices:
            for _ in range(20):
                slices.pause()

    with closing(clock):
        await asyncio.gather(*(asyncio.to_thread(compute) for _ in range(threads)))
        assert clock.rounds >= threads * 20 * 4


async def test_the_next_piece_of_work_rests_for_the_last_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many short ones are no less than a long one."""
    loop, accounts = asyncio.get_running_loop(), TimeAccounts()
    clock = _LoopClock(loop)
    monkeypatch.setattr(time_slices, "time", clock)

    def compute() -> None:
        with TimeSlices(loop, accounts, "ann", slice_s=0.0):
            pass

    with closing(clock):
        for _ in range(20):
            await asyncio.to_thread(compute)
        assert clock.rounds >= 20 * 4


async def test_what_is_ready_in_the_loop_is_done_between_two_slices() -> None:
    loop, done = asyncio.get_running_loop(), list[str]()
    slices = TimeSlices(loop, slice_s=0.0)

    def work() -> None:
        for number in range(3):
            loop.call_soon_threadsafe(done.append, f"of the loop {number}")
            slices.pause()
            done.append(f"of the thread {number}")

    await asyncio.to_thread(work)
    assert done == [f"of the {whose} {number}" for number in range(3) for whose in ("loop", "thread")]


async def test_within_a_slice_nothing_is_asked_of_the_loop() -> None:
    loop = asyncio.get_running_loop()
    slices = TimeSlices(loop, slice_s=3600.0)
    await asyncio.to_thread(slices.pause)
    slices.pause()  # in the loop's own thread, which would wait for itself


async def test_work_that_outlives_its_loop_goes_on() -> None:
    closed = asyncio.new_event_loop()
    closed.close()
    slices = TimeSlices(closed, slice_s=0.0)
    slices.pause()
    slices.pause()
