"""Processes of gateways and sidecars: each at a port that it keeps when it is killed and started again.

Not here: what they are configured with (`nodes`), how they are forked (`command_forks`), and when they are killed
(`disturbances`).
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Literal

import msgspec

from tests.faults.cluster.command_forks import CommandStart
from tests.faults.gateways import PATIENCE_S, ROOT, until

#: What commands print when they are ready.
_READY = ("segue: listening on ", "segue: sidecar listening on ")
#: How often it is looked whether a process that is not ready yet is still there.
_LOOK_S = 0.5


class CommandForks:
    """The process that starts commands (`command_forks`)."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._starting = asyncio.Lock()

    async def start(self, command: CommandStart) -> int:
        """Start a command, and wait until it is ready; return its process id.

        A gateway that could not start, since Redis did not answer in time, is started again, as supervisors do.
        """
        assert self._process.stdin is not None
        async with self._starting:
            while True:
                self._process.stdin.write(msgspec.json.encode(command) + b"\n")
                pid = int((await self.line()).removeprefix("forked "))
                while Path(f"/proc/{pid}").exists():  # noqa: ASYNC240 - it is no file of a disk
                    with suppress(TimeoutError):
                        line = await self.line(_LOOK_S)
                        assert line.startswith(_READY), f"{line}: see {command.log}"
                        return pid

    async def line(self, patience_s: float = 2 * PATIENCE_S) -> str:
        """Return the next line that it or a command prints."""
        assert self._process.stdout is not None
        async with asyncio.timeout(patience_s):
            return (await self._process.stdout.readline()).decode().strip()


class ReservedPort:
    """A free port, which others are not given while the process that listens there is away."""

    def __init__(self) -> None:
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind(("127.0.0.1", 0))
        self.number = int(self._socket.getsockname()[1])

    def release(self) -> None:
        """Give it back."""
        self._socket.close()


class ClusterProcess:
    """One gateway or sidecar at its port, in whichever process it is."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.state: Literal["up", "down", "paused"] = "down"
        self.faults = 0
        """How often it went away, or came back, or stood still, or went on."""
        self.stops = 0
        """How often it stood still, or went on."""
        self._pid = 0
        self._reserved = ReservedPort()
        self.port = self._reserved.number

    @property
    def url(self) -> str:
        """Its own address."""
        return f"http://127.0.0.1:{self.port}"

    async def start(self, forks: CommandForks, command: CommandStart) -> None:
        """Start it, and wait until it is ready."""
        self._pid = await forks.start(command)
        self.state = "up"
        self.faults += 1

    async def kill(self) -> None:
        """End it at once, without a word."""
        self.state = "down"
        self.faults += 1
        if self._pid:
            with suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
            await until(lambda: not Path(f"/proc/{self._pid}").exists())
            self.faults += 1  # until now its connections were open, and it read nothing of them

    def terminate(self) -> None:
        """Ask it to leave: it drains, and gives its lease back."""
        self.state = "down"
        self.faults += 1
        os.kill(self._pid, signal.SIGTERM)

    def pause(self) -> None:
        """Let it stand still. It keeps its connections, and its kernel goes on to accept new ones."""
        self.state = "paused"
        self.faults += 1
        self.stops += 1
        os.kill(self._pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on as if nothing had been."""
        os.kill(self._pid, signal.SIGCONT)
        self.state = "up"
        self.faults += 1
        self.stops += 1

    def release(self) -> None:
        """Give the port back."""
        self._reserved.release()


@asynccontextmanager
async def forking(folder: Path) -> AsyncIterator[CommandForks]:
    """Run the process that starts commands around a block; whatever it has started ends with it."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SEGUE_")}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.faults.cluster.command_forks"),
        env={**kept, "HOME": str(folder), "TMPDIR": str(folder), "PYTHONPATH": str(ROOT)},
        cwd=folder,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        yield CommandForks(process)
    finally:
        if process.returncode is None and process.stdin is not None:
            process.stdin.close()
        await process.communicate()
