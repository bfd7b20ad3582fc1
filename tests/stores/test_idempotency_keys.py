"""Idempotency keys in memory, beside what `segue.testing.live_conformance` checks of both forms."""

from __future__ import annotations

from segue.protocol.ids import ResponseId
from segue.stores.idempotency_keys import Claim, MemoryClaims

MINE, YOURS = Claim(ResponseId("resp_1"), b"1"), Claim(ResponseId("resp_2"), b"2")


async def test_a_claim_expires_when_that_was_said() -> None:
    claims = MemoryClaims()
    await claims.claim("a", "k", MINE, 0)
    await claims.expire("a", "k", MINE.response_id, at=10, now=0)
    assert await claims.claim("a", "k", YOURS, 9.9) == MINE
    assert await claims.claim("a", "k", YOURS, 10) == YOURS
    assert await claims.claim("a", "k", MINE, 1e9) == YOURS


async def test_old_claims_are_purged_and_others_are_not() -> None:
    claims = MemoryClaims()
    await claims.claim("a", "k", MINE, 0)
    await claims.claim("a", "l", MINE, 0)
    await claims.expire("a", "k", MINE.response_id, at=10, now=0)
    await claims.expire("a", "nobody's", MINE.response_id, at=10, now=0)
    await claims.purge(11)
    assert await claims.claim("a", "k", YOURS, 0) == YOURS
    assert await claims.claim("a", "l", YOURS, 0) == MINE
