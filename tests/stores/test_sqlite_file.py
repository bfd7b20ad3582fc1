"""The file of an SQLite store: its lock, its schema, its errors, and files that earlier versions wrote."""

from __future__ import annotations

import asyncio
import gzip
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from segue.protocol.response_query import ResponseQuery, model_label
from segue.stores import sqlite_file
from segue.stores.interface import StoreError
from segue.stores.sqlite import SqliteStore
from segue.stores.sqlite_file import Migration, checkpoint, explain, migrate, migrations, open_database
from segue.testing.store_conformance import link_of, sample_record
from tests.stores import earlier_version
from tests.stores.earlier_version import DELETED, EXPIRED, FORK, GONE, LEAF, NOW, OTHERS, RECORDS, ROOT


@asynccontextmanager
async def store_at(path: Path) -> AsyncIterator[SqliteStore]:
    store = await SqliteStore.open(path)
    try:
        yield store
    finally:
        await store.aclose()


# Opening


@pytest.mark.parametrize(("mode", "number"), [("FULL", 2), ("NORMAL", 1)])
def test_file_is_opened_as_documented(tmp_path: Path, mode: str, number: int) -> None:
    """WAL mode, the requested durability, and secure deletion are on."""
    database = open_database(tmp_path / "segue.db", "FULL" if mode == "FULL" else "NORMAL", None)
    settings = [database.writer.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")]
    assert settings == ["wal", number]
    assert database.writer.execute("PRAGMA secure_delete").fetchone() == (1,)
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        database.reader.execute("DELETE FROM records")
    database.close()


def modes_in(folder: Path) -> dict[str, int]:
    return {file.name: file.stat().st_mode & 0o777 for file in folder.iterdir()}


async def test_close_leaves_one_file_readable_by_its_owner_only(tmp_path: Path) -> None:
    """A closed store is its file and its lock file: the log is checkpointed, and only the owner may read them."""
    async with store_at(tmp_path / "segue.db") as store:
        await store.append(sample_record("root"))
    assert modes_in(tmp_path) == {"segue.db": 0o600, "segue.db.lock": 0o600}


# One process


async def test_a_second_process_is_refused(tmp_path: Path) -> None:
    """The error names the process that has the file; when that process has closed it, another can open it."""
    path = tmp_path / "segue.db"
    code = "import asyncio, sys; from segue.stores.sqlite import SqliteStore\n"
    code += "async def main(): await (await SqliteStore.open(sys.argv[1])).aclose()\n"
    code += "asyncio.run(main())"
    command = [sys.executable, "-c", code, str(path)]
    async with store_at(path):
        refused = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False)
    assert refused.returncode == 1
    assert "is in use by process" in refused.stderr
    assert "an SQLite store serves one gateway; stop that one, or name another file" in refused.stderr
    allowed = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False)
    assert allowed.returncode == 0, allowed.stderr


async def test_a_second_store_in_the_process_is_refused(tmp_path: Path) -> None:
    """A symbolic link leads to the same lock; the refusal does not disturb the store that has the file."""
    (tmp_path / "alias.db").symlink_to(tmp_path / "segue.db")
    async with store_at(tmp_path / "segue.db") as store:
        with pytest.raises(StoreError, match="is in use by process"):
            await SqliteStore.open(tmp_path / "alias.db")
        await store.append(sample_record("root"))


# The schema


def test_migrations_are_numbered_without_a_gap() -> None:
    """The package contains the migrations, each with the next number."""
    steps = migrations()
    assert [step.version for step in steps] == list(range(1, len(steps) + 1))


def test_each_migration_is_taken_once() -> None:
    """A file stores its version, and gets only the migrations after it."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    first = Migration(1, "CREATE TABLE a (x); -- with a comment at its end")
    migrate(connection, [first])
    migrate(connection, [first, Migration(2, "CREATE TABLE b (x)")])
    assert connection.execute("PRAGMA user_version").fetchone() == (2,)
    assert connection.execute("SELECT name FROM sqlite_master ORDER BY name").fetchall() == [("a",), ("b",)]
    connection.close()


def test_a_failed_migration_is_undone() -> None:
    """A step that fails half-way leaves the file at the version it had."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    with pytest.raises(sqlite3.OperationalError, match="already exists"):
        migrate(
            connection, [Migration(1, "CREATE TABLE a (x)"), Migration(2, "CREATE TABLE b (x); CREATE TABLE a (x)")]
        )
    assert connection.execute("PRAGMA user_version").fetchone() == (1,)
    assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("a",)]
    connection.close()


