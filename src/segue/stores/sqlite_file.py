"""The file of an SQLite store: opening it, its lock, its schema migrations, and what its errors mean.

One process owns a file at a time. It holds an advisory lock on `<file>.lock`, which the kernel releases when the
process ends, however it ends. The lock file itself stays; that it exists means nothing. Not here: the queries
(`sqlite`).
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path
from typing import BinaryIO, Literal

import msgspec

from segue.stores.interface import StoreError
from segue.stores.sqlite_labels import label_digests

#: How durable a commit is: see `sqlite`.
Synchronous = Literal["FULL", "NORMAL"]

#: A function that is called with the text of each SQL statement, values included, in the thread that runs it.
Trace = Callable[[str], object]

#: 'segu' in the file's header (migrations/0001_records.sql sets it).
APPLICATION_ID = 0x73656775

#: How long a statement waits for another program that has locked the file.
BUSY_TIMEOUT_S = 5.0

_READ_CACHE_KB = 8 * 1024  # for a long chain: its rows are read twice, first for the parents and then for the items
_PRIVATE = 0o600  # no other user of the machine may read conversations


class Migration(msgspec.Struct, frozen=True):
    """One step of the schema: the statements that lead to `version`."""

    version: int
    sql: str


class Database:
    """An open file: the lock on it, a connection that writes and one that only reads.

    One thread at a time uses a connection; another thread may have opened it, or may close it.
    """

    def __init__(self, path: Path, lock: BinaryIO, writer: sqlite3.Connection, reader: sqlite3.Connection) -> None:
        self.path = path
        self.writer = writer
        self.reader = reader
        self._lock = lock

    def size_bytes(self) -> int:
        """Return the size of the file and of its write-ahead log."""
        log = Path(f"{self.path}-wal")
        return self.path.stat().st_size + (log.stat().st_size if log.exists() else 0)

    def close(self) -> None:
        """Checkpoint the log into the file, then release the file and its lock, also if the checkpoint fails."""
        try:
            self.reader.close()
            checkpoint(self.writer)
        except sqlite3.Error as error:
            raise explain(error, self.path) from error
        finally:
            self.writer.close()
            self._lock.close()


def open_database(path: str | Path, synchronous: Synchronous, trace: Trace | None) -> Database:
    """Open or create a store's file, and migrate its schema. Raises `StoreError`."""
    real = Path(path).resolve()  # one lock for one file, by whatever path it is opened
    lock = _lock(real)
    connections: list[sqlite3.Connection] = []
    try:
        _create(real)
        connections.append(_connect(real))
        _prepare(connections[0], real, synchronous)
        connections.append(_connect(real))
        connections[1].execute("PRAGMA query_only = ON")
        connections[1].execute(f"PRAGMA cache_size = -{_READ_CACHE_KB}")
        for connection in connections:
            connection.set_trace_callback(trace)
        return Database(real, lock, *connections)
    except BaseException as error:
        for connection in connections:
            connection.close()
        lock.close()
        if isinstance(error, sqlite3.Error):
            raise explain(error, real) from error
        raise


def checkpoint(connection: sqlite3.Connection) -> bool:
    """Copy the write-ahead log into the file and truncate it; return False if a reader prevents that."""
    busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    return not busy


def migrations() -> list[Migration]:
    """Return the migrations of this version, oldest first."""
    files = resources.files("segue.stores").joinpath("migrations").iterdir()
    steps = {file.name: file.read_text(encoding="utf-8") for file in files if file.name.endswith(".sql")}
    return [Migration(int(name.partition("_")[0]), steps[name]) for name in sorted(steps)]


def migrate(connection: sqlite3.Connection, steps: Sequence[Migration]) -> None:
    """Apply the migrations that the file does not have yet. Each happens in full or not at all."""
    connection.create_function("label_digests", 1, label_digests, deterministic=True)  # 0005_labels.sql calls it
    version = _number(connection, "PRAGMA user_version")
    for step in steps:
        if step.version <= version:
            continue
        try:
            connection.executescript(f"BEGIN IMMEDIATE;\n{step.sql}\n;PRAGMA user_version = {step.version}; COMMIT;")
        except sqlite3.Error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise


