"""Gateways of one deployment as a user starts them, `segue serve --workers N`, with the scripted model inside.

Not here: the databases that they share (`database_servers`), and the load (`segue.bench.meters.turn_load`).
"""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from segue.bench.arms.child import ChildError
from segue.bench.meters.process_tree import processes_of

MODEL = "scripted"
_READY = "segue: listening on "
_START_S = 60.0
_STOP_S = 15.0


class GatewayCluster(msgspec.Struct, frozen=True):
    """Workers that listen at one address. `root` is their supervisor, or the only worker itself."""

    host: str
    port: int
    root: int
    count: int

    def workers(self) -> list[int]:
        """Return the processes that serve."""
        tree = processes_of(self.root)
        return tree if self.count == 1 else tree[1:]


@asynccontextmanager
async def gateway_cluster(folder: Path, *, store: str, live: str | None, workers: int) -> AsyncIterator[GatewayCluster]:
    """Run so many workers around a block; the folder is their home, and has to be there."""
    scripted = {f"SEGUE_UPSTREAM_0_{name}": MODEL for name in ("NAME", "DIALECT", "MODELS")}
    shared = {} if live is None else {"SEGUE_SERVER_LIVE": live}
    environ = {"PATH": os.defpath, "HOME": str(folder), "SEGUE_SERVER_STORE": store}
    command = ["-P", "-m", "segue", "serve", "--port", "0", "--workers", str(workers), "--log", "error"]
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *command,
        cwd=folder,
        env={**environ, **scripted, **shared},
        stdout=PIPE,
        stderr=DEVNULL,
        start_new_session=True,
    )
    try:
        parts = urlsplit(await _address(process))
        assert parts.hostname is not None, "a gateway says its host"
        assert parts.port is not None, "a gateway says its port"
        yield GatewayCluster(parts.hostname, parts.port, process.pid, workers)
    finally:
        await _stop(process)


async def _address(process: Process) -> str:
    assert process.stdout is not None, "it was asked for"
    async with asyncio.timeout(_START_S):
        while line := (await process.stdout.readline()).decode():
            if line.startswith(_READY):
                return line.removeprefix(_READY).split()[0]
    raise ChildError(f"the gateway ended with status {await process.wait()}")


async def _stop(process: Process) -> None:
    if process.returncode is None:
        process.terminate()
    try:
        await asyncio.wait_for(process.communicate(), _STOP_S)
    except TimeoutError:
        process.kill()
        await process.communicate()