async def test_a_newer_file_is_refused_untouched(tmp_path: Path) -> None:
    """This version cannot know what a later schema means."""
    path = tmp_path / "segue.db"
    async with store_at(path):
        pass
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(StoreError, match=r"newer version of segue \(its schema is 99, this version knows 5\)"):
        await SqliteStore.open(path)
    assert path.read_bytes() == before


async def test_another_programs_database_is_refused_untouched(tmp_path: Path) -> None:
    """The store creates no tables in another program's file."""
    path = tmp_path / "other.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE theirs (x)")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(StoreError, match="is the database of another program: name another file"):
        await SqliteStore.open(path)
    assert path.read_bytes() == before


async def test_a_file_that_is_no_database_is_refused_untouched(tmp_path: Path) -> None:
    """The file is not changed."""
    path = tmp_path / "notes.txt"
    path.write_bytes(b"remember the milk\n" * 1000)
    with pytest.raises(StoreError, match="this is no store of segue; name another file"):
        await SqliteStore.open(path)
    assert path.read_bytes() == b"remember the milk\n" * 1000


# What earlier versions wrote


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    """A store's file as an earlier version closed it."""
    packed = Path(earlier_version.__file__).with_name("earlier_version.db.gz")
    path = tmp_path / "segue.db"
    path.write_bytes(gzip.decompress(packed.read_bytes()))
    return path


async def test_a_file_of_an_earlier_version_reads_back_whole(earlier: Path) -> None:
    """Records, chains through a deleted turn, and what has expired since."""
    async with store_at(earlier) as store:
        for record in (ROOT, LEAF, FORK, EXPIRED, OTHERS):
            assert await store.record(record.tenant, record.id, NOW) == record
        assert await store.record(GONE.tenant, GONE.id, NOW) is None
        links = [link_of(ROOT), link_of(GONE, alive=False), link_of(LEAF)]
        assert await store.chain("ann", LEAF.id, NOW) == links
        assert await store.chain("ann", FORK.id, NOW) == [link_of(ROOT), link_of(FORK)]
        assert await store.chain(OTHERS.tenant, OTHERS.id, NOW) == [link_of(OTHERS)]
        assert (await store.size()).records == len(RECORDS) - len(DELETED)
        assert await store.sweep(NOW + 61) == [("ann", EXPIRED.id)]


async def test_a_file_of_an_earlier_version_is_written_on(earlier: Path) -> None:
    """A chain goes on, and its tombstone is freed with its last descendant."""
    last = msgspec.structs.replace(LEAF, id=sample_record("new").id, parent_id=LEAF.id)
    async with store_at(earlier) as store:
        await store.append(last)
    async with store_at(earlier) as store:
        expected = [link_of(ROOT), link_of(GONE, alive=False), link_of(LEAF), link_of(last)]
        assert await store.chain("ann", last.id, NOW) == expected
        for record in (last, LEAF):
            assert await store.delete("ann", record.id, NOW)
        assert await store.chain("ann", FORK.id, NOW) == [link_of(ROOT), link_of(FORK)]
    assert rows_of(earlier) == [OTHERS.id, ROOT.id, FORK.id, EXPIRED.id]


def rows_of(path: Path) -> list[str]:
    connection = sqlite3.connect(path)
    rows = [ident for (ident,) in connection.execute("SELECT id FROM records ORDER BY tenant DESC, id")]
    connection.close()
    return rows


async def test_a_migrated_file_has_the_schema_of_a_new_one(earlier: Path, tmp_path: Path) -> None:
    """A change of the schema is a new migration, and no edit of the first: what there was is as it was."""
    before = schema_of(earlier)
    for path in (tmp_path / "new.db", earlier, earlier):  # a second time there is nothing to migrate
        async with store_at(path):
            pass
        assert schema_of(path)[-1] == (5,)
    assert schema_of(tmp_path / "new.db") == schema_of(earlier)
    assert len(migrations()) == 5
    grown = {table_of(name, before) for name in ("echoes", "records")}
    assert set(before) - set(schema_of(earlier)) == {(1,), *grown}, "each has one more column"


async def test_responses_of_an_earlier_version_are_listed(earlier: Path) -> None:
    """By their model too, once they have been migrated; and no more when they are deleted."""
    async with store_at(earlier) as store:
        every, brief = ResponseQuery(order="asc"), ResponseQuery(order="asc", labels=(model_label("gpt-5"),))
        assert await store.list_responses("ann", every, NOW) == [ROOT.id, LEAF.id, FORK.id, EXPIRED.id]
        assert await store.list_responses("ann", brief, NOW) == [ROOT.id, FORK.id, EXPIRED.id]
        assert await store.list_responses(OTHERS.tenant, brief, NOW) == [OTHERS.id]
        assert await store.delete("ann", FORK.id, NOW)
        assert await store.list_responses("ann", brief, NOW + 60) == [ROOT.id]


