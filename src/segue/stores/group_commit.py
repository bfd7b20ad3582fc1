"""Group commit: one thread that writes, and commits whatever has queued up as one transaction.

A commit costs a disk flush whatever is in it, so the more callers wait, the more share one. Each operation runs in a
savepoint of its own: if it fails, it alone is undone. The queue is bounded in bytes; who finds it full waits, first
come, first served. Not here: what the operations do (`sqlite`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from segue.stores.sqlite_file import BUSY_TIMEOUT_S, checkpoint, explain

T = TypeVar("T")

_log = logging.getLogger("segue.stores")

#: How long emptying the log waits for readers. They take milliseconds; a backup by another program takes longer.
_CHECKPOINT_TIMEOUT_S = 0.25


class GroupWriter:
    """Runs operations on a connection, in the order they came, in its own thread.

    Made and used on one event loop. `aclose` must be awaited; the connection stays open and belongs to the caller.
    """

    def __init__(self, connection: sqlite3.Connection, path: Path, max_queued_bytes: int) -> None:
        self._connection = connection
        self._path = path
        self._max_queued_bytes = max_queued_bytes
        self._queued_bytes = 0  # from being let in to being committed
        self._gate = asyncio.Lock()
        self._room = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._stopped: asyncio.Future[None] = self._loop.create_future()
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()  # None: the last one was before this
        # A daemon: a program that forgets to close a store must still be able to end.
        self._thread = threading.Thread(target=self._run, name="segue-store-writer", daemon=True)
        self._thread.start()

    @property
    def queued_bytes(self) -> int:
        """How much waits to be committed."""
        return self._queued_bytes

    async def run(self, operation: Callable[[sqlite3.Connection], T], size: int, *, erases: bool = False) -> T:
        """Run `operation` and return its result once that is committed.

        `size` is what it holds in memory while it waits. If it `erases` and its result is true, the log, which still
        has what was erased, is emptied soon after. When the caller is cancelled, the operation may happen or not.
        """
        await self._let_in(size)
        done: asyncio.Future[T] = self._loop.create_future()
        self._jobs.put(_Job(operation, done, size=size, erases=erases))
        return await done

    async def aclose(self) -> None:
        """Finish everything that was asked for, then end the thread. Call it once; `run` must not be called again."""
        async with self._gate:  # behind those who wait for room
            self._jobs.put(None)
        await self._stopped
        self._thread.join()

    async def _let_in(self, size: int) -> None:
        """Wait until the queue has room. What is larger than the whole queue is let in when it is empty."""
        async with self._gate:
            while self._queued_bytes and self._queued_bytes + size > self._max_queued_bytes:
                self._room.clear()
                await self._room.wait()
            self._queued_bytes += size

    def _settle(self, outcomes: Sequence[_Outcome]) -> None:
        """Tell the callers of a group, on the event loop."""
        for outcome in outcomes:
            self._queued_bytes -= outcome.job.size
            outcome.tell()
        self._room.set()

    # What follows runs in the thread.

    def _run(self) -> None:
        more = True
        while more:
            group, more = self._take()
            if group:
                self._finish(group)
        self._call(self._stopped.set_result, None)

    def _take(self) -> tuple[list[_Job], bool]:
        """Wait for a job and take everything that is there by then; False when nothing will come after it."""
        group: list[_Job] = []
        job = self._jobs.get()
        while job is not None:
            group.append(job)
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                return group, True
        return group, False

    def _finish(self, group: list[_Job]) -> None:
        outcomes = self._commit(group)
        self._call(self._settle, outcomes)
        if any(outcome.job.erases and outcome.result for outcome in outcomes):
            self._empty_log()

    def _commit(self, group: list[_Job]) -> list[_Outcome]:
        connection = self._connection
        try:
            connection.execute("BEGIN IMMEDIATE")
            outcomes = [self._attempt(job) for job in group]
            connection.execute("COMMIT")
        except Exception as error:  # noqa: BLE001 - whatever it is, the callers must hear of it and the thread live on
            with contextlib.suppress(sqlite3.Error):  # a failed commit may have ended the transaction
                connection.execute("ROLLBACK")
            return [_Outcome(job, None, self._explain(error)) for job in group]
        return outcomes

    def _attempt(self, job: _Job) -> _Outcome:
        connection = self._connection
        connection.execute("SAVEPOINT job")
        try:
            result = job.operation(connection)
        except Exception as error:
            if not connection.in_transaction:  # SQLite has undone the whole group: a full disk does that
                raise
            connection.execute("ROLLBACK TO job")
            connection.execute("RELEASE job")
            return _Outcome(job, None, self._explain(error))
        connection.execute("RELEASE job")
        return _Outcome(job, result, None)

    def _empty_log(self) -> None:
        connection = self._connection
        connection.execute(f"PRAGMA busy_timeout = {_CHECKPOINT_TIMEOUT_S * 1000:.0f}")
        try:
            if not checkpoint(connection):
                _log.warning("%s: a reader keeps the log from being emptied of what was deleted", self._path)
        except sqlite3.Error as error:  # nothing is lost; the next commit meets the same trouble, and has a caller
            _log.warning("%s", explain(error, self._path))
        finally:
            connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_S * 1000:.0f}")

    def _explain(self, error: Exception) -> Exception:
        return explain(error, self._path) if isinstance(error, sqlite3.Error) else error

    def _call(self, callback: Callable[[Any], object], argument: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(callback, argument)


class _Job:
    """One operation on its way to the disk."""

    __slots__ = ("done", "erases", "operation", "size")

    def __init__(
        self,
        operation: Callable[[sqlite3.Connection], object],
        done: asyncio.Future[Any],
        *,
        size: int,
        erases: bool,
    ) -> None:
        self.operation = operation
        self.done = done
        self.size = size
        self.erases = erases


class _Outcome:
    """What became of a job: a result, or an error."""

    __slots__ = ("error", "job", "result")

    def __init__(self, job: _Job, result: object, error: Exception | None) -> None:
        self.job = job
        self.result = result
        self.error = error

    def tell(self) -> None:
        done = self.job.done
        if done.done():  # its caller was cancelled
            return
        if self.error is None:
            done.set_result(self.result)
        else:
            done.set_exception(self.error)
