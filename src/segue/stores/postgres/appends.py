"""Appends to a PostgreSQL store: those that wait for a commit share the next one.

A statement writes what has come while the one before it ran: a commit is one round trip and one flush, however many
rows are in it. Few statements run at once, since they would share the server's flush anyway. Rows that could not be
written are looked at one by one. An append whose commit may have happened before its connection was lost is made again
under the same id: a row that is there and the same is its own. Not here: the statement (`new_rows`).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import OrderedDict, deque
from collections.abc import Sequence

import msgspec
import psycopg
from psycopg.errors import UniqueViolation
from psycopg.pq import TransactionStatus

from segue.stores.interface import ConversationMoved, IdTaken, ParentGone, StoreError
from segue.stores.postgres.arrays import PackedArray
from segue.stores.postgres.connections import PostgresConnections, StoreConnection
from segue.stores.postgres.freeing import free_settings
from segue.stores.postgres.new_rows import WRITE, WRITE_TO_CONVERSATION, ConversationPointer, NewRow, parameters
from segue.stores.queue_admission import QueueAdmission

#: How many statements write at once: while one waits for its commit, the next is sent.
_LANES = 2
#: How many rows a statement writes, and how many bytes, unless there is one row that is larger.
_MOST_ROWS = 64
_MOST_BYTES = 1024 * 1024
#: A larger row is a large one: it does not make small ones wait.
LARGE_BYTES = 64 * 1024
#: How many settings we remember to be stored, so that they need not be sent again.
_KNOWN_SETTINGS = 4096
#: How often a row is tried again whose place another continuation of the same turn has taken.
_ATTEMPTS = 20

_LOOK = b"""
    SELECT EXISTS (SELECT 1 FROM segue_records WHERE tenant = %b::text AND id = %b::text),
           EXISTS (SELECT 1 FROM segue_records
                    WHERE tenant = %b::text AND id = %b::text AND created_at = %b::double precision
                      AND calls = %b::bytea AND input = %b::bytea AND output = %b::bytea),
           %b::text IS NULL OR EXISTS (SELECT 1 FROM segue_records WHERE tenant = %b::text AND id = %b::text),
           %b::text IS NULL OR EXISTS (SELECT 1 FROM segue_conversations
                                        WHERE tenant = %b::text AND id = %b::text
                                          AND turn IS NOT DISTINCT FROM %b::text)
