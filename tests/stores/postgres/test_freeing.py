"""What nobody names any more is freed, whoever deletes what at the same time; and nothing else is."""

from __future__ import annotations

import asyncio

import psycopg
import pytest
from psycopg import sql

from segue.history.conversations import ConversationMove
from segue.stores.interface import ParentGone
from segue.stores.postgres.postgres_url import PostgresUrl
from segue.stores.postgres.store import PostgresStore
from segue.testing.store_conformance import ALICE, NOW, sample_id, sample_record
from segue.testing.store_samples import sample_conversation, sample_conversation_id, sample_step

pytestmark = pytest.mark.postgres


def left_in(database: PostgresUrl) -> list[int]:
    """How many rows the tables have: turns, settings, items, labels."""
    with psycopg.connect(database.conninfo) as connection:
        tables = ("segue_records", "segue_echoes", "segue_items", "segue_labels")
        counts = [sql.SQL("(SELECT count(*) FROM {})").format(sql.Identifier(table)) for table in tables]
        query = sql.SQL("SELECT {}").format(sql.SQL(", ").join(counts))
        row = connection.execute(query).fetchone()
    assert row is not None
    return list(row)


async def test_two_nodes_that_delete_one_tree_leave_nothing(database: PostgresUrl) -> None:
    """Turns next to each other, forks and their base: each is seen by whoever comes last."""
    stores = [await PostgresStore.open(database) for _ in range(2)]
    names = ["root"]
    await stores[0].append(sample_record("root", made=["item"]))
    for n in range(24):
        parent = names[n // 2]
        names.append(f"{n}")
        await stores[0].append(sample_record(f"{n}", parent))
    deleted = await asyncio.gather(*(stores[n % 2].delete(ALICE, sample_id(x), NOW) for n, x in enumerate(names)))
    assert all(deleted)
    assert left_in(database) == [0, 0, 0, 0]
    for store in stores:
        await store.aclose()


async def test_nodes_that_sweep_at_once_take_different_responses(database: PostgresUrl) -> None:
    """Each is named by one of them, and all are gone."""
    stores = [await PostgresStore.open(database) for _ in range(3)]
    records = [sample_record(str(n), str(n - 1) if n % 9 else None, expires_at=NOW + 1) for n in range(600)]
    await asyncio.gather(*(stores[0].append(record) for record in records))

    async def sweep(store: PostgresStore) -> list[tuple[str, str]]:
        swept: list[tuple[str, str]] = []
        while found := await store.sweep(NOW + 1):
            swept += found
        return swept

    swept = [one for found in await asyncio.gather(*map(sweep, stores)) for one in found]
    assert sorted(swept) == sorted((ALICE, record.id) for record in records)
    assert left_in(database) == [0, 0, 0, 0]
    for store in stores:
        await store.aclose()


async def test_a_parent_that_is_freed_while_it_is_continued_is_refused_or_kept(database: PostgresUrl) -> None:
    """Never is there a turn whose parent is gone."""
    stores = [await PostgresStore.open(database) for _ in range(2)]
    outcomes = set[str]()
    for n in range(25):
        await stores[0].append(sample_record(f"parent {n}"))
        child = sample_record(f"child {n}", f"parent {n}")
        append, gone = await asyncio.gather(
            stores[1].append(child), stores[0].delete(ALICE, sample_id(f"parent {n}"), NOW), return_exceptions=True
        )
        assert gone is True
        chain = await stores[0].chain(ALICE, child.id, NOW)
        if append is None:
            assert [link.id for link in chain or []] == [sample_id(f"parent {n}"), child.id]
        else:
            assert isinstance(append, ParentGone)
            assert chain is None
        outcomes.add(type(append).__name__)
    assert outcomes <= {"NoneType", "ParentGone"}
    for store in stores:
        await store.aclose()


async def test_a_conversation_that_moves_while_its_turns_are_deleted_leaves_nothing(database: PostgresUrl) -> None:
    stores = [await PostgresStore.open(database) for _ in range(2)]
    talk = sample_conversation_id("talk")
    await stores[0].create_conversation(sample_conversation("talk"), sample_step("0"))
    for n in range(10):
        record = sample_record(f"turn {n}", f"{n}")
        await stores[0].append_to_conversation(talk, record)
        step = sample_step(f"{n + 1}", f"turn {n}")
        await asyncio.gather(
            stores[0].move_conversation(ALICE, talk, ConversationMove(from_id=record.id, step=step, at=NOW)),
            stores[1].delete(ALICE, record.id, NOW),
        )
    assert len(await stores[0].conversation_chain(ALICE, talk, NOW) or []) == 21
    assert await stores[1].delete_conversation(ALICE, talk)
    assert left_in(database) == [0, 0, 0, 0]
    for store in stores:
        await store.aclose()


async def test_a_long_dead_chain_is_freed_at_once(database: PostgresUrl) -> None:
    """By the deletion of its last living turn, in a few statements."""
    store = await PostgresStore.open(database)
    records = [sample_record(str(n), str(n - 1) if n else None) for n in range(80)]
    await asyncio.gather(*(store.append(record) for record in records))
    for record in records:
        assert await store.delete(ALICE, record.id, NOW)
    assert left_in(database) == [0, 0, 0, 0]
    await store.aclose()