async def test_items_of_an_earlier_version_are_not_known_by_their_ids(earlier: Path) -> None:
    """To read all of them would make opening a large file slow. What is written from now on is found."""
    new = sample_record("new", given=("msg_1",))
    async with store_at(earlier) as store:
        assert await store.find_item("ann", "msg_1", NOW) is None
        await store.append(msgspec.structs.replace(new, tenant="ann", expires_at=NOW + 1))
    async with store_at(earlier) as store:
        assert await store.find_item("ann", "msg_1", NOW) == new.id


def schema_of(path: Path) -> list[object]:
    connection = sqlite3.connect(path)
    schema: list[object] = connection.execute("SELECT type, name, sql FROM sqlite_master ORDER BY name").fetchall()
    schema += [connection.execute(f"PRAGMA {name}").fetchone() for name in ("application_id", "user_version")]
    connection.close()
    return schema


def table_of(name: str, schema: list[object]) -> object:
    (found,) = (row for row in schema if isinstance(row, tuple) and row[:2] == ("table", name))
    return found


# Errors


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        (sqlite3.SQLITE_FULL, "the disk is full"),
        (sqlite3.SQLITE_BUSY, "another process has locked the file"),
        (sqlite3.SQLITE_IOERR_FSYNC, "the disk could not be read or written"),
        (sqlite3.SQLITE_CONSTRAINT, "see https://www.sqlite.org/rescode.html"),
        (None, "see https://www.sqlite.org/rescode.html"),
    ],
)
def test_an_error_says_what_to_do(code: int | None, advice: str) -> None:
    """By its primary code; an error of the Python module has none."""
    error = sqlite3.OperationalError("it broke")
    if code is not None:
        error.sqlite_errorcode = code
    text = str(explain(error, Path("segue.db")))
    assert text.startswith(f"segue.db: it broke: {advice}")


def test_a_file_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    """The lock can be taken; the file is a directory."""
    (tmp_path / "segue.db").mkdir()
    with pytest.raises(StoreError, match=r"segue\.db: Is a directory: check that this user may write the file"):
        open_database(tmp_path / "segue.db", "FULL", None)


def test_a_disk_without_locks_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some network file systems have no locks, so that two gateways could open the file."""

    def fail(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("segue.stores.sqlite_file.fcntl.flock", fail)
    with pytest.raises(StoreError, match=r"segue\.db\.lock: Operation not supported: the file must be on a local disk"):
        open_database(tmp_path / "segue.db", "FULL", None)
    assert not (tmp_path / "segue.db").exists()


def test_a_file_system_without_a_write_ahead_log_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its lock is released."""
    path = tmp_path / "segue.db"

    def in_memory(_: Path) -> sqlite3.Connection:
        return sqlite3.connect(":memory:", isolation_level=None)

    with monkeypatch.context() as patch:
        patch.setattr(sqlite_file, "_connect", in_memory)
        with pytest.raises(StoreError, match="does not support a write-ahead log; use a local disk"):
            open_database(path, "FULL", None)
    open_database(path, "FULL", None).close()


def test_a_checkpoint_says_whether_a_reader_prevents_it(tmp_path: Path) -> None:
    database = open_database(tmp_path / "segue.db", "FULL", None)
    database.writer.execute("PRAGMA busy_timeout = 0")
    database.reader.execute("BEGIN")
    database.reader.execute("SELECT count(*) FROM records").fetchone()
    database.writer.execute("INSERT INTO echoes (tenant, digest, echo) VALUES ('ann', x'00', x'00')")
    assert not checkpoint(database.writer)
    database.reader.execute("COMMIT")
    assert checkpoint(database.writer)
    database.close()


def test_the_size_counts_the_log(tmp_path: Path) -> None:
    database = open_database(tmp_path / "segue.db", "FULL", None)
    before = database.size_bytes()
    database.writer.execute("INSERT INTO echoes (tenant, digest, echo) VALUES ('ann', x'00', zeroblob(100000))")
    grown = database.size_bytes()
    checkpoint(database.writer)
    assert before == 4096 * 15
    assert grown >= before + 100_000
    assert database.size_bytes() == (tmp_path / "segue.db").stat().st_size
    database.close()


def test_closing_a_broken_file_releases_it(tmp_path: Path) -> None:
    """The error says what to do, and the file can be opened again."""
    path = tmp_path / "segue.db"
    database = open_database(path, "FULL", None)
    database.writer.close()
    with pytest.raises(StoreError, match="Cannot operate on a closed database"):
        database.close()
    open_database(path, "FULL", None).close()