"""


class Appends:
    """Writes new rows. Use it on one event loop; `max_queued_bytes` is for small and for large rows each."""

    def __init__(self, connections: PostgresConnections, max_queued_bytes: int) -> None:
        self._connections = connections
        self._small = _Lanes(self, max_queued_bytes, _LANES)
        self._large = _Lanes(self, max_queued_bytes, 1)
        self._pending: dict[tuple[str, str], asyncio.Future[None]] = {}
        self._known: OrderedDict[tuple[str, bytes | None], None] = OrderedDict()

    @property
    def queued_bytes(self) -> int:
        """How many bytes wait to be committed."""
        return self._small.admission.queued_bytes + self._large.admission.queued_bytes

    async def append(self, row: NewRow) -> None:
        """Write a row, durably; wait for room if the queue is full. Raises as `Store.append` does."""
        keys = ((row.tenant, ident) for ident in (row.parent_id, row.id) if ident is not None)
        before = [self._pending[key] for key in keys if key in self._pending]
        lanes = self._large if row.size_bytes > LARGE_BYTES else self._small
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        written.add_done_callback(_retrieve)  # its caller may have been cancelled
        self._pending[row.tenant, row.id] = written
        try:
            if before:  # what is being written is there before it is continued
                await asyncio.wait(before)
            await lanes.put(row, written)
        except BaseException:
            self.settle(row, written, StoreError("its caller was cancelled"))
            raise
        await asyncio.shield(written)

    async def append_to(self, pointer: ConversationPointer, row: NewRow) -> None:
        """Write a row, and point a conversation at it, which must have pointed at its parent until then."""
        await self._connections.run(lambda connection, again: write_one(connection, row, pointer, again=again))

    async def idle(self) -> None:
        """Wait until nothing is being written."""
        while self._pending:
            await asyncio.wait(self._pending.values())

    # The methods below are called by the lanes.

    async def write(self, batch: Sequence[tuple[NewRow, asyncio.Future[None]]]) -> None:
        """Write rows at once; give each its outcome."""
        rows = [self._without_known(row) for row, _ in batch]
        entropy = os.urandom(16 * len(rows))
        unsure = False

        async def write(connection: StoreConnection, again: bool) -> set[int]:  # noqa: FBT001 - as `Operation`
            nonlocal unsure
            unsure = again
            return await _write(connection, rows, entropy)

        try:
            added = await self._connections.run_inside(write)
        except StoreError as error:
            if len(batch) == 1 or not isinstance(error.__cause__, psycopg.DataError):
                for row, written in batch:
                    self.settle(row, written, error)
                return
            added = set()  # one of them has what the server does not take
        for n, (row, written) in enumerate(batch, 1):
            if n in added:
                self._remember(row)
                self.settle(row, written, None)
        left = [pair for n, pair in enumerate(batch, 1) if n not in added]
        await asyncio.gather(*(self._write_alone(row, written, unsure=unsure) for row, written in left))

    def settle(self, row: NewRow, written: asyncio.Future[None], error: BaseException | None) -> None:
        """Give the caller of an append its outcome."""
        if self._pending.get((row.tenant, row.id)) is written:
            del self._pending[row.tenant, row.id]
        if written.done():
            return
        if error is None:
            written.set_result(None)
        else:
            written.set_exception(error)

    async def _write_alone(self, row: NewRow, written: asyncio.Future[None], *, unsure: bool) -> None:
        """Write a row that was not written with others, or find out why: it may be there (`unsure`)."""
        try:
            await self._connections.run_inside(
                lambda connection, again: write_one(connection, row, None, again=again or unsure)
            )
        except StoreError as error:
            self.settle(row, written, error)
        else:
            self._remember(row)
            self.settle(row, written, None)

    def _without_known(self, row: NewRow) -> NewRow:
        known = (row.tenant, row.digest) in self._known
        return msgspec.structs.replace(row, settings=None) if known else row

    def _remember(self, row: NewRow) -> None:
        self._known[row.tenant, row.digest] = None
        self._known.move_to_end((row.tenant, row.digest))
        while len(self._known) > _KNOWN_SETTINGS:
            self._known.popitem(last=False)


class _Lanes:
    """A queue of rows, and a bounded number of tasks that write them."""

    def __init__(self, appends: Appends, max_queued_bytes: int, most: int) -> None:
        self.admission = QueueAdmission(max_queued_bytes)
        self._appends = appends
        self._most = most
        self._queue: deque[tuple[NewRow, asyncio.Future[None]]] = deque()
        self._running = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def put(self, row: NewRow, written: asyncio.Future[None]) -> None:
        await self.admission.admit(row.size_bytes)
        self._queue.append((row, written))
        if self._running < self._most:
            self._running += 1
            task = asyncio.create_task(self._run())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _run(self) -> None:
        """Write what is queued. It counts as running until it finds nothing there, and not until its task is over."""
        while self._queue:
            batch = self._take()
            try:
                await self._appends.write(batch)
            except Exception as error:  # noqa: BLE001 - the callers get any error, and the lane must survive it
                for row, written in batch:
                    self._appends.settle(row, written, error)
            finally:
                self.admission.release(sum(row.size_bytes for row, _ in batch))
        self._running -= 1

    def _take(self) -> list[tuple[NewRow, asyncio.Future[None]]]:
        """Return what the next statement writes. Of rows that continue the same turn it takes one: see `new_rows`."""
        batch: list[tuple[NewRow, asyncio.Future[None]]] = []
        parents: set[tuple[str, str | None]] = set()
        size = 0
        while self._queue and len(batch) < _MOST_ROWS:
            row, _ = self._queue[0]
            size += row.size_bytes
            if batch and (size > _MOST_BYTES or (row.parent_id is not None and (row.tenant, row.parent_id) in parents)):
                break
            parents.add((row.tenant, row.parent_id))
            batch.append(self._queue.popleft())
        return batch


async def write_one(
    connection: StoreConnection, row: NewRow, pointer: ConversationPointer | None, *, again: bool
) -> None:
    """Write one row; raise what keeps it from being written. `again`: an earlier attempt may have been committed."""
    values = parameters([row], os.urandom(16), pointer)
    for _ in range(_ATTEMPTS):
        if await _try(connection, values, pointer):
            return
        try:
            if await _explain(connection, row, pointer, again=again):
                return
        except StoreError:
            if row.digest is not None:
                await free_settings(connection, row.tenant, row.digest)
            raise
    raise StoreError(f"the response {row.id!r} was not stored: too many others continue the same one at once")


async def _try(
    connection: StoreConnection, values: Sequence[PackedArray | str | None], pointer: ConversationPointer | None
) -> bool:
    """Write one row, also within a transaction; return whether it is written."""
    if pointer is None:
        return bool(await connection.fetch(WRITE, values))
    inside = connection.info.transaction_status != TransactionStatus.IDLE
    try:
        async with connection.transaction() if inside else contextlib.nullcontext():  # a savepoint
            return bool(await connection.fetch(WRITE_TO_CONVERSATION, values))
    except UniqueViolation:
        return False


async def _write(connection: StoreConnection, rows: Sequence[NewRow], entropy: bytes) -> set[int]:
    """Write rows; return the numbers of those that are written, counted from 1."""
    return {n for (n,) in await connection.fetch(WRITE, parameters(rows, entropy))}


async def _explain(
    connection: StoreConnection, row: NewRow, pointer: ConversationPointer | None, *, again: bool
) -> bool:
    """Raise what keeps a row from being written, if anything does; return whether an earlier attempt has written it."""
    key = (row.tenant, row.id)
    same = (*key, row.created_at, row.calls, row.input, row.output)
    parent = (row.parent_id, row.tenant, row.parent_id)
    ident, turn = (None, None) if pointer is None else (pointer.id, pointer.turn_id)
    values = (*key, *same, *parent, ident, row.tenant, ident, turn)
    ((taken, is_same, has_parent, points),) = await connection.fetch(_LOOK, values)
    if again and is_same:
        await confirm(connection)
        return True
    if not has_parent:
        raise ParentGone(f"the turn {row.parent_id!r}, which {row.id!r} continues, is not stored: was it deleted?")
    if not points:
        raise ConversationMoved(f"the conversation {ident!r} was deleted, or points elsewhere by now")
    if taken:
        raise IdTaken(f"the response {row.id!r} is already stored: an id is used once")
    return False


async def confirm(connection: StoreConnection) -> None:
    """Commit something: what was committed before it is then as durable, on a replica too."""
    await connection.fetch(
        b"INSERT INTO segue_checks (slot, checked_at) VALUES (%b::integer, now())"
        b" ON CONFLICT (slot) DO UPDATE SET checked_at = excluded.checked_at",
        (os.getpid() % 64,),
    )


def _retrieve(written: asyncio.Future[None]) -> None:
    if not written.cancelled():
        written.exception()
