"""Calls that outlive their connection; time-outs; durability that no setting takes away."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import msgspec
import psycopg
import pytest
from psycopg_pool.pool_async import WaitingClient

from segue.history.conversations import ConversationMove
from segue.stores.interface import ConversationMoved, IdTaken, StoreError
from segue.stores.postgres.connections import PostgresConnections, StoreConnection
from segue.stores.postgres.postgres_url import PostgresUrl, parse_postgres_url
from segue.stores.postgres.store import PostgresStore
from segue.testing.store_conformance import ALICE, NOW, link_of, sample_id, sample_record
from segue.testing.store_samples import sample_conversation, sample_conversation_id, sample_step
from tests.cutting_proxy import CuttingProxy, Moment
from tests.faults.gateways import until
from tests.loop_clock import LoopClock
from tests.postgres_server import PostgresServer

pytestmark = pytest.mark.postgres

MOMENTS: tuple[Moment, ...] = get_args(Moment)
TALK = sample_conversation_id("talk")


async def nothing(_: StoreConnection) -> None:
    pass


@pytest.mark.parametrize("moment", MOMENTS)
async def test_an_append_whose_connection_is_cut_is_stored_once(
    cut_store: PostgresStore, proxy: CuttingProxy, moment: Moment
) -> None:
    """Also between its commit and the answer. An id that another response has stays refused."""
    await cut_store.append(sample_record("root"))
    child = sample_record("child", "root", given=["in"], made=["out"])
    proxy.cut(moment, child.id.encode())
    await cut_store.append(child)
    assert await cut_store.chain(ALICE, child.id, NOW) == [link_of(sample_record("root")), link_of(child)]
    assert [await cut_store.find_item(ALICE, item, NOW) for item in ("in", "out")] == [child.id, child.id]
    assert (await cut_store.size()).records == 2
    proxy.cut(moment, child.id.encode())
    with pytest.raises(IdTaken):
        await cut_store.append(sample_record("child"))
    assert proxy.cuts == 2


@pytest.mark.parametrize("moment", MOMENTS)
async def test_a_group_whose_connection_is_cut_is_stored_once(
    cut_store: PostgresStore, proxy: CuttingProxy, moment: Moment
) -> None:
    records = [sample_record(str(n)) for n in range(30)]
    await cut_store.append(sample_record("first"))
    proxy.cut(moment, records[20].id.encode())
    await asyncio.gather(*(cut_store.append(record) for record in records))
    assert proxy.cuts == 1
    assert [await cut_store.record(ALICE, record.id, NOW) for record in records] == records


@pytest.mark.parametrize("moment", MOMENTS)
async def test_a_conversation_whose_connection_is_cut_changes_once(
    cut_store: PostgresStore, proxy: CuttingProxy, moment: Moment
) -> None:
    """Made, continued, moved and deleted: each happens once, and its caller is told so."""
    first, step = sample_record("first", "begun"), sample_step("step", "first")
    proxy.cut(moment, TALK.encode())
    await cut_store.create_conversation(sample_conversation("talk"), sample_step("begun"))
    proxy.cut(moment, TALK.encode())
    await cut_store.append_to_conversation(TALK, first)
    proxy.cut(moment, TALK.encode())
    await cut_store.move_conversation(ALICE, TALK, ConversationMove(from_id=first.id, step=step, at=NOW))
    proxy.cut(moment, TALK.encode())
    await cut_store.move_conversation(ALICE, TALK, ConversationMove(from_id=step.id, to_id=first.id, at=NOW))
    with pytest.raises(ConversationMoved):
        await cut_store.append_to_conversation(TALK, sample_record("late", "begun"))
    assert [link.id for link in await cut_store.conversation_chain(ALICE, TALK, NOW) or []] == [
        sample_id("begun"),
        first.id,
    ]
    proxy.cut(moment, TALK.encode())
    assert await cut_store.delete_conversation(ALICE, TALK)
    assert proxy.cuts == 5


@pytest.mark.parametrize("marker", [b"BEGIN", b"COMMIT"])
@pytest.mark.parametrize("moment", MOMENTS)
async def test_a_deletion_whose_connection_is_cut_is_told_once(
    cut_store: PostgresStore, proxy: CuttingProxy, moment: Moment, marker: bytes
) -> None:
    """Deleted, swept and erased: what is gone is named, whenever the connection was lost."""
    ids = {name: sample_id(name) for name in ("deleted", "erased", "swept")}
    for name in ids:
        await cut_store.append(sample_record(name, expires_at=NOW + (1 if name == "swept" else 9)))
    proxy.cut(moment, marker)
    assert await cut_store.delete(ALICE, ids["deleted"], NOW)
    proxy.cut(moment, marker)
    assert await cut_store.sweep(NOW + 1) == [(ALICE, ids["swept"])]
    proxy.cut(moment, marker)
    assert await cut_store.erase(ALICE, None) == [ids["erased"]]
    assert proxy.cuts == 3
    assert (await cut_store.size()).records == 0
    assert not await cut_store.delete(ALICE, ids["deleted"], NOW)


async def test_a_sweep_waits_for_what_became_of_its_first_attempt(
    database: PostgresUrl, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whose connection was lost while its transaction ended: what it deleted is named, and nothing twice."""
    store = await PostgresStore.open(database)
    record = sample_record("swept", expires_at=NOW + 1)
    await store.append(record)
    execute, fetch, ending = StoreConnection.execute, StoreConnection.fetch, list[asyncio.Task[object]]()
    other = await StoreConnection.connect(database.conninfo, autocommit=True)

    async def lost(connection: StoreConnection, query: bytes, values: Sequence[object] = ()) -> object:
        if "DELETE FROM segue_items" in str(query) and not ending:
            # As if the server had not noticed yet: another session deletes the row, and commits when it is waited for.
            await execute(connection, "ROLLBACK")
            await other.execute("BEGIN")
            await other.execute("DELETE FROM segue_records WHERE id = %s", (record.id,))
            ending.append(asyncio.create_task(commit_when_waited_for()))
            raise psycopg.OperationalError("the connection is lost")
        return await fetch(connection, query, values)

    async def commit_when_waited_for() -> None:
        async with await StoreConnection.connect(database.conninfo, autocommit=True) as watching:
            query = "SELECT 1 FROM pg_locks WHERE NOT granted"
            while not await (await execute(watching, query)).fetchall():
                pass
        await other.execute("COMMIT")

    monkeypatch.setattr(StoreConnection, "fetch", lost)
    assert await store.sweep(NOW + 1) == [(ALICE, record.id)]
    await asyncio.gather(*ending)
    assert await store.sweep(NOW + 1) == []
    await other.close()
    await store.aclose()


