"""Connections to PostgreSQL: a bounded pool, and calls that survive a lost connection, a restart and a failover.

A call is made again, for a bounded time, when its connection is lost or another transaction came in between. It is then
told so, since its first attempt may have been committed. A caller that is cancelled leaves its call running: to cancel
a commit that waits for a replica would make it one that did not wait. `synchronous_commit` is never off. Not here: what
a call does, and the schema (`schema`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import psycopg
from psycopg.abc import Buffer, PQGen
from psycopg.adapt import AdaptersMap, Dumper, Transformer
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import Format
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from segue.stores.interface import StoreError
from segue.stores.postgres.arrays import PackedArray
from segue.stores.postgres.exchanges import SocketExchange, Watchdog, Watched
from segue.stores.postgres.failures import explain, is_lost, is_passing
from segue.stores.postgres.postgres_url import PostgresUrl
from segue.stores.postgres.statements import PreparedStatements

T = TypeVar("T")

#: How long a call waits for a connection before it has the pool try anew: the pool's own pauses grow without a bound.
_SLICE_S = 0.5
#: Pauses between attempts, in seconds; the last one is repeated.
_PAUSES_S = (0.0, 0.05, 0.2, 0.5)

# Every statement finds its rows by keys, so one plan fits all values: to plan each append anew would double its cost on
# the server. It is made once, often before there are rows or statistics, when to read a whole table seems to be as good
# as an index; so other ways than nested loops over indexes are out of the question. A database may not have these
# settings: it has no row of them.
_PLANS = {"plan_cache_mode": "force_generic_plan"} | dict.fromkeys(
    ("enable_seqscan", "enable_hashjoin", "enable_mergejoin"), "off"
)
_SESSION = f"""
    SELECT current_setting('synchronous_commit'), current_setting('server_encoding'),
           (SELECT count(set_config(name, value, false))
              FROM pg_settings JOIN (VALUES {", ".join(map(str, _PLANS.items()))}) AS ours (name, value) USING (name))
