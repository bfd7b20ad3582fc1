"""Group commit: one thread that writes, and commits everything in its queue as one transaction.

A commit costs one disk flush, however much is in it; the more callers wait, the more of them share a flush. Each
operation runs in a savepoint of its own, so that one that fails is undone alone. Small operations do not wait for large
ones: all of those that are queued are in the next commit, and of large ones a limited number of bytes. Both queues are
bounded in bytes; callers that find theirs full wait for room, in the order they came. Not here: what the operations do
(`sqlite`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from segue.stores.queue_admission import QueueAdmission
from segue.stores.sqlite_file import BUSY_TIMEOUT_S, checkpoint, explain

T = TypeVar("T")

_log = logging.getLogger("segue.stores")

#: How long a checkpoint waits for readers. Ours take milliseconds; a backup by another program takes longer.
_CHECKPOINT_TIMEOUT_S = 0.25


#: A larger operation is a large one: a commit of a megabyte takes as long as a hundred small ones.
LARGE_BYTES = 64 * 1024
#: What large operations a commit has, unless there is one that is larger.
_LARGE_BYTES_OF_COMMIT = 1024 * 1024


class GroupCommitWriter:
    """Runs operations on a connection in its own thread: small ones in the order they came, and large ones likewise.

    `max_queued_bytes` is for each of both. Use it on the event loop that creates it, and await `aclose` at the end. The
    connection stays open: the caller owns it.
    """

    def __init__(self, connection: sqlite3.Connection, path: Path, max_queued_bytes: int) -> None:
        self._connection = connection
        self._path = path
        self._small = QueueAdmission(max_queued_bytes)
        self._large = QueueAdmission(max_queued_bytes)
        self._loop = asyncio.get_running_loop()
        self._stopped: asyncio.Future[None] = self._loop.create_future()
        self._queue: queue.SimpleQueue[_QueuedWrite | None] = queue.SimpleQueue()  # None: nothing follows
        self._later: deque[_QueuedWrite] = deque()  # large operations that the thread has taken out of the queue
        self._closed = False  # nothing follows
        # A daemon thread, so that a program that does not close its store can still end.
        self._thread = threading.Thread(target=self._run, name="segue-store-writer", daemon=True)
        self._thread.start()

    @property
    def queued_bytes(self) -> int:
        """How many bytes wait to be committed."""
        return self._small.queued_bytes + self._large.queued_bytes

    async def run(self, operation: Callable[[sqlite3.Connection], T], size: int, *, erases: bool = False) -> T:
        """Run `operation`, and return its result when it is committed.

        `size` is how many bytes it holds in memory while it waits. If it `erases` and its result is true, a checkpoint
        follows the commit, since the write-ahead log still contains what was erased. If the caller is cancelled, the
        operation may or may not happen.
        """
        await self._admission(size).admit(size)
        done: asyncio.Future[T] = self._loop.create_future()
        self._queue.put(_QueuedWrite(operation, done, size=size, erases=erases))
        return await done

    async def aclose(self) -> None:
        """Finish every operation, then end the thread. Call it once, and do not call `run` after it."""
        async with self._small.order, self._large.order:  # after the callers that wait for room
            self._queue.put(None)
        await self._stopped
        self._thread.join()

    def _admission(self, size: int) -> QueueAdmission:
        return self._large if size > LARGE_BYTES else self._small

    def _resolve(self, outcomes: Sequence[_WriteOutcome]) -> None:
        """Give the callers of a group their results, on the event loop."""
        for outcome in outcomes:
            size = outcome.write.size
            self._admission(size).release(size)
            outcome.resolve()

    # The methods below run in the thread.

    def _run(self) -> None:
        while not self._closed or self._later:
            group = self._take()
            if group:
                self._finish(group)
        self._call(self._stopped.set_result, None)

    def _take(self) -> list[_QueuedWrite]:
        """Return the operations of the next commit; wait for one if there is none."""
        group: list[_QueuedWrite] = []
        with contextlib.suppress(queue.Empty):
            while not self._closed:
                waits = not group and not self._later
                write = self._queue.get() if waits else self._queue.get_nowait()
                if write is None:
                    self._closed = True
                elif write.size > LARGE_BYTES:
                    self._later.append(write)
                else:
                    group.append(write)
        if self._later:
            self._take_large(group)
        return group

    def _take_large(self, group: list[_QueuedWrite]) -> None:
        left = _LARGE_BYTES_OF_COMMIT
        while self._later and (left == _LARGE_BYTES_OF_COMMIT or self._later[0].size <= left):
            group.append(self._later.popleft())
            left -= group[-1].size

    def _finish(self, group: list[_QueuedWrite]) -> None:
        outcomes = self._commit(group)
        self._call(self._resolve, outcomes)
        if any(outcome.write.erases and outcome.result for outcome in outcomes):
            self._checkpoint()

    def _commit(self, group: list[_QueuedWrite]) -> list[_WriteOutcome]:
        connection = self._connection
        try:
            connection.execute("BEGIN IMMEDIATE")
            if len(group) == 1:  # what it has done is undone with the transaction
                outcomes = [_WriteOutcome(group[0], group[0].operation(connection), None)]
            else:
                outcomes = [self._run_one(write) for write in group]
            connection.execute("COMMIT")
        except Exception as error:  # noqa: BLE001 - the callers get any error, and the thread must survive it
            with contextlib.suppress(sqlite3.Error):  # a failed commit may have ended the transaction
                connection.execute("ROLLBACK")
            return [_WriteOutcome(write, None, self._explain(error)) for write in group]
        return outcomes

    def _run_one(self, write: _QueuedWrite) -> _WriteOutcome:
        connection = self._connection
        connection.execute("SAVEPOINT job")
        try:
            result = write.operation(connection)
        except Exception as error:
            if (
                not connection.in_transaction
            ):  # SQLite has rolled back the whole group, as it does when the disk is full
                raise
            connection.execute("ROLLBACK TO job")
            connection.execute("RELEASE job")
            return _WriteOutcome(write, None, self._explain(error))
        connection.execute("RELEASE job")
        return _WriteOutcome(write, result, None)

    def _checkpoint(self) -> None:
        connection = self._connection
        connection.execute(f"PRAGMA busy_timeout = {_CHECKPOINT_TIMEOUT_S * 1000:.0f}")
        try:
            if not checkpoint(connection):
                _log.warning("%s: a reader keeps the log from being emptied of what was deleted", self._path)
        except sqlite3.Error as error:  # nothing is lost; the next commit has a caller to raise this to
            _log.warning("%s", explain(error, self._path))
        finally:
            connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_S * 1000:.0f}")

    def _explain(self, error: Exception) -> Exception:
        return explain(error, self._path) if isinstance(error, sqlite3.Error) else error

    def _call(self, callback: Callable[[Any], object], argument: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed, and no caller is left
            self._loop.call_soon_threadsafe(callback, argument)


class _QueuedWrite:
    """One operation that waits to be committed."""

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


class _WriteOutcome:
    """The result of an operation, or its error."""

    __slots__ = ("error", "result", "write")

    def __init__(self, write: _QueuedWrite, result: object, error: Exception | None) -> None:
        self.write = write
        self.result = result
        self.error = error

    def resolve(self) -> None:
        done = self.write.done
        if done.done():  # its caller was cancelled
            return
        if self.error is None:
            done.set_result(self.result)
        else:
            done.set_exception(self.error)
