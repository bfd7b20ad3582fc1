"""Locks in one process."""

from __future__ import annotations

from segue.stores.live.advisory_locks import MemoryLocks


async def test_a_lock_that_is_released_leaves_nothing() -> None:
    locks = MemoryLocks()
    assert await locks.take("a", "l", "one")
    await locks.renew()
    await locks.release("a", "l", "one")
    assert not vars(locks)["_holders"]
