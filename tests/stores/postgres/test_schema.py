"""Migrations: in order, once, by one node at a time; and which versions may use a database together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import psycopg
import pytest
import pytest_asyncio

from segue.stores.interface import StoreError
from segue.stores.postgres.connections import StoreConnection
from segue.stores.postgres.postgres_url import PostgresUrl, parse_postgres_url
from segue.stores.postgres.schema import SchemaStep, migrate, schema_steps
from segue.stores.postgres.store import PostgresStore
from tests.postgres_server import PostgresServer

pytestmark = pytest.mark.postgres

ONE = SchemaStep(1, 1, "CREATE TABLE one (a integer); INSERT INTO one VALUES (1)")
TWO = SchemaStep(2, 1, "ALTER TABLE one ADD COLUMN b integer")
THREE = SchemaStep(3, 3, "ALTER TABLE one DROP COLUMN a")
BROKEN = SchemaStep(4, 3, "ALTER TABLE one ADD COLUMN c integer; SELECT nonsense")


@pytest_asyncio.fixture
async def fresh(server: PostgresServer, database_name: str) -> AsyncIterator[PostgresUrl]:
    """A schema of the database without any tables."""
    with psycopg.connect(server.url(database_name), autocommit=True) as connection:
        connection.execute("DROP SCHEMA IF EXISTS fresh CASCADE")
        connection.execute("CREATE SCHEMA fresh")
    yield parse_postgres_url(server.url(database_name, options="-c search_path=fresh"))


async def run(url: PostgresUrl, *steps: SchemaStep) -> None:
    async with await StoreConnection.connect(url.conninfo, autocommit=True) as connection:
        await migrate(connection, steps)


async def version(url: PostgresUrl) -> tuple[int, int]:
    async with await StoreConnection.connect(url.conninfo, autocommit=True) as connection:
        ((found, oldest),) = await (await connection.execute("SELECT version, oldest FROM segue_schema")).fetchall()
    return found, oldest


async def test_steps_are_taken_once_and_in_order(fresh: PostgresUrl) -> None:
    await run(fresh, ONE)
    await run(fresh, ONE, TWO)
    await run(fresh, ONE, TWO)
    assert await version(fresh) == (2, 1)


async def test_nodes_that_migrate_at_once_wait_for_each_other(fresh: PostgresUrl) -> None:
    await asyncio.gather(*(run(fresh, ONE, TWO) for _ in range(6)))
    assert await version(fresh) == (2, 1)


async def test_an_older_node_goes_on_as_long_as_the_schema_allows_it(fresh: PostgresUrl) -> None:
    await run(fresh, ONE, TWO)
    await run(fresh, ONE)
    await run(fresh, ONE, TWO, THREE)
    with pytest.raises(StoreError, match=r"newer version of segue \(its schema is 3 and asks for 3, .* knows 2\)"):
        await run(fresh, ONE, TWO)


async def test_a_step_that_fails_changes_nothing(fresh: PostgresUrl) -> None:
    await run(fresh, ONE)
    with pytest.raises(psycopg.Error):
        await run(fresh, ONE, TWO, THREE, BROKEN)
    assert await version(fresh) == (1, 1)
    await run(fresh, ONE, TWO)


def test_the_files_are_numbered_without_a_gap() -> None:
    steps = schema_steps()
    assert [step.version for step in steps] == list(range(1, len(steps) + 1))
    assert all(step.oldest <= step.version for step in steps)


async def test_a_store_makes_its_tables_and_a_newer_database_is_refused(fresh: PostgresUrl) -> None:
    stores = await asyncio.gather(*(PostgresStore.open(fresh) for _ in range(3)))
    await asyncio.gather(*(store.aclose() for store in stores))
    async with await StoreConnection.connect(fresh.conninfo, autocommit=True) as connection:
        await connection.execute("UPDATE segue_schema SET version = 99, oldest = 99")
    with pytest.raises(StoreError, match="newer version of segue"):
        await PostgresStore.open(fresh)
