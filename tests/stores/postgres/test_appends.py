"""Appends that wait for a commit share the next one; what a row needs is sent once; no bad row harms another."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence

import msgspec
import psycopg
import pytest

from segue.history.records import Record
from segue.stores.interface import ConversationMoved, IdTaken, ParentGone, StoreError
from segue.stores.postgres.connections import StoreConnection
from segue.stores.postgres.postgres_url import PostgresUrl
from segue.stores.postgres.store import PostgresStore
from segue.testing.store_conformance import ALICE, BOB, NOW, link_of, sample_id, sample_record
from segue.testing.store_samples import sample_conversation
from tests.postgres_server import PostgresServer
from tests.stores.postgres.conftest import row_counts

pytestmark = pytest.mark.postgres


class Counted:
    """Counts the statements of a store, and the bytes of their parameters."""

    def __init__(self, store: PostgresStore, monkeypatch: pytest.MonkeyPatch) -> None:
        self.statements = list[str]()
        for name in ("execute", "fetch"):
            monkeypatch.setattr(StoreConnection, name, self._counted(getattr(StoreConnection, name)))

    def _counted(self, run: Callable[..., Awaitable[object]]) -> Callable[..., Awaitable[object]]:
        async def counted(connection: StoreConnection, query: bytes, *args: object, **options: object) -> object:
            self.statements.append(str(query))
            return await run(connection, query, *args, **options)

        return counted


async def test_an_append_is_one_statement_and_so_is_a_chain(
    database: PostgresUrl, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However deep, with a fork or without; a conversation's too."""
    store = await PostgresStore.open(database)
    await store.append(sample_record("0"))
    counted = Counted(store, monkeypatch)
    for n in range(1, 60):
        await store.append(sample_record(str(n), str(n - 1)))
    await store.append(sample_record("fork", "30"))
    assert len(counted.statements) == 60
    counted.statements.clear()
    assert len(await store.chain(ALICE, sample_id("59"), NOW) or []) == 60
    assert len(await store.chain(ALICE, sample_id("fork"), NOW) or []) == 32
    assert len(counted.statements) == 2
    await store.aclose()


