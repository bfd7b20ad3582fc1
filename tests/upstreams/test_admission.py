"""The admission queue: however a wait ends, no permit is lost and none is granted twice."""

from __future__ import annotations

import asyncio
import threading
from contextlib import AsyncExitStack

import pytest

from segue.protocol.problems import Refused
from segue.upstreams.admission import AdmissionQueue


def make_queue(limit: int = 1, max_waiting: int = 8, timeout_s: float = 60.0) -> AdmissionQueue:
    return AdmissionQueue("model", limit=limit, max_waiting=max_waiting, timeout_s=timeout_s)


async def hold(queue: AdmissionQueue, tenant: str, log: list[str], release: asyncio.Event) -> None:
    async with queue.permit(tenant):
        log.append(tenant)
        await release.wait()


async def settle() -> None:
    """Let every task that can run do so."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_turns_run_within_the_limit() -> None:
    queue, release, log = make_queue(2), asyncio.Event(), list[str]()
    tasks = [asyncio.create_task(hold(queue, "ann", log, release)) for _ in range(3)]
    await settle()
    assert (len(log), queue.running, queue.waiting) == (2, 2, 1)
    release.set()
    await asyncio.gather(*tasks)
    assert (len(log), queue.running, queue.waiting) == (3, 0, 0)


async def test_other_tenants_come_first() -> None:
    queue, release, log = make_queue(), asyncio.Event(), list[str]()
    release.set()
    async with queue.permit("ann"):
        names = ("ann", "ann", "bob")
        tasks = [asyncio.create_task(hold(queue, name, log, release)) for name in names]
        await settle()
    await asyncio.gather(*tasks)
    assert log == ["bob", "ann", "ann"]


async def test_too_many_are_refused_and_told_when_to_come_back() -> None:
    queue = make_queue(max_waiting=0)
    async with queue.permit("ann"):
        with pytest.raises(Refused) as caught:
            await queue.permit("ann").__aenter__()
    assert (caught.value.problem.code, caught.value.problem.retry_after_s) == ("server_overloaded", 1.0)
    async with queue.permit("ann"):
        pass


async def test_the_displaced_are_refused() -> None:
    queue = make_queue(max_waiting=2)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(queue.permit("ann"))
        log, release = list[str](), asyncio.Event()
        release.set()
        first, second = (asyncio.create_task(hold(queue, "ann", log, release)) for _ in range(2))
        await settle()
        other = asyncio.create_task(hold(queue, "bob", log, release))
        with pytest.raises(Refused):
            await second
    await asyncio.gather(first, other)
    assert log == ["bob", "ann"]


async def test_a_wait_times_out() -> None:
    queue = make_queue(timeout_s=0.001)
    async with queue.permit("ann"):
        with pytest.raises(Refused) as caught:
            await queue.permit("bob").__aenter__()
    assert caught.value.problem.code == "server_overloaded"
    assert (queue.running, queue.waiting) == (0, 0)


async def test_a_turn_that_is_cancelled_while_it_waits_leaves_the_queue() -> None:
    queue, release, log = make_queue(), asyncio.Event(), list[str]()
    async with queue.permit("ann"):
        gone, stays = (asyncio.create_task(hold(queue, name, log, release)) for name in ("bob", "cyd"))
        await settle()
        gone.cancel()
        await settle()
        assert queue.waiting == 1
    release.set()
    await stays
    assert (log, gone.cancelled(), queue.running) == (["cyd"], True, 0)


async def test_a_permit_granted_to_a_turn_that_is_just_cancelled_is_passed_on() -> None:
    queue, release, log = make_queue(), asyncio.Event(), list[str]()
    release.set()
    async with queue.permit("ann"):
        gone, stays = (asyncio.create_task(hold(queue, name, log, release)) for name in ("bob", "cyd"))
        await settle()
    gone.cancel()  # the permit was granted to it at the end of the block, but it has not run since
    await asyncio.wait([gone, stays])
    assert (log, queue.running, queue.waiting) == (["cyd"], 0, 0)


async def test_a_permit_granted_at_the_time_out_is_used() -> None:
    queue, release, log = make_queue(timeout_s=0.0), asyncio.Event(), list[str]()
    release.set()
    async with queue.permit("ann"):
        waits = asyncio.create_task(hold(queue, "bob", log, release))
        await asyncio.sleep(0)  # it waits now, and its time is over in the next round of the loop
        assert (queue.waiting, waits.done()) == (1, False)
    await waits
    assert (log, queue.running, queue.waiting) == (["bob"], 0, 0)


async def test_a_thread_that_nobody_waits_for_any_more_keeps_its_permit_to_its_end() -> None:
    """Nobody can stop a thread: if the next one began beside it, who comes and goes would have as many as they like."""
    queue, begun, go_on = make_queue(), list[str](), threading.Event()

    def work(name: str) -> str:
        begun.append(name)
        assert go_on.wait(20)
        return name

    first = asyncio.create_task(queue.run_in_thread("ann", lambda: work("first")))
    while not begun:  # noqa: ASYNC110 - a thread sets no event here
        await asyncio.sleep(0.001)
    first.cancel()
    second = asyncio.create_task(queue.run_in_thread("ann", lambda: work("second")))
    await settle()
    assert (begun, queue.running, first.done()) == (["first"], 1, False)
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert await second == "second"
    assert queue.running == 0


async def test_what_goes_wrong_in_a_thread_is_raised_or_dropped_with_who_has_left() -> None:
    queue, go_on = make_queue(), threading.Event()

    def fail() -> None:
        assert go_on.wait(20)
        raise ValueError("it fails")

    leaving = asyncio.create_task(queue.run_in_thread("ann", fail))
    await settle()
    leaving.cancel()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    with pytest.raises(ValueError, match="it fails"):
        await queue.run_in_thread("ann", fail)
    assert queue.running == 0
