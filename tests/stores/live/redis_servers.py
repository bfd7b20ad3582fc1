"""A real Redis for tests: a server of their own on a Unix socket, which they may stop, kill, pause and empty."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from itertools import count
from pathlib import Path

from redis import Redis as SyncRedis
from redis.asyncio import Redis

PROGRAM = shutil.which("redis-server") or shutil.which("valkey-server")


class RedisServer:
    """One server in a folder of its own; `start` after `kill` begins with nothing."""

    def __init__(self, folder: Path, *options: str, port: int = 0) -> None:
        self._port = str(port)
        self.socket = folder / "s"
        self._folder = folder
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        self._databases = count()

    def url(self, db: int = 0) -> str:
        """The URL of one of its databases."""
        return f"unix://{self.socket}?db={db}"

    @property
    def runs(self) -> bool:
        """Whether it was started, and not killed."""
        return self._process is not None

    def take_database(self) -> int:
        """Return the number of a database that no test has used, and nodes have: nothing in it was lost just now."""
        db = next(self._databases)
        with SyncRedis(unix_socket_path=str(self.socket), db=db) as client:
            client.set("segue:{nodes}:epoch", os.urandom(8), ex=3600)
        return db

    def start(self) -> None:
        """Start it, and wait until it listens."""
        assert PROGRAM is not None, "tests that need it are skipped"
        self.socket.unlink(missing_ok=True)
        options = (
            "--port",
            self._port,
            "--unixsocket",
            str(self.socket),
            "--save",
            "",
            "--databases",
            "999",
            "--dir",
            str(self._folder),
        )
        self._process = subprocess.Popen(
            [PROGRAM, *options, *self._options], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        assert self._process.stdout is not None, "it was asked for"
        for line in self._process.stdout:
            if b"ready to accept connections" in line.lower():
                return
        raise AssertionError("redis-server has ended")

    def kill(self) -> None:
        """Kill it, with all that it holds."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def pause(self) -> None:
        """Stop it in mid-flight: it keeps its connections, and answers nothing."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    async def command(self, *words: str, db: int = 0) -> object:
        """Run one command, as an operator would."""
        async with Redis(unix_socket_path=str(self.socket), db=db, decode_responses=True) as client:
            return await client.execute_command(*words)  # type: ignore[no-untyped-call]  # it has no annotations

    async def lasting_keys(self, db: int) -> list[str]:
        """Return the keys of a database that never expire."""
        async with Redis(unix_socket_path=str(self.socket), db=db, decode_responses=True) as client:
            keys = [str(key) for key in await client.keys()]
            return [key for key in keys if await client.ttl(key) < 0]

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None, "it runs"
        self._process.send_signal(number)


def temporary_server(*options: str) -> RedisServer:
    """Start a server in a new folder with a short name: the path of a Unix socket has at most 107 bytes."""
    server = RedisServer(Path(tempfile.mkdtemp(prefix="sr")), *options)
    server.start()
    return server


def discard(server: RedisServer) -> None:
    """Kill a server and remove its folder."""
    server.kill()
    shutil.rmtree(server.socket.parent, ignore_errors=True)
