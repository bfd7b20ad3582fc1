"""The schema of a PostgreSQL store: its migrations, and which versions of segue may use it at once.

A node migrates a database that is older than itself. It goes on with one that a newer node has migrated as long as
that schema says so (`oldest`): migrations only add, and what nobody uses any more is dropped a version later. So nodes
of two versions can run side by side while an upgrade rolls on. Not here: the tables (`migrations/*.sql`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib import resources

import msgspec
from psycopg.errors import UndefinedTable

from segue.stores.interface import StoreError
from segue.stores.postgres.connections import StoreConnection

#: 'segu': one node migrates at a time. CockroachDB takes no such lock; there the row of the version is locked alone.
_LOCK = "SELECT pg_advisory_xact_lock(1936025461)"
_CREATE = """
    CREATE TABLE IF NOT EXISTS segue_schema (
        id integer PRIMARY KEY,
        version integer NOT NULL,
        oldest integer NOT NULL
    )
"""
_BEGIN = "INSERT INTO segue_schema (id, version, oldest) VALUES (1, 0, 0) ON CONFLICT DO NOTHING"
_VERSION = "SELECT version, oldest FROM segue_schema"
_VERSION_FOR_UPDATE = f"{_VERSION} FOR UPDATE"
_SET_VERSION = "UPDATE segue_schema SET version = %s, oldest = %s"
_OLDEST = re.compile(r"-- oldest: (\d+)\n")


class SchemaStep(msgspec.Struct, frozen=True):
    """One step of the schema: the statements that lead to `version`.

    Versions of segue that know at least `oldest` can use what comes of it.
    """

    version: int
    oldest: int
    sql: str


def schema_steps() -> list[SchemaStep]:
    """Return the steps that this version knows, oldest first."""
    files = resources.files("segue.stores.postgres").joinpath("migrations").iterdir()
    steps = {file.name: file.read_text(encoding="utf-8") for file in files if file.name.endswith(".sql")}
    return [_step(name, steps[name]) for name in sorted(steps)]


def _step(name: str, sql: str) -> SchemaStep:
    found = _OLDEST.match(sql)
    assert found is not None, f"{name} begins with the oldest version that can use it"
    return SchemaStep(int(name.partition("_")[0]), int(found[1]), sql)


async def migrate(connection: StoreConnection, steps: Sequence[SchemaStep]) -> None:
    """Bring a database to the newest of `steps`, all at once. Raises `StoreError` if it is too new for them."""
    newest = steps[-1].version
    if await _version(connection, newest) >= newest:
        return
    async with connection.transaction():
        await connection.execute("SET LOCAL statement_timeout = 0")
        await connection.execute(_LOCK)
        await connection.execute(_CREATE)
        await connection.execute(_BEGIN)
        ((version, oldest),) = await (await connection.execute(_VERSION_FOR_UPDATE)).fetchall()
        for step in steps:
            if step.version > version:
                await connection.execute(step.sql.encode(), prepare=False)
                version, oldest = step.version, step.oldest
        await connection.execute(_SET_VERSION, (version, oldest))


async def _version(connection: StoreConnection, newest: int) -> int:
    try:
        rows = await (await connection.execute(_VERSION, prepare=False)).fetchall()
    except UndefinedTable:
        return 0
    version, oldest = rows[0] if rows else (0, 0)
    if oldest > newest:
        raise StoreError(
            f"the database was migrated by a newer version of segue (its schema is {version} and asks for {oldest}, "
            f"this version knows {newest}): install that version"
        )
    return int(version)
