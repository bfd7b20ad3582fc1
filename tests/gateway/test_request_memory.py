"""Which requests may go on, and that what is counted is given back."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segue.gateway.request_memory import HeldRequest, RequestMemory


def test_one_tenant_may_have_all_and_then_waits_for_itself() -> None:
    memory = RequestMemory(100)
    first, second, third = memory.hold("a", 60), memory.hold("a", 40), memory.hold("a", 1)
    assert [one.counted for one in (first, second, third)] == [True, True, False]
    assert memory.size_bytes == 100
    second.release()
    assert third.counted
    assert memory.size_bytes == 61


def test_a_tenant_below_its_share_waits_for_nobody() -> None:
    memory = RequestMemory(100)
    memory.hold("mallory", 100)
    assert not memory.hold("mallory", 1).counted
    assert memory.hold("alice", 20).counted
    assert memory.hold("alice", 30).counted
    assert not memory.hold("alice", 1).counted, "that is its even share"
    assert memory.hold("bob", 200).counted, "one request is always taken"
    assert not memory.hold("bob", 1).counted


def test_who_waits_is_served_in_turn() -> None:
    """Small requests do not pass a large one, which would wait for ever."""
    memory = RequestMemory(100)
    running = memory.hold("a", 90)
    large, small = memory.hold("a", 50), memory.hold("a", 1)
    assert [large.counted, small.counted] == [False, False]
    running.release()
    assert large.counted
    assert small.counted


def test_one_that_leaves_while_it_waits_lets_the_next_go_on() -> None:
    memory = RequestMemory(100)
    memory.hold("a", 90)
    large, small = memory.hold("a", 50), memory.hold("a", 1)
    large.release()
    assert (large.counted, small.counted) == (False, True)


def test_what_outlives_a_request_counts_whether_there_is_room_or_not() -> None:
    memory = RequestMemory(100)
    kept = [memory.keep("a", 80) for _ in range(2)]
    assert memory.size_bytes == 160
    assert not memory.hold("a", 1).counted
    for one in kept:
        one.release()
        one.release()  # does nothing
    assert memory.size_bytes == 1


async def test_a_request_waits_until_it_is_admitted() -> None:
    memory = RequestMemory(10)
    first, second = memory.hold("a", 10), memory.hold("a", 10)
    await first.admitted()
    waiting = asyncio.create_task(second.admitted())
    await asyncio.sleep(0)
    assert not waiting.done()
    first.release()
    await waiting


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 300), st.booleans()), max_size=30), st.data())
def test_nothing_is_lost_and_somebody_always_goes_on(
    requests: list[tuple[str, int, bool]], data: st.DataObject
) -> None:
    """Whatever ends in whatever order: the bounds hold, and whoever waits has something to wait for."""
    memory, there, budget = RequestMemory(400), list[HeldRequest](), 400
    for tenant, size, ends in requests:
        there.append(memory.hold(tenant, size))
        if ends:
            there.pop(data.draw(st.integers(0, len(there) - 1))).release()
        counted = [one for one in there if one.counted]
        held = Counter[str]()
        for one in counted:
            held[one.tenant] += one.size_bytes
        assert memory.size_bytes == sum(held.values()) <= 2 * budget + 3 * 300
        assert all(held[one.tenant] for one in there if not one.counted)
        assert all(size <= budget or _count(counted, tenant) == 1 for tenant, size in held.items())
    for one in there:
        one.release()
    assert memory.size_bytes == 0
    assert memory.hold("a", 10_000).counted


def _count(requests: list[HeldRequest], tenant: str) -> int:
    return sum(one.tenant == tenant for one in requests)


@pytest.mark.parametrize("times", [1, 2])
def test_a_request_without_a_body_counts_too(times: int) -> None:
    memory = RequestMemory(1)
    held = [memory.hold("a", 0) for _ in range(times)]
    assert [one.counted for one in held] == [True, False][:times]


class _Owner:
    """What a request is about."""


def test_a_request_can_end_with_what_it_is_about() -> None:
    """Nobody has to keep it until then, and an end of its own before does no harm."""
    memory, owner, other = RequestMemory(100), _Owner(), _Owner()
    memory.hold("a", 60).release_with(owner)
    ended = memory.hold("a", 30)
    ended.release_with(other)
    ended.release()
    gc.collect()
    assert memory.size_bytes == 60
    waiting = memory.hold("a", 50)
    del owner, other
    assert waiting.counted
    assert memory.size_bytes == 50
    assert not memory.owned
