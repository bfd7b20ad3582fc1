"""Idempotency keys in memory: which claim holds, and for how long."""

from __future__ import annotations

from segue.protocol.ids import ResponseId
from segue.stores.idempotency_keys import Claim, MemoryClaims

MINE, YOURS = Claim(ResponseId("resp_1"), b"1"), Claim(ResponseId("resp_2"), b"2")


async def test_the_first_has_the_key_until_it_gives_it_back() -> None:
    claims = MemoryClaims()
    assert await claims.claim("a", "k", MINE, 0) == MINE
    assert await claims.claim("a", "k", YOURS, 1e9) == MINE
    await claims.release("a", "k")
    assert await claims.claim("a", "k", YOURS, 0) == YOURS


async def test_a_key_is_its_tenants_own() -> None:
    claims = MemoryClaims()
    await claims.claim("a", "k", MINE, 0)
    assert await claims.claim("b", "k", YOURS, 0) == YOURS
    assert await claims.claim("a", "l", YOURS, 0) == YOURS


async def test_a_claim_expires_when_that_was_said() -> None:
    claims = MemoryClaims()
    await claims.claim("a", "k", MINE, 0)
    await claims.expire("a", "k", 10)
    assert await claims.claim("a", "k", YOURS, 9.9) == MINE
    assert await claims.claim("a", "k", YOURS, 10) == YOURS
    assert await claims.claim("a", "k", MINE, 1e9) == YOURS


async def test_old_claims_are_purged_and_others_are_not() -> None:
    claims = MemoryClaims()
    await claims.claim("a", "k", MINE, 0)
    await claims.claim("a", "l", MINE, 0)
    await claims.expire("a", "k", 10)
    await claims.expire("a", "nobody's", 10)
    await claims.purge(11)
    assert await claims.claim("a", "k", YOURS, 0) == YOURS
    assert await claims.claim("a", "l", YOURS, 0) == MINE


async def test_the_keys_of_a_tenant_are_dropped_together() -> None:
    claims = MemoryClaims()
    for tenant, key in (("a", "k"), ("a", "l"), ("b", "k")):
        await claims.claim(tenant, key, MINE, 0)
    await claims.drop_tenant("a")
    held = [await claims.claim(tenant, key, YOURS, 0) for tenant, key in (("a", "k"), ("a", "l"), ("b", "k"))]
    assert held == [YOURS, YOURS, MINE]
