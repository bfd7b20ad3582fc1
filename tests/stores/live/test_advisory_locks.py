"""Locks in one process."""

from __future__ import annotations

import os

from segue.stores.live.advisory_locks import LockClaim, MemoryLocks


async def test_a_lock_that_is_released_leaves_nothing() -> None:
    locks = MemoryLocks()
    assert await locks.take("a", "l", "one")
    await locks.renew()
    await locks.release("a", "l", "one")
    assert not vars(locks)["_holders"]


async def test_of_two_claims_one_has_the_lock_until_it_is_released() -> None:
    locks = MemoryLocks()
    first, second = (LockClaim(locks, "a", "l", os.urandom) for _ in range(2))
    assert await first.take()
    assert not await second.take()
    assert await first.holds()
    assert not await second.holds()
    for _ in range(2):
        await first.release()
    assert await second.take()
    await first.release()
    assert await second.holds(), "who has released it once has nothing more to release"
