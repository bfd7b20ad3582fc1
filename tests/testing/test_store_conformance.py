"""The shipped conformance suite, run over the stores that come with it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from segue.stores.interface import Store
from segue.stores.memory import MemoryStore
from segue.stores.sqlite import SqliteStore
from segue.testing.store_conformance import CHECKS, Check, check_after_restart, write_before_restart


@pytest.fixture(params=["memory", "sqlite"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    opened: Store = MemoryStore()
    if request.param == "sqlite":
        # The rules are the same in both modes, and this one does not wait for the disk.
        opened = await SqliteStore.open(tmp_path / "segue.db", synchronous="NORMAL")
    yield opened
    await opened.aclose()


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_store_conforms(check: Check, store: Store) -> None:
    """Every store keeps every rule."""
    await check(store)


async def test_sqlite_store_survives_a_restart(tmp_path: Path) -> None:
    """Everything that was in the file when it was closed is there when it is opened again."""
    store = await SqliteStore.open(tmp_path / "segue.db")
    await write_before_restart(store)
    await store.aclose()
    store = await SqliteStore.open(tmp_path / "segue.db")
    await check_after_restart(store)
    await store.aclose()


async def test_restart_checks_agree_without_a_restart() -> None:
    """The two halves of the restart check belong together."""
    store = MemoryStore()
    await write_before_restart(store)
    await check_after_restart(store)
    await store.aclose()
