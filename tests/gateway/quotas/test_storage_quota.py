"""What a tenant may keep in the store."""

from __future__ import annotations

import msgspec
import pytest

from segue.config import Config, LimitsConfig
from segue.gateway.quotas.quotas import Quotas
from segue.gateway.quotas.storage_quota import FRESH_S, StorageQuota
from segue.history.conversations import ConversationStep
from segue.protocol.problems import Refused
from segue.stores.interface import StoreSize
from segue.stores.memory import MemoryStore
from segue.testing.store_samples import sample_conversation, sample_id


class Sized(MemoryStore):
    """A store that has so much of each tenant, and counts how often it is asked."""

    def __init__(self, **records: int) -> None:
        super().__init__()
        self.records = records
        self.asked = 0

    async def tenant_size(self, tenant: str) -> StoreSize:
        self.asked += 1
        return StoreSize(self.records.get(tenant, 0), 100 * self.records.get(tenant, 0))


def quota(store: Sized, **limits: int) -> StorageQuota:
    return StorageQuota(Quotas(Config(limits=LimitsConfig(**limits))), store)


async def allowed(rules: StorageQuota, tenant: str, now: float) -> bool:
    try:
        await rules.check(tenant, now)
    except Refused:
        return False
    return True


async def test_without_a_limit_the_store_is_not_asked() -> None:
    store = Sized(a=10**9)
    assert await allowed(quota(store), "a", 0.0)
    assert store.asked == 0


@pytest.mark.parametrize("limits", [{"stored_responses": 3}, {"stored_bytes": 300}])
async def test_what_is_stored_meanwhile_counts(limits: dict[str, int]) -> None:
    store = Sized(a=1)
    rules = quota(store, **limits)
    for _ in range(2):
        assert await allowed(rules, "a", 0.0)
        rules.note_stored("a", 100)
    assert not await allowed(rules, "a", 0.0)
    assert await allowed(rules, "b", 0.0)
    assert store.asked == 2, "once for each tenant"


async def test_a_full_store_is_asked_again_soon_since_responses_are_deleted() -> None:
    store = Sized(a=3)
    rules = quota(store, stored_responses=3)
    assert not await allowed(rules, "a", 0.0)
    store.records["a"] = 2
    assert not await allowed(rules, "a", 1.0)
    assert await allowed(rules, "a", 2.0)
    store.records["a"] = 3
    assert await allowed(rules, "a", 2.0 + FRESH_S - 0.1)
    assert not await allowed(rules, "a", 2.0 + FRESH_S)


async def test_a_store_that_cannot_be_asked_refuses_the_turn(caplog: pytest.LogCaptureFixture) -> None:
    """As a parent that cannot be read does, on every transport."""
    store = MemoryStore()
    await store.aclose()
    rules = StorageQuota(Quotas(Config(limits=LimitsConfig(stored_bytes=1))), store)
    with pytest.raises(Refused) as caught:
        await rules.check("a", 0.0)
    assert caught.value.problem.code == "store_error"
    assert "action=tenant_size" in caplog.text


async def test_the_refusal_says_what_to_do() -> None:
    with pytest.raises(Refused) as caught:
        await quota(Sized(a=1234), stored_responses=1).check("a", 0.0)
    assert caught.value.problem.code == "insufficient_quota"
    assert caught.value.problem.message == (
        "The store holds 1,234 responses with 123,400 bytes of this tenant, the most that it may keep. "
        "Delete some, or send store: false."
    )
    await quota(Sized()).check("a", 0.0)
    quota(Sized()).note_stored("a", 1)


async def test_a_clock_that_is_set_back_makes_nothing_known_for_longer() -> None:
    store = Sized(a=3)
    rules = quota(store, stored_responses=3)
    assert not await allowed(rules, "a", 10_000.0)
    store.records["a"] = 0
    assert await allowed(rules, "a", 5_000.0)


async def test_a_conversation_counts_what_the_store_counts_of_it() -> None:
    store = MemoryStore()
    rules = StorageQuota(Quotas(Config(limits=LimitsConfig(stored_bytes=10**6))), store)
    await rules.check("a", 0.0)
    step = ConversationStep(id=sample_id("step"), parent_id=None, input=(b'{"x":1}',), calls=frozenset())
    head = msgspec.structs.replace(sample_conversation("talk", tenant="a"), metadata=b'{"a":"b"}')
    await store.create_conversation(head, step)
    rules.note_conversation(head, step)
    known = rules._known["a"]  # noqa: SLF001 - what is compared with the limit
    assert known.size_bytes == (await store.tenant_size("a")).size_bytes
