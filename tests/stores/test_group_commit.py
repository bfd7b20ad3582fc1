"""The writing thread: grouping, isolation of failures, backpressure, and the errors of a disk that does not work."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from segue.stores.group_commit import LARGE_BYTES, GroupCommitWriter
from segue.stores.interface import StoreError


class Desk:
    """A writer on a table of its own, whose thread can be held at the beginning of a transaction."""

    def __init__(self, path: Path, max_queued_bytes: int) -> None:
        self.connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=0)
        self.connection.execute("PRAGMA journal_mode = WAL")
        self.connection.execute("CREATE TABLE words (word TEXT UNIQUE)")
        self.connection.set_trace_callback(self._trace)
        self.go = threading.Event()
        self.go.set()
        self.commits = 0
        self.peak_bytes = 0
        self.writer = GroupCommitWriter(self.connection, path, max_queued_bytes)

    async def write(self, word: str, size: int = 1) -> None:
        await self.writer.run(lambda connection: self._insert(connection, word), size)

    def words(self) -> list[str]:
        return [word for (word,) in self.connection.execute("SELECT word FROM words ORDER BY rowid")]

    @staticmethod
    def _insert(connection: sqlite3.Connection, word: str) -> None:
        connection.execute("INSERT INTO words VALUES (?)", (word,))

    def _trace(self, statement: str) -> None:
        if statement == "BEGIN IMMEDIATE":
            self.go.wait()
        self.commits += statement == "COMMIT"
        self.peak_bytes = max(self.peak_bytes, self.writer.queued_bytes)


OpenDesk = Callable[..., Desk]


@asynccontextmanager
async def desk_at(path: Path, max_queued_bytes: int = 1_000_000) -> AsyncIterator[Desk]:
    desk = Desk(path, max_queued_bytes)
    try:
        yield desk
    finally:
        desk.go.set()
        await desk.writer.aclose()
        desk.connection.close()


async def started(*tasks: asyncio.Task[None]) -> None:
    """Let each task run until it waits: a task made earlier runs earlier."""
    await asyncio.sleep(0)
    assert not any(task.done() for task in tasks)


async def test_what_queued_up_shares_a_commit(tmp_path: Path) -> None:
    """A hundred operations that come during one commit share the next, in the order they came."""
    async with desk_at(tmp_path / "db") as desk:
        desk.go.clear()
        tasks = [asyncio.create_task(desk.write(str(n))) for n in range(100)]
        await started(*tasks)
        desk.go.set()
        await asyncio.gather(*tasks)
        assert desk.commits <= 2
        assert desk.words() == [str(n) for n in range(100)]


async def test_a_failed_operation_is_undone_alone(tmp_path: Path) -> None:
    """An operation that fails is undone; the others in its transaction are kept."""

    def half(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO words VALUES ('half')")
        raise LookupError("the other half")

    async with desk_at(tmp_path / "db") as desk:
        desk.go.clear()
        before, after = asyncio.create_task(desk.write("before")), asyncio.create_task(desk.write("after"))
        failing = asyncio.create_task(desk.writer.run(half, 1))
        await started(before, after, failing)
        desk.go.set()
        await asyncio.gather(before, after)
        with pytest.raises(LookupError, match="the other half"):
            await failing
        assert desk.words() == ["before", "after"]
        with pytest.raises(StoreError, match="UNIQUE"):
            await desk.write("before")


async def test_a_full_queue_makes_callers_wait(tmp_path: Path) -> None:
    """The queue stays within its bound; the other callers get in later, in order."""
    async with desk_at(tmp_path / "db", max_queued_bytes=10) as desk:
        desk.go.clear()
        tasks = [asyncio.create_task(desk.write(str(n), size=4)) for n in range(20)]
        await started(*tasks)
        assert desk.writer.queued_bytes == 8
        desk.go.set()
        await asyncio.gather(*tasks)
        assert desk.words() == [str(n) for n in range(20)]
        assert desk.peak_bytes <= 10
        assert desk.writer.queued_bytes == 0


async def test_what_is_larger_than_the_queue_goes_alone(tmp_path: Path) -> None:
    """An operation larger than the bound waits until the queue is empty; no later one overtakes it."""
    async with desk_at(tmp_path / "db", max_queued_bytes=10) as desk:
        desk.go.clear()
        words = [("small", 1), ("huge", 100), ("late", 1)]
        tasks = [asyncio.create_task(desk.write(word, size)) for word, size in words]
        await started(*tasks)
        assert desk.writer.queued_bytes == 1
        desk.go.set()
        await asyncio.gather(*tasks)
        assert desk.words() == ["small", "huge", "late"]


async def test_a_cancelled_caller_leaves_the_queue_in_order(tmp_path: Path) -> None:
    """Cancelling a caller that waits for room or for the commit affects no other, and the count returns to zero."""
    async with desk_at(tmp_path / "db", max_queued_bytes=1) as desk:
        desk.go.clear()
        tasks = [asyncio.create_task(desk.write(str(n))) for n in range(4)]
        await started(*tasks)
        tasks[0].cancel()  # in the queue
        tasks[1].cancel()  # first in line for room
        desk.go.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(result) for result in results] == [asyncio.CancelledError] * 2 + [type(None)] * 2
        assert desk.words() == ["0", "2", "3"], "what was queued is written, what waited for room is not"
        assert desk.writer.queued_bytes == 0


async def test_a_small_operation_waits_for_a_megabyte_of_large_ones_at_most(tmp_path: Path) -> None:
    """However many large ones came before it; and they go on in their order, some of them in each commit."""
    async with desk_at(tmp_path / "db", max_queued_bytes=10 * LARGE_BYTES) as desk:
        desk.go.clear()
        first = asyncio.create_task(desk.write("first"))
        await started(first)
        large = [asyncio.create_task(desk.write(f"large {n}", size=9 * LARGE_BYTES)) for n in range(4)]
        small = asyncio.create_task(desk.write("small"))
        await started(*large, small)
        desk.go.set()
        await small
        assert [task.done() for task in large].count(True) <= 1
        await asyncio.gather(*large)
        assert desk.words() == ["first", "small", "large 0", "large 1", "large 2", "large 3"]


async def test_a_commit_has_a_megabyte_of_large_operations(tmp_path: Path) -> None:
    async with desk_at(tmp_path / "db", max_queued_bytes=1 << 24) as desk:
        desk.go.clear()
        tasks = [asyncio.create_task(desk.write(str(n), size=400_000)) for n in range(5)]
        await started(*tasks)
        closing = asyncio.create_task(desk.writer.aclose())  # what waits in the thread is written, too
        await started(closing)
        desk.go.set()
        await asyncio.gather(*tasks, closing)
        assert desk.words() == [str(n) for n in range(5)]
        assert desk.commits in {3, 4}, "two in each, but perhaps the first alone"
        desk.writer = GroupCommitWriter(desk.connection, tmp_path / "db", 1)


async def test_close_finishes_what_waits_for_room(tmp_path: Path) -> None:
    """`aclose` finishes every earlier operation, also those that still wait for room."""
    async with desk_at(tmp_path / "db", max_queued_bytes=1) as desk:
        tasks = [asyncio.create_task(desk.write(str(n))) for n in range(5)]
        await started(*tasks)
    await asyncio.gather(*tasks)


async def test_a_full_disk_is_told_and_survived(tmp_path: Path) -> None:
    """Every caller in the group gets the advice; once there is space again, writing goes on."""
    async with desk_at(tmp_path / "db") as desk:
        (pages,) = desk.connection.execute("PRAGMA page_count").fetchone()
        desk.connection.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(StoreError, match="the disk is full; free some space"):
            await desk.write("long " * 10_000)
        desk.connection.execute("PRAGMA max_page_count = 1000000")
        await desk.write("short")
        assert desk.words() == ["short"]


async def test_a_locked_file_is_told_and_survived(tmp_path: Path) -> None:
    """The error names another program that writes to the file as the reason."""
    async with desk_at(tmp_path / "db") as desk:
        intruder = sqlite3.connect(tmp_path / "db", isolation_level=None)
        intruder.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="another process has locked the file; stop it"):
            await desk.write("word")
        intruder.execute("ROLLBACK")
        intruder.close()
        await desk.write("word")
        assert desk.words() == ["word"]


async def test_a_reader_of_another_program_delays_only_the_emptying(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """While another program reads an old state, the log is not truncated: a warning says so, and writing goes on."""
    async with desk_at(tmp_path / "db") as desk:
        await desk.write("old")
        reader = sqlite3.connect(tmp_path / "db", isolation_level=None)
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM words").fetchall()
        erased = await desk.writer.run(lambda db: db.execute("DELETE FROM words").rowcount, 1, erases=True)
        await desk.write("new")  # comes after the attempt
        assert erased == 1
        assert "a reader keeps the log from being emptied" in caplog.text
        reader.close()
        assert desk.words() == ["new"]
