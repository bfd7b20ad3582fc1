"""How the server carries out our statements: it finds rows by keys, also if a plan is made before there are any.

A plan is kept for as long as its connection. One that reads a whole table makes each append slower than the one before.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from types import ModuleType

import pytest

from segue.stores.postgres import appends, freeing, labels, new_rows, pointers, postgres_copying, store
from segue.stores.postgres.connections import PostgresConnections, StoreConnection
from segue.stores.postgres.postgres_url import PostgresUrl
from segue.stores.postgres.schema import migrate, schema_steps
from segue.stores.postgres.statements import numbered

pytestmark = pytest.mark.postgres

MODULES = (appends, freeing, labels, new_rows, pointers, postgres_copying, store)
#: A page of all there is has no other key; how much there is, is counted up to a limit.
WHOLE = {"_CONVERSATIONS", "_KEYS", "_SIZE_ON_DISK", "_SIZE_OF_CONTENT"}
_STATEMENT = re.compile(rb"\s*(SELECT|INSERT|UPDATE|DELETE|WITH)\b")
_SCAN = re.compile(r"Scan (?:using \w+ )?on (segue_\w+)")


def statements(modules: tuple[ModuleType, ...]) -> Iterator[tuple[str, bytes]]:
    for module in modules:
        own: Mapping[str, object] = vars(module)
        for name, value in own.items():
            if isinstance(value, bytes) and _STATEMENT.match(value) and name not in WHOLE:
                yield f"{module.__name__.rpartition('.')[2]}.{name}", value


async def plan_of(connection: StoreConnection, statement: bytes) -> list[str]:
    count = statement.count(b"%b")
    await connection.execute(b"PREPARE looked_at AS " + numbered(statement))
    values = f"({', '.join(['NULL'] * count)})" if count else ""
    rows = await (await connection.execute(f"EXPLAIN EXECUTE looked_at{values}".encode())).fetchall()
    await connection.execute("DEALLOCATE looked_at")
    return [str(line) for (line,) in rows]


def unbounded(plan: list[str]) -> list[str]:
    """Return the scans of our tables that no key bounds."""
    following = [*plan[1:], ""]
    return [line for line, after in zip(plan, following, strict=True) if _SCAN.search(line) and "Cond:" not in after]


async def test_every_statement_finds_its_rows_by_keys_before_there_are_any(database: PostgresUrl) -> None:
    connections = PostgresConnections(database)
    await connections.open(lambda connection: migrate(connection, schema_steps()))

    async def look(connection: StoreConnection, again: bool) -> dict[str, list[str]]:
        del again
        return {name: await plan_of(connection, text) for name, text in statements(MODULES)}

    plans = await connections.run(look)
    await connections.aclose()
    assert {name: found for name, plan in plans.items() if (found := unbounded(plan))} == {}
    assert {"new_rows.WRITE", "freeing._FREE_LABELS", "store._CHAIN_OF_RESPONSE", "store._LOCK_EXPIRED"} <= plans.keys()
    assert len(plans) > 30


def test_a_scan_without_a_condition_is_seen() -> None:
    plan = ["Nested Loop", "  ->  Seq Scan on segue_records child", "  ->  Index Scan using a on segue_items"]
    assert unbounded([*plan, "        Index Cond: (a = 1)"]) == [plan[1]]
