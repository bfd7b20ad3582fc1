"""What only the SQLite store promises: durability, one process, O(delta) on disk, one query, nothing left behind."""

from __future__ import annotations

import asyncio
import functools
import importlib.util
import inspect
import random
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType

import msgspec
import pytest

from segue.history.records import Record
from segue.stores.interface import ParentGone, StoreError
from segue.stores.sqlite import SqliteStore, _shrink
from segue.stores.sqlite_file import Trace
from segue.testing.store_conformance import ALICE, BOB, NOW, link_of, sample_id, sample_record
from segue.testing.store_samples import sample_conversation_id

TURN_BYTES = 4096
BUDGET_BYTES = 2 * TURN_BYTES + 1024


@asynccontextmanager
async def store_at(path: Path, trace: Trace | None = None) -> AsyncIterator[SqliteStore]:
    store = await SqliteStore.open(path, trace=trace)
    try:
        yield store
    finally:
        await store.aclose()


def turn(depth: int) -> Record:
    """A turn of 4 KB at a depth of a chain whose settings are large and never change."""
    content = sample_record(f"{depth:04}", f"{depth - 1:04}" if depth else None, echo=b'{"t":"%b"}' % (b"t" * 20_000))
    item = b'{"type":"message","content":"%b"}' % random.Random(depth).randbytes(TURN_BYTES // 4).hex().encode()
    return msgspec.structs.replace(content, input=(item,), output=(item,))


async def append_all(store: SqliteStore, *records: Record) -> None:
    """Append in order, without waiting for each commit."""
    await asyncio.gather(*(store.append(record) for record in records))


def files_of(path: Path) -> bytes:
    """Everything that the store has on disk."""
    return b"".join(file.read_bytes() for file in sorted(path.parent.glob(f"{path.name}*")))


# Durability


@functools.cache
def crash_writer() -> ModuleType:
    spec = importlib.util.spec_from_file_location("crash_writer", Path(__file__).with_name("crash_writer.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run_and_kill(path: Path, label: str, lines: int) -> list[str]:
    """Run the writer until it has acknowledged so many operations, kill it, and return the lines it has printed."""
    command = [sys.executable, str(Path(__file__).with_name("crash_writer.py")), str(path), label]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = [process.stdout.readline() for _ in range(lines)]
        process.kill()
        said += process.stdout.readlines()
        assert process.wait() == -signal.SIGKILL
    return [line.rstrip("\n") for line in said]


async def unsaid_deletions(store: SqliteStore, names: set[str]) -> set[str]:
    """Return those of `names` that the writer deleted and could not report any more: only what it would delete next."""
    gone = {name for name in names if await store.record(ALICE, sample_id(name), NOW) is None}
    for name in gone:
        chain, _, depth = name.rpartition("/")
        assert int(depth) % 4 == 2, f"{name} was acknowledged, nobody deletes it, and it is not there"
        assert f"{chain}/{int(depth) + 1}" in names, f"{name} was acknowledged and is not there"
        assert f"{chain}/{int(depth) + 2}" not in names, f"the deletion of {name} was never said"
    return gone


async def assert_whole(store: SqliteStore, name: str, gone: set[str]) -> None:
    """A turn has exactly its chain, with the deleted ones marked; a deleted turn has none."""
    names = crash_writer().path_of(name)
    parents = [None, *names[:-1]]
    links = [link_of(sample_record(n, p), alive=n not in gone) for n, p in zip(names, parents, strict=True)]
    assert await store.chain(ALICE, sample_id(name), NOW) == (None if name in gone else links)


async def assert_conversations(store: SqliteStore, appended: set[str]) -> None:
    """A conversation points at its last acknowledged turn, or at the one behind that: never between, never back."""
    depths: dict[str, int] = {}
    for name in appended:
        chain, _, depth = name.rpartition("/")
        if crash_writer().is_conversation(chain) and not depth.endswith("f"):
            depths[chain] = max(int(depth), depths.get(chain, 0))
    for chain, deepest in depths.items():
        links = await store.conversation_chain(ALICE, sample_conversation_id(chain), NOW)
        assert links is not None
        assert len(links) - 1 in {deepest, deepest + 1}
        assert [link.id for link in links] == [sample_id(f"{chain}/{n}") for n in range(len(links))]


async def test_kill_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    """Killed at any moment, again and again: what was acknowledged is there with its exact chain, and no more help
    than opening the file is needed."""
    path, seeds = tmp_path / "segue.db", random.Random(20)
    appended, deleted = set[str](), set[str]()
    for label in range(6):
        for line in run_and_kill(path, str(label), seeds.randrange(1, 150)):
            (deleted if line.startswith("-") else appended).add(line[2:])
        async with store_at(path) as store:
            gone = deleted | await unsaid_deletions(store, appended - deleted)
            for name in appended:
                await assert_whole(store, name, gone)
            await assert_conversations(store, appended)
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
    listed = connection.execute("SELECT record FROM labels WHERE label = zeroblob(16) ORDER BY record").fetchall()
    assert listed == connection.execute("SELECT seq FROM records WHERE head IS NOT NULL ORDER BY seq").fetchall()
    connection.close()


def test_full_is_the_default() -> None:
    """To risk turns in a power cut, the operator must choose NORMAL."""
    assert inspect.signature(SqliteStore.open).parameters["synchronous"].default == "FULL"


# Faults


async def test_a_damaged_file_is_told(tmp_path: Path) -> None:
    """Reading from broken pages is an error that says what to do, not a wrong answer."""
    path = tmp_path / "segue.db"
    async with store_at(path) as store:
        await append_all(store, *map(turn, range(50)))
    content = bytearray(path.read_bytes())
    content[8192:] = b"\xa5" * (len(content) - 8192)
    path.write_bytes(content)

    async def read() -> None:
        async with store_at(path) as store:
            await store.chain(ALICE, turn(49).id, NOW)

    with pytest.raises(StoreError, match="the file is damaged; restore a backup"):
        await read()


# Commits and queries


async def test_concurrent_appends_share_commits(tmp_path: Path) -> None:
    """Two hundred appends that arrive during one commit share the next; one that fails does not affect the others."""
    go, statements = threading.Event(), list[str]()

    def trace(statement: str) -> None:
        statements.append(statement)
        if statement == "BEGIN IMMEDIATE":
            go.wait()

    async with store_at(tmp_path / "segue.db", trace) as store:
        records = [*map(turn, range(200)), sample_record("orphan", "unknown")]
        appends = asyncio.gather(*(store.append(record) for record in records), return_exceptions=True)
        await asyncio.sleep(0)  # each has queued its record
        go.set()
        results = await appends
        assert [type(result) for result in results] == [type(None)] * 200 + [ParentGone]
        assert statements.count("COMMIT") <= 2
        assert len(await store.chain(ALICE, turn(199).id, NOW) or []) == 200


async def test_reads_do_not_wait_for_a_commit(tmp_path: Path) -> None:
    """While a commit is stuck, what was committed before can be read, and what is being committed cannot yet."""
    go = threading.Event()
    go.set()

    def trace(statement: str) -> None:
        if statement == "COMMIT":
            go.wait()

    async with store_at(tmp_path / "segue.db", trace) as store:
        await store.append(turn(0))
        go.clear()
        append = asyncio.create_task(store.append(turn(1)))
        try:
            assert await store.chain(ALICE, turn(0).id, NOW) == [link_of(turn(0))]
            assert await store.record(ALICE, turn(1).id, NOW) is None
            assert not append.done()
        finally:
            go.set()
        await append
        assert await store.record(ALICE, turn(1).id, NOW) == turn(1)


async def test_a_chain_is_one_query(tmp_path: Path) -> None:
    """However deep the chain, its turns come in one statement; so does a record with its settings."""
    statements = list[str]()
    async with store_at(tmp_path / "segue.db", statements.append) as store:
        await append_all(store, *map(turn, range(500)))
        for depth in (0, 499):
            statements.clear()
            assert len(await store.chain(ALICE, turn(depth).id, NOW) or []) == depth + 1
            assert len(statements) == 1
        statements.clear()
        assert await store.record(ALICE, turn(499).id, NOW) == turn(499)
        assert len(statements) == 1


async def test_appends_wait_when_too_much_is_queued(tmp_path: Path) -> None:
    """With a slow disk the queue stays within its bound, and nothing is lost."""
    go, records = threading.Event(), [*map(turn, range(50))]
    limit = 3 * records[1].size_bytes

    def trace(statement: str) -> None:
        if statement == "BEGIN IMMEDIATE":
            go.wait()

    store = await SqliteStore.open(tmp_path / "segue.db", max_queued_bytes=limit, trace=trace)
    appends = asyncio.gather(*(store.append(record) for record in records))
    await asyncio.sleep(0)  # each has asked
    assert 0 < store.queued_bytes <= limit
    go.set()
    await appends
    assert store.queued_bytes == 0
    assert (await store.size()).records == 50
    await store.aclose()


# What is on disk


async def test_a_turn_costs_its_delta_at_any_depth(tmp_path: Path) -> None:
    """The row of turn 499 is as large as that of turn 1, and a turn of 4 KB costs the file at most its budget."""
    path = tmp_path / "segue.db"
    async with store_at(path) as store:
        await append_all(store, *map(turn, range(500)))
        assert (await store.size()).size_bytes >= 500 * TURN_BYTES
    connection = sqlite3.connect(path)
    columns = [name for _, name, *_ in connection.execute("PRAGMA table_info (records)")]
    total = " + ".join(f"coalesce(length({name}), 0)" for name in columns if name not in {"seq", "parent"})
    query = f"SELECT {total} FROM records WHERE id = ?"  # noqa: S608 - made of the schema's own names
    sizes = [connection.execute(query, (turn(depth).id,)).fetchone()[0] for depth in (1, 499)]
    assert sizes[0] == sizes[1] < TURN_BYTES + 512
    assert connection.execute("SELECT count(*) FROM echoes").fetchone() == (1,)
    connection.close()
    assert len(files_of(path)) <= 500 * BUDGET_BYTES


async def test_what_is_deleted_leaves_the_disk(tmp_path: Path) -> None:
    """Soon after a deletion neither the file nor its log has the items, the head or the settings any more."""
    path = tmp_path / "segue.db"
    secrets = [b"an item of theirs", b"a head of theirs", b"a setting of theirs"]
    item, head, echo = (b'{"t":"%b"}' % (secret * 500) for secret in secrets)
    secret = sample_record("secret", "root", echo=echo)
    secret = msgspec.structs.replace(secret, input=(item,), output=(item,), head=head)
    async with store_at(path) as store:
        await append_all(store, sample_record("root"), secret, sample_record("next", "root"))
        assert all(word in files_of(path) for word in secrets)
        assert await store.delete(ALICE, secret.id, NOW)
        assert await store.sweep(NOW) == []  # comes after the emptying of the log
        assert not any(word in files_of(path) for word in secrets)
    assert not any(word in files_of(path) for word in secrets)


async def test_what_is_erased_leaves_the_disk_and_the_file_shrinks(tmp_path: Path) -> None:
    """A file that an older version has made keeps its size, and none of the content."""
    for name, auto_vacuum in (("new.db", True), ("old.db", False)):
        path = tmp_path / name
        async with store_at(path) as store:
            if not auto_vacuum:
                writer = store._database.writer  # noqa: SLF001 - it makes the file as it was once
                writer.execute("PRAGMA auto_vacuum = NONE")
                writer.execute("VACUUM")
            await append_all(store, *map(turn, range(300)), sample_record("kept", tenant=BOB))
            await store.check_writable()
            full = path.stat().st_size + (path.parent / f"{name}-wal").stat().st_size
            assert len(await store.erase(ALICE, None)) == 300
            await store.sweep(NOW)  # comes after the emptying of the log
            assert (path.stat().st_size < full / 10) is auto_vacuum
            assert (await store.tenant_size(BOB)).records == 1
            assert b"ttttt" not in files_of(path)
            assert turn(7).input[0][40:80] not in files_of(path)


def test_a_step_of_shrinking_gives_many_pages_back_and_says_that_it_did(tmp_path: Path) -> None:
    """What says that it did is followed by a checkpoint, and only that makes the file smaller."""
    connection = sqlite3.connect(tmp_path / "free.db", isolation_level=None)
    connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    connection.execute("CREATE TABLE filled (text)")
    connection.execute("INSERT INTO filled VALUES (zeroblob(400000))")
    connection.execute("DELETE FROM filled")
    assert [_shrink(connection), _shrink(connection)] == [True, False]
    assert connection.execute("PRAGMA freelist_count").fetchone() == (0,)
    connection.close()


async def test_a_check_writes_and_finds_out_what_appends_would(tmp_path: Path) -> None:
    """It commits a page, and where that cannot be done, it says so; reading goes on."""
    path = tmp_path / "segue.db"
    async with store_at(path) as store:
        before = (await store.size()).size_bytes
        await store.check_writable()
        assert (await store.size()).size_bytes > before
        store._database.writer.execute("PRAGMA query_only = ON")  # noqa: SLF001 - as if the disk took nothing any more
        with pytest.raises(StoreError):
            await store.check_writable()
        assert (await store.size()).records == 0


async def test_a_tombstone_keeps_only_what_descendants_need(tmp_path: Path) -> None:
    """A deleted parent loses head and settings at once, and its items with its last descendant."""
    path = tmp_path / "segue.db"
    item, head, echo = (b'{"t":"%b"}' % (word * 500) for word in (b"their item", b"their head", b"their echo"))
    root = msgspec.structs.replace(sample_record("root", echo=echo), input=(item,), head=head)
    async with store_at(path) as store:
        await append_all(store, root, sample_record("leaf", "root"))
        await store.delete(ALICE, root.id, NOW)
    assert [word in files_of(path) for word in (b"their item", b"their head", b"their echo")] == [True, False, False]
    async with store_at(path) as store:
        await store.delete(ALICE, sample_id("leaf"), NOW)
    assert b"their item" not in files_of(path)


async def test_freed_space_is_used_again(tmp_path: Path) -> None:
    """A store that deletes as much as it appends does not grow."""
    path = tmp_path / "segue.db"
    async with store_at(path) as store:
        sizes = []
        for _ in range(4):
            await append_all(store, *map(turn, range(100)))
            assert all(await asyncio.gather(*(store.delete(ALICE, turn(n).id, NOW) for n in range(100))))
            await store.sweep(NOW)  # comes after the emptying of the log
            sizes.append((await store.size()).size_bytes)
    assert max(sizes[1:]) <= sizes[0] * 1.1
