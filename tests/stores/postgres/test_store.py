"""What only the PostgreSQL store promises. The suite of all stores runs over it too."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from segue.stores.interface import Store
from segue.stores.postgres.postgres_url import PostgresUrl
from segue.stores.postgres.store import PostgresStore
from segue.testing.store_conformance import CHECKS, Check, check_after_restart, write_before_restart

pytestmark = pytest.mark.postgres


@pytest_asyncio.fixture
async def store(database: PostgresUrl) -> AsyncIterator[PostgresStore]:
    store = await PostgresStore.open(database)
    yield store
    await store.aclose()


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_it_conforms(check: Check, store: Store) -> None:
    await check(store)


async def test_what_was_in_it_is_in_it_when_it_is_opened_again(database: PostgresUrl) -> None:
    store = await PostgresStore.open(database)
    await write_before_restart(store)
    await store.aclose()
    store = await PostgresStore.open(database)
    await check_after_restart(store)
    await store.aclose()
