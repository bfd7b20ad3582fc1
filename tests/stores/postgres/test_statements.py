"""Statements that are prepared once on a connection."""

from __future__ import annotations

import asyncio
import gc

import psycopg
import pytest

from segue.stores.postgres.arrays import texts
from segue.stores.postgres.connections import PostgresConnections, StoreConnection
from segue.stores.postgres.postgres_url import PostgresUrl
from segue.stores.postgres.statements import numbered
from tests.stores.postgres.test_connections import nothing

ASK = b"SELECT %b::text, %b::bytea, %b::double precision, %b::bigint, %b::text IS NULL, %b::text[]"
VALUES = ("a", b"\0b", 0.5, 7, None, texts(["x", None]))
PREPARED = b"SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE 'SELECT $1::text, $2%'"


def test_placeholders_are_numbered() -> None:
    assert numbered(b"SELECT %b, '%', %b") == b"SELECT $1, '%', $2"
    assert numbered(b"SELECT 1") == b"SELECT 1"


@pytest.mark.postgres
async def test_a_statement_is_prepared_once_for_the_types_of_its_values(database: PostgresUrl) -> None:
    connections = PostgresConnections(database)
    await connections.open(nothing)

    async def ask(connection: StoreConnection, _: bool) -> None:
        for _turn in range(3):
            assert await connection.fetch(ASK, VALUES) == [("a", b"\0b", 0.5, 7, True, ["x", None])]
        assert await connection.fetch(PREPARED) == [(1,)]
        assert await connection.fetch(ASK, (*VALUES[:3], 1 << 40, *VALUES[4:])) != []
        assert await connection.fetch(PREPARED) == [(2,)]

    await connections.run(ask)
    await connections.aclose()


@pytest.mark.postgres
async def test_an_error_leaves_a_connection_that_works(database: PostgresUrl) -> None:
    """Also one of a statement that cannot be prepared, and one in a transaction."""
    connections = PostgresConnections(database)
    await connections.open(nothing)

    async def ask(connection: StoreConnection, _: bool) -> None:
        for wrong in (b"SELECT 1 / 0", b"SELECT FROM WHERE", b"SELECT 1 / 0"):
            with pytest.raises(psycopg.Error):
                await connection.fetch(wrong)
            with pytest.raises(psycopg.Error):
                async with connection.transaction():
                    await connection.fetch(wrong)
        assert await connection.fetch(b"SELECT 1") == [(1,)]

    await connections.run(ask)
    await connections.aclose()


@pytest.mark.postgres
async def test_who_is_cancelled_in_a_read_gives_the_connection_up(database: PostgresUrl) -> None:
    """The next read has another one, and gets its own answer."""
    connections = PostgresConnections(database)
    await connections.open(nothing)
    assert await connections.read(b"SELECT 'before', 0", ()) == [("before", 0)]
    reading = asyncio.create_task(connections.read(b"SELECT pg_sleep(60)", ()))
    # Other processes of a test run have other databases of the same server, and statements like ours.
    query = b"SELECT 1 FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%' AND datname = current_database()"
    while not await connections.read(query, ()):
        pass
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert await connections.read(b"SELECT 'after', 1", ()) == [("after", 1)]
    await connections.aclose()
    gc.collect()


@pytest.mark.postgres
async def test_a_server_that_answers_no_more_is_given_up(
    database: PostgresUrl, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within a transaction too; the next call has another connection."""
    monkeypatch.setattr("segue.stores.postgres.connections._LOOK_S", 0.01)
    connections = PostgresConnections(database)
    await connections.open(nothing)
    monkeypatch.setattr(connections, "call_limit_s", 0.05)
    with pytest.raises(Exception, match="the server does not answer"):
        await connections.read(b"SELECT pg_sleep(60)", ())

    async def within(connection: StoreConnection, _: bool) -> None:
        async with connection.transaction():
            await connection.fetch(b"SELECT pg_sleep(60)")

    with pytest.raises(Exception, match="the server does not answer"):
        await connections.run(within)
    monkeypatch.setattr(connections, "call_limit_s", 60.0)
    assert await connections.read(b"SELECT 1", ()) == [(1,)]
    await connections.aclose()