"""  # noqa: S608 - made of constants
_WAIT_FOR_DISK = "SET synchronous_commit = on"
#: How coarse the bound of a call is.
_LOOK_S = 1.0
#: What a commit says that was cancelled while it waited for its replica: it is not as durable as was asked for.
_WARNING = "01000"


class StoreConnection(Watched, psycopg.AsyncConnection[tuple[Any, ...]]):
    """A connection, and whether the server has warned on it since somebody looked."""

    warned = False
    _statements: PreparedStatements | None = None

    async def fetch(self, statement: bytes, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """Run a statement, one of a bounded number; return its rows."""
        if self._statements is None:
            self._statements = PreparedStatements(self.pgconn, Transformer(self), self.wait)
        return await self._statements.fetch(statement, values)

    async def wait(self, gen: PQGen[T], interval: float = 0.0, timeout: float | None = None) -> T:  # noqa: ASYNC109 - as psycopg's
        """Exchange something with the server. Who is cancelled, or given up, leaves a connection that is closed.

        So nothing is cancelled at the server: a commit that waits for its replica would become one that did not wait.
        """
        if timeout is not None:
            return await super().wait(gen, interval, timeout)
        exchange = SocketExchange(gen, self.pgconn.socket)
        self.exchange = exchange
        try:
            return await exchange.run()
        except (asyncio.CancelledError, TimeoutError):
            self.pgconn.finish()
            raise
        finally:
            self.exchange = None

    def note(self, diagnostic: psycopg.errors.Diagnostic) -> None:
        """Take a notice of the server."""
        self.warned = self.warned or diagnostic.sqlstate == _WARNING


#: What a call does with a connection. It is told whether an earlier attempt may have been committed.
Operation = Callable[[StoreConnection, bool], Awaitable[T]]


class _ArrayDumper(Dumper):
    """Hands a packed array over as it is; its type is that of the cast in the statement."""

    format = Format.BINARY
    oid = 0

    def dump(self, obj: PackedArray) -> Buffer | None:
        return obj.data


class PostgresConnections:
    """Makes calls on a pool of connections. Use it on one event loop, and release it with `aclose`."""

    def __init__(self, url: PostgresUrl) -> None:
        self.url = url
        adapters = AdaptersMap(psycopg.adapters)
        adapters.register_dumper(PackedArray, _ArrayDumper)
        self._settings: dict[str, Any] = {
            "autocommit": True,
            "prepare_threshold": None,  # `fetch` prepares; psycopg would drop what is prepared when it rolls back
            "context": _Context(adapters),
        }
        self._pool = AsyncConnectionPool(
            url.conninfo,
            connection_class=StoreConnection,
            kwargs=self._settings,
            configure=_configure,
            min_size=0,
            max_size=url.pool_size,
            name="segue",
            open=False,
            reconnect_timeout=0.0,  # calls have a bound of their own
        )
        self._places = asyncio.Semaphore(url.pool_size)
        self._watchdog = Watchdog(_LOOK_S)
        self.call_limit_s = url.statement_timeout_s + url.wait_s
        self._calls: set[asyncio.Task[Any]] = set()
        self._closed = False

    async def open(self, prepare: Callable[[StoreConnection], Awaitable[None]]) -> None:
        """Connect once, so that what is wrong is told at once; `prepare` the database, and open the pool."""
        logging.getLogger("psycopg.pool").setLevel(logging.ERROR)  # our callers are told what keeps it from connecting
        try:
            conninfo_to_dict(self.url.conninfo)
        except psycopg.Error:  # it quotes what it does not understand
            advice = "check its options, and write special characters of its password as %XX"
            raise StoreError(f"{self.url.place}: libpq does not understand this URL: {advice}") from None
        try:
            connection = await StoreConnection.connect(self.url.conninfo, **self._settings)
            try:
                await _configure(connection)
                await prepare(connection)
            finally:
                await connection.close()
        except psycopg.Error as error:
            raise explain(error, self.url.place) from None  # the cause may quote the URL
        await self._pool.open()

    async def connect(self) -> StoreConnection:
        """Return a connection beside the pool, which the caller closes."""
        return await StoreConnection.connect(self.url.conninfo, **self._settings)

    async def run(self, operation: Operation[T]) -> T:
        """Make a call; return its result. Raises `StoreError` if the server is away for too long, or refuses."""
        if self._closed:
            raise self.closed_error()
        call = asyncio.create_task(self._run(operation))
        self._calls.add(call)
        call.add_done_callback(self._forget)
        return await asyncio.shield(call)

    async def read(self, statement: bytes, values: Sequence[object]) -> list[tuple[Any, ...]]:
        """Return the rows of a statement that changes nothing. Who is cancelled gives the connection up."""
        if self._closed:
            raise self.closed_error()
        return await self._run(lambda connection, _: connection.fetch(statement, values))

    async def run_inside(self, operation: Operation[T]) -> T:
        """Make a call in the task of the caller, whom nobody cancels."""
        return await self._run(operation)

    def closed_error(self) -> StoreError:
        """Return the error of a call that comes too late."""
        return StoreError(f"{self.url.place}: the store is closed")

    async def aclose(self) -> None:
        """Finish every call that has begun, then close the connections. Later calls raise `StoreError`."""
        self._closed = True
        while self._calls:
            await asyncio.wait(self._calls)
        self._watchdog.close()
        await self._pool.close()

    def _forget(self, call: asyncio.Task[Any]) -> None:
        self._calls.discard(call)
        if not call.cancelled():
            call.exception()  # its caller may have been cancelled

    async def _run(self, operation: Operation[T]) -> T:
        deadline = asyncio.get_running_loop().time() + self.url.wait_s
        attempt = 0
        await self._take_place(deadline)
        try:
            while True:
                try:
                    return await self._attempt(operation, attempt > 0, deadline)
                except psycopg.Error as error:
                    if not is_passing(error) or asyncio.get_running_loop().time() >= deadline:
                        raise explain(error, self.url.place) from error
                await asyncio.sleep(_PAUSES_S[min(attempt, len(_PAUSES_S) - 1)])
                attempt += 1
        finally:
            self._places.release()

    async def _take_place(self, deadline: float) -> None:
        """Wait until fewer calls are under way than there are connections; the order is that of their coming."""
        if not self._places.locked():
            await self._places.acquire()  # at once
            return
        try:
            async with asyncio.timeout_at(deadline):
                await self._places.acquire()
        except TimeoutError:
            raise self._away() from None

    async def _attempt(self, operation: Operation[T], again: bool, deadline: float) -> T:  # noqa: FBT001 - as `Operation`
        connection = await self._connect(deadline)
        self._watchdog.watch(connection, self.call_limit_s)
        try:
            result = await operation(connection, again)
            if connection.warned:
                raise StoreError(f"{self.url.place}: what was written may not be on the replica")
            return result
        except TimeoutError:
            raise StoreError(f"{self.url.place}: the server does not answer") from None
        except psycopg.Error as error:
            if is_lost(error):
                await connection.close()
            raise
        finally:
            self._watchdog.release(connection)
            connection.warned = False
            await self._pool.putconn(connection)

    async def _connect(self, deadline: float) -> StoreConnection:
        """Take a connection out of the pool, or wait for a new one.

        The pool waits with `asyncio.wait_for`, which forgets in Python 3.11 that its caller is cancelled if what it
        waits for is there at the same moment.
        """
        caller = asyncio.current_task()
        assert caller is not None, "a coroutine runs in a task"
        cancelled = caller.cancelling()
        while True:
            try:
                connection = await self._pool.getconn(_SLICE_S)
            except PoolTimeout:
                if asyncio.get_running_loop().time() + _SLICE_S > deadline:
                    raise self._away() from None
                continue
            if caller.cancelling() == cancelled:
                return connection
            await self._pool.putconn(connection)
            raise asyncio.CancelledError

    def _away(self) -> StoreError:
        message = f"{self.url.place}: no connection within {self.url.wait_s:g} s"
        return StoreError(f"{message}: check that the server runs and can be reached")


class _Context:
    """Gives new connections our adapters."""

    connection = None

    def __init__(self, adapters: AdaptersMap) -> None:
        self.adapters = adapters


async def _configure(connection: StoreConnection) -> None:
    """Prepare a new connection."""
    connection.add_notice_handler(connection.note)
    ((durable, encoding, _),) = await (await connection.execute(_SESSION.encode())).fetchall()
    if encoding != "UTF8":
        raise psycopg.NotSupportedError(f"the encoding of the database is {encoding}: create one with ENCODING 'UTF8'")
    if durable == "off":
        await connection.execute(_WAIT_FOR_DISK)
    connection.warned = False