async def test_all_connections_may_be_lost_at_once(cut_store: PostgresStore, proxy: CuttingProxy) -> None:
    """As when a server restarts: no call fails."""
    records = [sample_record(str(n)) for n in range(40)]
    await asyncio.gather(*(cut_store.append(record) for record in records))
    proxy.cut_all()
    assert await asyncio.gather(*(cut_store.record(ALICE, record.id, NOW) for record in records)) == records


async def test_a_server_that_is_away_is_waited_for_and_not_forever(
    proxy: CuttingProxy, database_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call that comes meanwhile succeeds when the server is back within the time, else it raises `StoreError`."""
    url = f"postgresql://segue:hunter2@127.0.0.1:{proxy.port}/{database_name}?sslmode=disable&wait_s=20"
    clock = LoopClock(monkeypatch)
    store = await PostgresStore.open(parse_postgres_url(url))
    await store.append(sample_record("before"))
    proxy.refusing = True
    proxy.cut_all()
    append = asyncio.create_task(store.append(sample_record("during")))
    await asyncio.sleep(0)
    proxy.refusing = False
    await append
    proxy.refusing = True
    proxy.cut_all()
    with pytest.raises(StoreError, match=r"no connection within 20 s: check that the server runs") as caught:
        await clock.hurry(store.append(sample_record("late")))
    assert "hunter2" not in str(caught.value)
    await store.aclose()


async def test_many_that_wait_for_a_server_are_all_told_in_time(
    proxy: CuttingProxy, database_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that wait for a connection of others, too: none waits longer than it may."""
    url = f"postgresql://segue@127.0.0.1:{proxy.port}/{database_name}?sslmode=disable&wait_s=20&pool_size=1"
    clock, loop = LoopClock(monkeypatch), asyncio.get_running_loop()
    store = await PostgresStore.open(parse_postgres_url(url))
    proxy.refusing = True
    began = loop.time()
    calls = await clock.hurry(asyncio.gather(*(store.size() for _ in range(40)), return_exceptions=True))
    assert loop.time() - began < 3 * 20, "one after the other would take 20 s each"
    assert all(isinstance(call, StoreError) and "no connection within 20 s" in str(call) for call in calls)
    proxy.refusing = False
    assert (await store.size()).records == 0
    await store.aclose()


@pytest.mark.parametrize("rounds", range(8))
async def test_who_is_cancelled_while_it_is_given_a_connection_is_cancelled(
    database: PostgresUrl, monkeypatch: pytest.MonkeyPatch, rounds: int
) -> None:
    """Whatever Python and the pool make of it; and the connection is not lost."""
    loop, cancelled = asyncio.get_running_loop(), list[bool]()
    give = WaitingClient.set

    def cancel_after(rounds: int) -> None:
        if rounds:
            loop.call_soon(cancel_after, rounds - 1)
        else:
            cancelled.append(reading.cancel())

    async def give_and_cancel(client: WaitingClient[StoreConnection], connection: StoreConnection) -> bool:
        given = await give(client, connection)
        cancel_after(rounds)
        return given

    connections = PostgresConnections(msgspec.structs.replace(database, pool_size=1))
    await connections.open(nothing)
    monkeypatch.setattr(WaitingClient, "set", give_and_cancel)
    reading = asyncio.create_task(connections.read(b"SELECT 1", ()))
    await asyncio.wait([reading])
    await until(lambda: bool(cancelled))
    assert reading.cancelled() is cancelled[0]
    monkeypatch.undo()
    assert await connections.read(b"SELECT 2", ()) == [(2,)]
    await connections.aclose()


async def test_who_is_cancelled_leaves_the_call_to_its_end(cut_store: PostgresStore, database: PostgresUrl) -> None:
    """A commit that waits for a replica must not be cancelled. Closing waits for it."""
    append = asyncio.create_task(cut_store.append(sample_record("left")))
    read = asyncio.create_task(cut_store.size())
    await asyncio.sleep(0)
    append.cancel()
    read.cancel()
    await asyncio.wait([append, read])
    await cut_store.aclose()
    store = await PostgresStore.open(database)
    assert await store.record(ALICE, sample_id("left"), NOW) == sample_record("left")
    await store.aclose()


async def test_an_unknown_server_is_told_without_the_password(tmp_path: Path) -> None:
    url = f"postgresql://me:hunter2@/db?host={tmp_path}&password=hunter2"
    with pytest.raises(StoreError, match="No such file or directory") as caught:
        await PostgresStore.open(parse_postgres_url(url))
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None


async def test_what_libpq_does_not_understand_is_told_without_the_password() -> None:
    with pytest.raises(StoreError, match="libpq does not understand this URL") as caught:
        await PostgresStore.open(parse_postgres_url("postgresql://me:hunter2%zz@host/db"))
    assert "hunter2" not in str(caught.value)


async def test_a_lock_and_a_long_statement_end_in_time(server: PostgresServer, database_name: str) -> None:
    """A call does not wait for ever for another transaction; what it was to write is not there."""
    store = await PostgresStore.open(parse_postgres_url(server.url(database_name, statement_timeout_s="1")))
    await store.append(sample_record("root"))
    with psycopg.connect(server.url(database_name)) as other:
        other.execute("SELECT 1 FROM segue_records FOR UPDATE")
        with pytest.raises(StoreError, match="another transaction has held a lock for too long"):
            await store.append(sample_record("child", "root"))
        assert await store.record(ALICE, sample_id("root"), NOW) is not None, "a reader waits for nobody"
    await store.append(sample_record("child", "root"))
    connections = store._connections  # noqa: SLF001 - a call of its own
    with pytest.raises(StoreError, match="the statement took too long"):
        await connections.run(lambda connection, _: connection.execute("SELECT pg_sleep(30)"))
    await store.aclose()


async def test_a_commit_waits_for_the_disk_whatever_the_database_says(
    server: PostgresServer, database_name: str
) -> None:
    """A stricter setting stays."""
    for configured, used in (("off", "on"), ("remote_apply", "remote_apply"), ("on", "on")):
        option = f"-c synchronous_commit={configured}"
        connections = PostgresConnections(parse_postgres_url(server.url(database_name, options=option)))
        await connections.open(nothing)

        async def ask(connection: StoreConnection, _: bool) -> str:
            ((mode,),) = await (await connection.execute("SHOW synchronous_commit")).fetchall()
            return str(mode)

        assert await connections.run(ask) == used
        await connections.aclose()


async def test_statements_are_planned_once(database: PostgresUrl) -> None:
    connections = PostgresConnections(database)
    await connections.open(nothing)

    async def ask(connection: StoreConnection, _: bool) -> str:
        ((mode,),) = await (await connection.execute("SHOW plan_cache_mode")).fetchall()
        return str(mode)

    assert await connections.run(ask) == "force_generic_plan"
    await connections.aclose()


async def test_a_commit_that_gave_its_replica_up_is_not_acknowledged(database: PostgresUrl) -> None:
    """The server only warns of it."""
    connections = PostgresConnections(database)
    await connections.open(nothing)
    with pytest.raises(StoreError, match="may not be on the replica"):
        await connections.run(lambda connection, _: connection.execute("DO $$ BEGIN RAISE WARNING 'x'; END $$"))
    await connections.run(lambda connection, _: connection.execute("SELECT 1"))
    await connections.aclose()


async def test_a_database_of_another_encoding_is_refused(server: PostgresServer, database_name: str) -> None:
    name = f"latin_{database_name}"
    with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} ENCODING 'LATIN1' TEMPLATE template0".encode())
    with pytest.raises(StoreError, match="the encoding of the database is LATIN1: create one with ENCODING 'UTF8'"):
        await PostgresStore.open(parse_postgres_url(server.url(name)))


async def test_connections_are_bounded(server: PostgresServer, database_name: str, database: PostgresUrl) -> None:
    """However many calls there are."""
    store = await PostgresStore.open(parse_postgres_url(server.url(database_name, pool_size="3")))
    await asyncio.gather(*(store.size() for _ in range(50)))
    with psycopg.connect(server.url("postgres")) as connection:
        query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'segue' AND datname = %s"
        assert connection.execute(query, (database_name,)).fetchone() in [(1,), (2,), (3,)]
    await store.aclose()


async def test_nothing_secret_is_logged(
    proxy: CuttingProxy, database_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Not while a connection is made, lost, and made again."""
    caplog.set_level(logging.DEBUG)
    url = f"postgresql://segue:hunter2@127.0.0.1:{proxy.port}/{database_name}?sslmode=disable"
    store = await PostgresStore.open(parse_postgres_url(url))
    proxy.cut("answered", sample_id("secret").encode())
    await store.append(sample_record("secret"))
    await store.aclose()
    assert "hunter2" not in caplog.text
    assert "secret" not in caplog.text
