"""A PostgreSQL and a Redis for a measurement: they are started in a temporary folder, and gone at its end.

They are found as the programs of this machine. PostgreSQL refuses to run as root: then it runs as `postgres`, or as
`nobody`. It waits for its disk at each commit, as in production. Not here: what is measured (`cluster`).
"""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import tempfile
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec

from segue.extras import how_to_add

_START_S = 60.0
_POSTGRES_OPTIONS: Mapping[str, str] = {
    "listen_addresses": "",
    "shared_buffers": "128MB",
    "max_connections": "100",
    "jit": "off",
    "autovacuum": "off",
}
#: Transactions that write have numbers.
_SIZES = """
    SELECT pg_database_size(current_database()), pg_current_wal_lsn() - '0/0'::pg_lsn,
           pg_snapshot_xmax(pg_current_snapshot())::text::bigint,
           (SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid())
"""


class ServersMissing(Exception):
    """What has to be installed first."""


class DatabaseServers(msgspec.Struct, frozen=True):
    """Where both are, and their processes."""

    folder: Path
    postgres: int
    redis: int
    live: str

    def store(self, database: str = "postgres") -> str:
        """Return the URL of a database."""
        return f"postgresql://segue@/{database}?host={quote(str(self.folder))}"

    async def create(self, database: str) -> None:
        """Create an empty database."""
        await self._ask("postgres", f'CREATE DATABASE "{database}"')

    async def measure(self, database: str) -> tuple[int, int, int, int]:
        """Return its bytes on disk; the bytes of the server's log, its transactions that wrote, and who uses it."""
        size, log, writes, users = await self._ask(database, _SIZES)
        return int(size), int(log), int(writes), int(users)

    async def _ask(self, database: str, statement: str) -> tuple[Any, ...]:
        try:
            import psycopg  # noqa: PLC0415 - of the extra `cluster`
        except ModuleNotFoundError:
            raise ServersMissing(f"the client of PostgreSQL is not installed: {how_to_add('cluster')}") from None
        async with await psycopg.AsyncConnection.connect(self.store(database), autocommit=True) as connection:
            cursor = await connection.execute(statement.encode())
            return (await cursor.fetchone() or ()) if cursor.description else ()


@asynccontextmanager
async def database_servers() -> AsyncIterator[DatabaseServers]:
    """Run both around a block. Raises `ServersMissing`."""
    initdb, redis = find_postgres(), shutil.which("redis-server") or shutil.which("valkey-server")
    if initdb is None or redis is None:
        missing = "PostgreSQL (initdb)" if initdb is None else "Redis or Valkey (redis-server)"
        raise ServersMissing(f"{missing} is not installed: `apt-get install postgresql redis-server`")
    folder = Path(tempfile.mkdtemp(prefix="segue-bench-"))  # short: it holds Unix sockets
    user = _user()
    if user is not None:
        shutil.chown(folder, user)
    running: list[Process] = []
    try:
        postgres = await _start_postgres(initdb, folder, user)
        running.append(postgres)
        cache = await _start_redis(redis, folder)
        running.append(cache)
        yield DatabaseServers(folder, postgres.pid, cache.pid, f"unix://{folder}/redis.sock?db=0")
    finally:
        for process in running:
            if process.returncode is None:
                process.terminate() if process is not running[0] else process.send_signal(2)  # a fast shutdown
            await process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def find_postgres() -> Path | None:
    """Return `initdb`; Debian keeps the programs of the server out of the path."""
    found = shutil.which("initdb")
    if found is not None:
        return Path(found).resolve()
    others = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    return others[-1] if others else None


def _user() -> str | None:
    if os.getuid() != 0:
        return None
    return "postgres" if "postgres" in {entry.pw_name for entry in pwd.getpwall()} else "nobody"


async def _start_postgres(initdb: Path, folder: Path, user: str | None) -> Process:
    data = str(folder / "data")
    as_user = [] if user is None else ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"]
    options = ["--no-sync", "--auth=trust", "--username=segue", "--encoding=UTF8", "--locale=C", data]
    made = await asyncio.create_subprocess_exec(*as_user, initdb, *options, stdout=DEVNULL, stderr=PIPE, cwd=folder)
    _, said = await made.communicate()
    if made.returncode:
        raise ServersMissing(f"PostgreSQL's initdb failed: {said.decode(errors='replace').strip()[-200:]}")
    settings = {**_POSTGRES_OPTIONS, "unix_socket_directories": str(folder)}
    flags = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    command = [*as_user, str(initdb.with_name("postgres")), "-D", data, *flags]
    process = await asyncio.create_subprocess_exec(
        *command, stdout=DEVNULL, stderr=PIPE, cwd=folder, start_new_session=True
    )
    await _until_said(process, process.stderr, b"ready to accept connections", "PostgreSQL")
    return process


async def _start_redis(program: str, folder: Path) -> Process:
    options = ["--port", "0", "--unixsocket", str(folder / "redis.sock"), "--save", "", "--dir", str(folder)]
    process = await asyncio.create_subprocess_exec(
        program, *options, stdout=PIPE, stderr=STDOUT, start_new_session=True
    )
    await _until_said(process, process.stdout, b"ready to accept connections", "Redis")
    return process


async def _until_said(process: Process, output: asyncio.StreamReader | None, what: bytes, name: str) -> None:
    assert output is not None, "it was asked for"
    try:
        async with asyncio.timeout(_START_S):
            while line := await output.readline():
                if what in line.lower():
                    return
    except TimeoutError:
        process.kill()
    raise ServersMissing(f"{name} does not start on this machine")
