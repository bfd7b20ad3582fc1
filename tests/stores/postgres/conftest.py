"""One server for all tests of a session, and an empty database for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import psycopg
import pytest
import pytest_asyncio
from psycopg import sql

from segue.stores.postgres.postgres_url import PostgresUrl, parse_postgres_url
from segue.stores.postgres.store import PostgresStore
from tests.cutting_proxy import CuttingProxy
from tests.postgres_server import PostgresServer, shared_server

TABLES = ("records", "echoes", "items", "labels", "conversations")


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Iterator[PostgresServer]:
    base = tmp_path_factory.getbasetemp()
    with shared_server(base if worker_id == "master" else base.parent) as shared:
        yield shared


@pytest.fixture(scope="session")
def database_name(server: PostgresServer, worker_id: str) -> str:
    """The database of this process."""
    with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {worker_id}".encode())
    return worker_id


@pytest.fixture
def database(server: PostgresServer, database_name: str) -> PostgresUrl:
    """An empty database; its tables may be there."""
    url = parse_postgres_url(server.url(database_name))
    truncate(url)
    return url


def truncate(url: PostgresUrl) -> None:
    """Empty the tables, if they are there."""
    with psycopg.connect(url.conninfo, autocommit=True) as connection:
        if connection.execute("SELECT to_regclass('segue_records')").fetchone() != (None,):
            connection.execute(f"TRUNCATE {', '.join(f'segue_{table}' for table in TABLES)}".encode())


def row_counts(url: PostgresUrl) -> dict[str, int]:
    """How many rows each table has."""
    counts = {}
    with psycopg.connect(url.conninfo) as connection:
        for table in TABLES:
            query = sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(f"segue_{table}"))
            ((counts[table],),) = connection.execute(query).fetchall()
    return counts


@pytest_asyncio.fixture
async def proxy(server: PostgresServer, database: PostgresUrl) -> AsyncIterator[CuttingProxy]:
    """A proxy before the server; the database is empty."""
    async with CuttingProxy(server.socket).running() as running:
        yield running


@pytest_asyncio.fixture
async def cut_store(proxy: CuttingProxy, database_name: str) -> AsyncIterator[PostgresStore]:
    """A store behind the proxy."""
    store = await PostgresStore.open(parse_postgres_url(behind(proxy, database_name)))
    yield store
    await store.aclose()


def behind(proxy: CuttingProxy, database: str) -> str:
    return f"postgresql://segue@127.0.0.1:{proxy.port}/{database}?sslmode=disable&gssencmode=disable&wait_s=10"
