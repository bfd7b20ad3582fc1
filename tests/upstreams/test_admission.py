"""The shell around the scheduler: whatever ends the waiting, no place is lost and none is given twice."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

from segue.protocol.problems import Refused
from segue.upstreams.admission import AdmissionQueue


def admission(limit: int = 1, max_waiting: int = 8, patience_s: float = 60.0) -> AdmissionQueue:
    return AdmissionQueue("model", limit=limit, max_waiting=max_waiting, patience_s=patience_s)


async def hold(places: AdmissionQueue, tenant: str, log: list[str], release: asyncio.Event) -> None:
    async with places.place(tenant):
        log.append(tenant)
        await release.wait()


async def settle() -> None:
    """Let every task that can run do so."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_turns_run_within_the_limit() -> None:
    places, release, log = admission(2), asyncio.Event(), list[str]()
    tasks = [asyncio.create_task(hold(places, "ann", log, release)) for _ in range(3)]
    await settle()
    assert (len(log), places.running, places.waiting) == (2, 2, 1)
    release.set()
    await asyncio.gather(*tasks)
    assert (len(log), places.running, places.waiting) == (3, 0, 0)


async def test_other_tenants_come_first() -> None:
    places, release, log = admission(), asyncio.Event(), list[str]()
    release.set()
    async with places.place("ann"):
        names = ("ann", "ann", "bob")
        tasks = [asyncio.create_task(hold(places, name, log, release)) for name in names]
        await settle()
    await asyncio.gather(*tasks)
    assert log == ["bob", "ann", "ann"]


async def test_too_many_are_refused_and_told_when_to_come_back() -> None:
    places = admission(max_waiting=0)
    async with places.place("ann"):
        with pytest.raises(Refused) as caught:
            await places.place("ann").__aenter__()
    assert (caught.value.problem.code, caught.value.problem.retry_after_s) == ("server_overloaded", 1.0)
    async with places.place("ann"):
        pass


async def test_the_displaced_are_refused() -> None:
    places = admission(max_waiting=2)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(places.place("ann"))
        log, release = list[str](), asyncio.Event()
        release.set()
        first, second = (asyncio.create_task(hold(places, "ann", log, release)) for _ in range(2))
        await settle()
        other = asyncio.create_task(hold(places, "bob", log, release))
        with pytest.raises(Refused):
            await second
    await asyncio.gather(first, other)
    assert log == ["bob", "ann"]


async def test_patience_ends() -> None:
    places = admission(patience_s=0.001)
    async with places.place("ann"):
        with pytest.raises(Refused) as caught:
            await places.place("bob").__aenter__()
    assert caught.value.problem.code == "server_overloaded"
    assert (places.running, places.waiting) == (0, 0)


async def test_who_is_cancelled_while_waiting_leaves_no_trace() -> None:
    places, release, log = admission(), asyncio.Event(), list[str]()
    async with places.place("ann"):
        gone, stays = (asyncio.create_task(hold(places, name, log, release)) for name in ("bob", "cyd"))
        await settle()
        gone.cancel()
        await settle()
        assert places.waiting == 1
    release.set()
    await stays
    assert (log, gone.cancelled(), places.running) == (["cyd"], True, 0)


async def test_a_place_given_to_somebody_who_is_just_cancelled_is_passed_on() -> None:
    places, release, log = admission(), asyncio.Event(), list[str]()
    release.set()
    async with places.place("ann"):
        gone, stays = (asyncio.create_task(hold(places, name, log, release)) for name in ("bob", "cyd"))
        await settle()
    gone.cancel()  # the place was given to it at the end of the block, but it has not run since
    await asyncio.wait([gone, stays])
    assert (log, places.running, places.waiting) == (["cyd"], 0, 0)
