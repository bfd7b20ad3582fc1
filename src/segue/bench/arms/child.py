"""Runs a server under test as a child process, and asks it for its CPU time and memory. Not here: the servers that run
in it (`server`, `ends`).
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import msgspec

from segue.bench.arms.server import ProcessUsage, Ready

_STOP_S = 10.0


class ChildError(RuntimeError):
    """The child process ended too early; its own message is on stderr."""


class Child:
    """A running child process: where its server listens, and what it has used."""

    def __init__(self, process: asyncio.subprocess.Process, ready: Ready) -> None:
        self._process = process
        self.host = ready.host
        self.port = ready.port
        self.loop = ready.loop

    async def usage(self) -> ProcessUsage:
        """Ask what the process has used since it began."""
        return await self._ask(b"usage\n")

    async def settled(self) -> ProcessUsage:
        """Ask the same after the process has collected its garbage; use this to compare memory."""
        return await self._ask(b"settle\n")

    async def _ask(self, command: bytes) -> ProcessUsage:
        assert self._process.stdin is not None, "the child was started with a pipe"
        self._process.stdin.write(command)
        return msgspec.json.decode(await _read_line(self._process), type=ProcessUsage)


@asynccontextmanager
async def launched(
    spec: msgspec.Struct, module: str = "segue.bench.arms.server", *, environ: Mapping[str, str] | None = None
) -> AsyncIterator[Child]:
    """Run a module in a child process around a block; at the end the child drains and closes.

    It is in a session of its own: the keys of the terminal are for the benchmark, which ends it by closing its input.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",  # no module of the working folder, which others may have written
        "-m",
        module,
        msgspec.json.encode(spec).decode(),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env=environ,
        start_new_session=True,
    )
    try:
        yield Child(process, msgspec.json.decode(await _read_line(process), type=Ready))
    finally:
        await _stop(process)


async def _read_line(process: asyncio.subprocess.Process) -> bytes:
    assert process.stdout is not None, "the child was started with a pipe"
    line = await process.stdout.readline()
    if not line:
        raise ChildError(f"the server under test ended with status {await process.wait()}")
    return line


async def _stop(process: asyncio.subprocess.Process) -> None:
    assert process.stdin is not None, "the child was started with a pipe"
    process.stdin.close()
    try:
        await asyncio.wait_for(process.wait(), _STOP_S)
    except TimeoutError:
        process.kill()
        await process.wait()