def explain(error: sqlite3.Error, path: Path) -> StoreError:
    """Say what an error of SQLite means for the operator of the gateway, and what to do about it."""
    # Errors of the Python module have no code of SQLite; the low byte of an extended code is the primary code.
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    advice = _ADVICE.get(code, "see https://www.sqlite.org/rescode.html")
    return StoreError(f"{path}: {error}: {advice}")


_ADVICE = {
    sqlite3.SQLITE_FULL: "the disk is full; free some space, what is already stored is safe",
    sqlite3.SQLITE_BUSY: "another process has locked the file; stop it, or wait until it is done",
    sqlite3.SQLITE_LOCKED: "another process has locked the file; stop it, or wait until it is done",
    sqlite3.SQLITE_CORRUPT: "the file is damaged; restore a backup, or move the file away to start with an empty store",
    sqlite3.SQLITE_NOTADB: "this is no store of segue; name another file, or move this one away",
    sqlite3.SQLITE_CANTOPEN: "check that the directory exists and that this user may write in it",
    sqlite3.SQLITE_READONLY: "check that this user may write the file and its directory",
    sqlite3.SQLITE_PERM: "check that this user may write the file and its directory",
    sqlite3.SQLITE_IOERR: "the disk could not be read or written; the system log says why",
    sqlite3.SQLITE_TOOBIG: "a turn larger than SQLite can hold was not stored",
    sqlite3.SQLITE_NOMEM: "the process is out of memory",
}


def _lock(path: Path) -> BinaryIO:
    name = Path(f"{path}.lock")
    try:
        file = os.fdopen(os.open(name, os.O_RDWR | os.O_CREAT, _PRIVATE), "r+b")
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror}: check that its directory exists and is writable") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = file.read().decode(errors="replace").strip()
        file.close()
        if not isinstance(error, BlockingIOError):
            raise StoreError(f"{name}: {error.strerror}: the file must be on a local disk") from error
        by = f"process {holder}" if holder else "another process"
        message = f"{path} is in use by {by}: an SQLite store serves one gateway; stop that one, or name another file"
        raise StoreError(message) from error
    file.truncate()
    file.write(b"%d\n" % os.getpid())
    file.flush()
    return file


def _create(path: Path) -> None:
    """Create the file if it does not exist, with a mode that SQLite copies to the files beside it: this user only.

    Call it only under the lock: closing a file drops the locks that SQLite holds on it in the same process.
    """
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, _PRIVATE))
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror}: check that this user may write the file") from error


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA temp_store = MEMORY")  # no content of a conversation in temporary files
    return connection


def _prepare(connection: sqlite3.Connection, path: Path, synchronous: Synchronous) -> None:
    steps = migrations()
    _check_owner(connection, path, steps[-1].version)
    connection.execute("PRAGMA auto_vacuum = INCREMENTAL")  # of a new file; an older one stays as it is
    (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise StoreError(f"{path}: the file system does not support a write-ahead log; use a local disk")
    connection.execute(f"PRAGMA synchronous = {synchronous}")
    if synchronous == "FULL":
        connection.execute("PRAGMA fullfsync = ON")  # macOS: a plain fsync does not flush the drive's cache
    connection.execute("PRAGMA secure_delete = ON")
    migrate(connection, steps)
    checkpoint(connection)  # what a killed process has left in the log


def _check_owner(connection: sqlite3.Connection, path: Path, newest: int) -> None:
    """Refuse a file that this version must not touch, before anything is written."""
    ours = _number(connection, "PRAGMA application_id") == APPLICATION_ID
    if not ours and _number(connection, "SELECT count(*) FROM sqlite_master"):
        raise StoreError(f"{path} is the database of another program: name another file")
    version = _number(connection, "PRAGMA user_version")
    if version > newest:
        raise StoreError(
            f"{path} was written by a newer version of segue (its schema is {version}, this version knows {newest}): "
            "install that version, or name another file"
        )


def _number(connection: sqlite3.Connection, query: str) -> int:
    (value,) = connection.execute(query).fetchone()
    return int(value)
