"""What only the store in memory promises."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from segue.stores.interface import Store
from segue.stores.memory import MemoryStore
from segue.testing.conversation_conformance import CONVERSATION_CHECKS
from segue.testing.store_conformance import ALICE, BOB, NOW, sample_id, sample_record


async def test_equal_echoes_are_held_once() -> None:
    """A hundred turns share one copy of equal settings, and free it when all are deleted."""
    store = MemoryStore()
    echo = b'{"instructions":"%b"}' % (b"x" * 100_000)
    for n in range(100):
        await store.append(sample_record(str(n), tenant=(ALICE, BOB)[n % 2], echo=bytes(bytearray(echo))))
    assert 100_000 < (await store.size()).size_bytes < 200_000
    for n in range(100):
        assert await store.delete((ALICE, BOB)[n % 2], sample_id(str(n)), NOW)
    assert (await store.size()).size_bytes == 0
    await store.aclose()


async def test_a_tombstone_holds_only_what_descendants_need() -> None:
    """Deleting a parent frees its settings at once and its items with its last child."""
    store = MemoryStore()
    await store.append(sample_record("root", echo=b'{"instructions":"%b"}' % (b"x" * 100_000)))
    await store.append(sample_record("leaf", "root"))
    assert await store.delete(ALICE, sample_id("root"), NOW)
    assert 0 < (await store.size()).size_bytes < 10_000
    assert await store.delete(ALICE, sample_id("leaf"), NOW)
    assert (await store.size()).size_bytes == 0
    await store.aclose()


@pytest.mark.parametrize("check", CONVERSATION_CHECKS, ids=lambda check: check.__name__)
async def test_conversations_keep_their_rules(check: Callable[[Store], Awaitable[None]]) -> None:
    """Those of the conformance suite, which runs over all stores in `tests/testing`."""
    store = MemoryStore()
    await check(store)
    await store.aclose()
