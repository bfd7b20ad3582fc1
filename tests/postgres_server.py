"""A PostgreSQL server for tests: it is made in a temporary folder, listens on a Unix socket there, and is thrown away.

All test processes of a session share one (`shared_server`), and each has a database of its own in it. Servers refuse to
run as root: then they run as `postgres` or `nobody`. Not here: what a store does with it (`tests/stores/postgres`).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pwd
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self
from urllib.parse import quote

import psycopg

#: Quick to start, and small. Nothing survives the machine, so nothing need wait for its disk; a kill loses nothing.
QUICK = MappingProxyType(
    {"fsync": "off", "shared_buffers": "16MB", "max_wal_size": "64MB", "jit": "off", "max_connections": "60"}
)


def find_programs() -> Path | None:
    """Return the folder of the server's programs; Debian keeps them out of the path."""
    found = shutil.which("initdb")
    if found is not None:
        return Path(found).resolve().parent
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    return folders[-1].parent if folders else None


def _user() -> str | None:
    """Return whom a server runs as; None for ourselves."""
    if os.getuid() != 0:
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in known else "nobody"


class PostgresServer:
    """A server in a folder of its own. Use it with `with`, or `start` and `stop` it."""

    def __init__(self, folder: Path, settings: Mapping[str, str] = QUICK) -> None:
        programs = find_programs()
        assert programs is not None, "the marker `postgres` skips tests where there is no server"
        self._programs = programs
        self.folder = folder
        self.data = folder / "data"
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.create()
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def create(self) -> None:
        """Make an empty cluster of databases."""
        self.run("initdb", "--no-sync", "--auth=trust", "--username=segue", "--encoding=UTF8", "--locale=C", self.data)

    def start(self) -> None:
        """Start the server, and wait until it answers."""
        self._process = self.launch()
        self.wait_until_ready()

    def launch(self) -> subprocess.Popen[bytes]:
        """Start the server's process."""
        command = [str(self._programs / "postgres"), "-D", str(self.data), *self._options()]
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder, **_as_user())

    def start_detached(self) -> None:
        """Make a cluster, and start a server that is no child of ours."""
        self.create()
        options = shlex.join(self._options())
        self.run("pg_ctl", "-D", self.data, "-l", self.folder / "log", "-o", options, "-w", "start")

    def _options(self) -> list[str]:
        settings = {"listen_addresses": "", "unix_socket_directories": str(self.folder), **self._settings}
        return [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]

    def wait_until_ready(self) -> None:
        while True:
            with contextlib.suppress(psycopg.OperationalError), psycopg.connect(self.url("postgres")):
                return
            assert self._process is not None
            if self._process.poll() is not None:
                raise AssertionError((self.folder / "log").read_text())
            time.sleep(0.02)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop the server: SIGINT is its fast shutdown, SIGKILL a crash with all its processes."""
        process = self._process
        if process is None:
            return
        if how == signal.SIGKILL:
            self._kill_all(process.pid)
        else:
            process.send_signal(how)
        process.wait(60)
        self._process = None

    def _kill_all(self, postmaster: int) -> None:
        children = [int(pid) for pid in Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()]
        for pid in (postmaster, *children):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for pid in children:  # the next server asks that they are gone
            while Path(f"/proc/{pid}").exists():
                os.sched_yield()

    def url(self, database: str, **query: str) -> str:
        port = {"port": self._settings["port"]} if "port" in self._settings else {}
        rest = "".join(f"&{name}={quote(value)}" for name, value in {**port, **query}.items())
        return f"postgresql://segue@/{database}?host={quote(str(self.folder))}{rest}"

    @property
    def socket(self) -> Path:
        return self.folder / ".s.PGSQL.5432"

    def run(self, program: str, *arguments: str | Path) -> None:
        command = [str(self._programs / program), *map(str, arguments)]
        subprocess.run(command, check=True, capture_output=True, cwd=self.folder, **_as_user())


def _as_user() -> dict[str, Any]:
    user = _user()
    return {} if user is None else {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []}


def make_folder() -> Path:
    """Make a folder that the server's user may use; its name is short, as that of a socket has to be."""
    folder = Path(tempfile.mkdtemp(prefix="segue-pg-"))
    user = _user()
    if user is not None:
        shutil.chown(folder, user)
    return folder


@contextlib.contextmanager
def server_folder() -> Iterator[Path]:
    """A folder for a server, until the end of the block."""
    folder = make_folder()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def shared_server(meeting: Path) -> Iterator[PostgresServer]:
    """The server of all test processes that meet in a folder: the first starts it, and the last stops it."""
    with _locked(meeting) as state:
        if state.exists():
            folder, users = _read(state)
        else:
            folder, users = make_folder(), 0
            PostgresServer(folder).start_detached()
        state.write_text(f"{folder}\n{users + 1}")
    server = PostgresServer(folder)
    try:
        yield server
    finally:
        with _locked(meeting) as state:
            _, users = _read(state)
            state.write_text(f"{folder}\n{users - 1}")
            if users == 1:
                state.unlink()
                server.run("pg_ctl", "-D", server.data, "-m", "immediate", "-w", "stop")
                shutil.rmtree(folder, ignore_errors=True)


def _read(state: Path) -> tuple[Path, int]:
    folder, users = state.read_text().split("\n")
    return Path(folder), int(users)


@contextlib.contextmanager
def _locked(meeting: Path) -> Iterator[Path]:
    with (meeting / "postgres.lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield meeting / "postgres.state"