async def test_appends_that_come_at_once_share_commits(database: PostgresUrl, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two hundred take a few statements. One that is refused affects no other."""
    store = await PostgresStore.open(database)
    await store.append(sample_record("root"))
    counted = Counted(store, monkeypatch)
    records = [*(sample_record(str(n)) for n in range(200)), sample_record("orphan", "unknown")]
    results = await asyncio.gather(*(store.append(record) for record in records), return_exceptions=True)
    assert [type(result) for result in results] == [type(None)] * 200 + [ParentGone]
    assert len(counted.statements) < 12
    await store.aclose()


async def test_many_may_continue_one_response_at_once(database: PostgresUrl, server: PostgresServer) -> None:
    """From two nodes, too: each gets a segment of its own, but one."""
    stores = [await PostgresStore.open(database) for _ in range(2)]
    await stores[0].append(sample_record("root"))
    names = [f"{n}" for n in range(24)]
    await asyncio.gather(*(stores[int(name) % 2].append(sample_record(name, "root")) for name in names))
    for name in names:
        chain = await stores[0].chain(ALICE, sample_id(name), NOW)
        assert chain == [link_of(sample_record("root")), link_of(sample_record(name, "root"))]
    with psycopg.connect(database.conninfo) as connection:
        assert connection.execute("SELECT count(DISTINCT segment) FROM segue_records").fetchone() == (24,)
    for store in stores:
        await store.aclose()


async def test_a_chain_may_be_appended_without_waiting_for_each_commit(database: PostgresUrl) -> None:
    """A record waits for one that it continues, and for one with its own id."""
    store = await PostgresStore.open(database)
    records = [sample_record("0"), *(sample_record(str(n), str(n - 1)) for n in range(1, 40))]
    results = await asyncio.gather(*(store.append(record) for record in [*records, records[3]]), return_exceptions=True)
    assert [result for result in results if result is not None] == [results[-1]]
    assert len(await store.chain(ALICE, sample_id("39"), NOW) or []) == 40
    await store.aclose()


@pytest.mark.parametrize("size", [100, 100_000], ids=["small", "large"])
async def test_appends_wait_when_too_much_is_queued(database: PostgresUrl, size: int) -> None:
    """With a slow server the queue stays within its bound, and nothing is lost."""
    records = [msgspec.structs.replace(sample_record(str(n)), input=(b'"%b"' % (b"x" * size),)) for n in range(20)]
    limit = 3 * records[0].size_bytes
    store = await PostgresStore.open(database, max_queued_bytes=limit)
    appends = [asyncio.create_task(store.append(record)) for record in records]
    await asyncio.sleep(0)  # each has asked
    assert 0 < store.queued_bytes <= limit
    await asyncio.gather(*appends)
    assert store.queued_bytes == 0
    assert (await store.size()).records == 20
    await store.aclose()


async def test_settings_are_sent_once_and_again_if_they_are_gone(
    database: PostgresUrl, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each tenant has its own. Another node may have freed what this one knows to be there."""
    store, other = [await PostgresStore.open(database) for _ in range(2)]
    echo = b'{"t":"%b"}' % (b"t" * 50_000)
    records = [sample_record(str(n), str(n - 1) if n else None, echo=echo) for n in range(10)]
    sent = list[int]()
    fetch = StoreConnection.fetch

    async def weighed(connection: StoreConnection, query: bytes, values: Sequence[object] = ()) -> object:
        if "INSERT" in str(query):
            sent.append(sum(len(getattr(value, "data", b"")) for value in values))
        return await fetch(connection, query, values)

    monkeypatch.setattr(StoreConnection, "fetch", weighed)
    for record in records:
        await store.append(record)
    assert sent[0] > len(echo)
    assert max(sent[1:]) < 4000
    assert await other.erase(ALICE, None) != []
    again = sample_record("again", echo=echo)
    await store.append(again)
    assert await store.record(ALICE, again.id, NOW) == again
    his = msgspec.structs.replace(again, tenant=BOB)
    await store.append(his)
    assert await store.record(BOB, his.id, NOW) == his
    for one in (store, other):
        await one.aclose()


async def test_settings_that_are_freed_and_used_at_once_are_there(database: PostgresUrl) -> None:
    """Whoever uses them last has them, and whoever deletes last leaves none."""
    stores = [await PostgresStore.open(database) for _ in range(2)]

    async def lane(n: int) -> None:
        store = stores[n % 2]
        for round_ in range(12):
            record = sample_record(f"{n}/{round_}")
            await store.append(record)
            assert await store.record(ALICE, record.id, NOW) == record
            assert await store.delete(ALICE, record.id, NOW)

    await asyncio.gather(*(lane(n) for n in range(6)))
    with psycopg.connect(database.conninfo) as connection:
        assert connection.execute("SELECT count(*) FROM segue_echoes").fetchone() == (0,)
        assert connection.execute("SELECT count(*) FROM segue_records").fetchone() == (0,)
    for store in stores:
        await store.aclose()


def hostile() -> list[Record]:
    """Records that a server of texts may stumble over."""
    root = sample_record("zero", given=["a\0b", "\0"], made=["\U0010ffff", "'; DROP TABLE segue_records; --"])
    return [root, msgspec.structs.replace(sample_record("x"), calls=frozenset({"\0", "é"}), head=b"\0\xff")]


async def test_a_hostile_record_comes_back_as_it_was(database: PostgresUrl) -> None:
    """A U+0000, bytes that are no text, statements: they are bytes to the server."""
    store = await PostgresStore.open(database)
    for record in hostile():
        await store.append(record)
        assert await store.record(ALICE, record.id, NOW) == record
    assert await store.find_item(ALICE, "a\0b", NOW) == sample_id("zero")
    assert await store.find_item(ALICE, "'; DROP TABLE segue_records; --", NOW) == sample_id("zero")
    await store.aclose()


async def test_what_the_server_does_not_take_fails_alone(database: PostgresUrl) -> None:
    """No tenant has such a name: but if one had, only its own records would suffer."""
    store = await PostgresStore.open(database)
    bad = msgspec.structs.replace(sample_record("bad"), tenant="a\0b")
    records = [sample_record(str(n)) for n in range(5)]
    await store.append(sample_record("first"))
    results = await asyncio.gather(*(store.append(record) for record in [*records, bad]), return_exceptions=True)
    assert results[:-1] == [None] * 5
    assert isinstance(results[-1], StoreError)
    assert "a\0b" not in str(results[-1])
    await store.aclose()


async def test_a_disk_that_is_full_fails_appends_and_not_reads(
    database: PostgresUrl, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The health check fails too. What is stored is safe."""
    store = await PostgresStore.open(database)
    await store.append(sample_record("root"))
    fetch = StoreConnection.fetch

    async def full(connection: StoreConnection, query: bytes, values: Sequence[object] = ()) -> object:
        if "INSERT" in str(query):
            raise psycopg.errors.DiskFull
        return await fetch(connection, query, values)

    monkeypatch.setattr(StoreConnection, "fetch", full)
    monkeypatch.setattr(StoreConnection, "execute", full)
    for call in (
        store.append(sample_record("child", "root")),
        store.append(sample_record("a")),
        store.check_writable(),
    ):
        with pytest.raises(StoreError, match="the disk of the server is full; free some space"):
            await call
    assert await store.record(ALICE, sample_id("root"), NOW) == sample_record("root")
    monkeypatch.undo()
    await store.append(sample_record("child", "root"))
    await store.aclose()


async def test_an_error_that_nobody_expects_reaches_the_caller(
    database: PostgresUrl, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None waits for ever, and the next append is written."""
    store = await PostgresStore.open(database)
    monkeypatch.setattr(os, "urandom", None)
    results = await asyncio.gather(*(store.append(sample_record(str(n))) for n in range(3)), return_exceptions=True)
    assert [type(result) for result in results] == [TypeError] * 3
    monkeypatch.undo()
    await store.append(sample_record("0"))
    await store.aclose()


async def test_a_refused_record_leaves_no_settings(database: PostgresUrl) -> None:
    """Whatever it was refused for: they may hold what nobody is to keep."""
    store = await PostgresStore.open(database)
    await store.append(sample_record("root"))
    own = b'{"model":"m","metadata":{"only":"here"}}'
    talk = sample_conversation("talk")
    await store.create_conversation(talk)
    for refused in (sample_record("root", echo=own), sample_record("child", "unknown", echo=own)):
        with pytest.raises((IdTaken, ParentGone)):
            await store.append(refused)
        assert row_counts(database)["echoes"] == 1
    for refused in (sample_record("root", echo=own), sample_record("child", "root", echo=own)):
        with pytest.raises((IdTaken, ConversationMoved)):
            await store.append_to_conversation(talk.id, refused)
        assert row_counts(database)["echoes"] == 1
    await store.aclose()


async def test_a_row_that_waited_for_room_is_written_though_its_lane_has_just_ended(database: PostgresUrl) -> None:
    """Room comes with the end of the only write: what is queued then must not be left to a task that has ended."""
    store = await PostgresStore.open(database, max_queued_bytes=100_000)
    records = [msgspec.structs.replace(sample_record(name), input=(b'"%b"' % (b"x" * 80_000),)) for name in "abc"]
    async with asyncio.timeout(20):
        await asyncio.gather(*map(store.append, records))
    await store.aclose()
