"""How a store is, as it is told to who looks after gateways."""

from __future__ import annotations

import asyncio
import logging

import pytest

from segue.gateway.admin import store_health
from segue.gateway.admin.store_health import StoreCheck, StoreHealth
from segue.stores.memory import MemoryStore
from segue.testing.store_samples import sample_record
from tests.faults.doubles import BrokenStore


class HungStore(MemoryStore):
    """Its disk is behind a network that is gone: no write fails, and none ends before `back`."""

    def __init__(self) -> None:
        super().__init__()
        self.back = asyncio.Event()
        self.writes = 0

    async def check_writable(self) -> None:
        self.writes += 1
        await self.back.wait()


async def test_a_store_that_takes_a_write_is_in_use() -> None:
    store = MemoryStore()
    await store.append(sample_record("a"))
    assert await StoreCheck(store).look() == StoreHealth("in use", 1)


@pytest.mark.parametrize(
    ("broken", "health"),
    [
        (("check_writable",), StoreHealth("not writable", 0)),
        (("check_writable", "size"), StoreHealth("away")),
        (("size",), StoreHealth("away")),
    ],
)
async def test_what_fails_tells_how_a_store_is_and_the_log_says_why(
    broken: tuple[str, ...], health: StoreHealth, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        assert await StoreCheck(BrokenStore(*broken)).look() == health
    assert len(caplog.messages) == len(broken)
    assert all(message.startswith("action=check part=store error=") for message in caplog.messages)


async def test_a_store_that_hangs_is_not_asked_again_before_it_has_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else what looks each second would take all connections to a database that is away."""
    monkeypatch.setattr(store_health, "STORE_S", 0.01)
    store = HungStore()
    check = StoreCheck(store)
    found = [*await asyncio.gather(check.look(), check.look()), await check.look()]
    assert found == [StoreHealth("not writable", 0)] * 3
    assert store.writes == 1
    store.back.set()
    assert await check.look() == StoreHealth("in use", 0)


async def test_a_fault_of_ours_is_not_taken_for_one_of_the_store() -> None:
    class Faulty(MemoryStore):
        async def check_writable(self) -> None:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await StoreCheck(Faulty()).look()
