"""Runs one peer in a process of its own, in a folder that is thrown away, and ends it and its children.

A peer gets our environment without keys, with its home in the folder. What it prints goes into a file there; if it does
not become ready, the last line of that says why. Not here: which peers there are (`catalogue`).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import msgspec

from segue.bench.meters.process_tree import TreeUsage, usage_of
from segue.bench.peers.catalogue import PeerPlace
from segue.bench.peers.installed import InstalledPeer
from segue.client.errors import cut
from segue.config import command_environment

_HOST = "127.0.0.1"
_LOG = "output.log"
_ASK_AGAIN_S = 0.05
_STOP_S = 10.0
_TAIL_BYTES = 4096
_OK = 200


class PeerError(RuntimeError):
    """The peer does not run; the message is one line, for the user."""


class RunningPeer(msgspec.Struct, frozen=True):
    """A peer that answers."""

    base_url: str
    process: int
    folder: Path

    def usage(self, *, with_memory: bool = False) -> TreeUsage:
        """Return what it and its children have used so far."""
        return usage_of(self.process, with_memory=with_memory)

    def disk_bytes(self) -> int:
        """Return what it keeps in its folder; what it printed is not counted."""
        files = (file for file in self.folder.rglob("*") if file.is_file() and file.name != _LOG)
        return sum(file.stat().st_size for file in files)


@asynccontextmanager
async def running_peer(
    installed: InstalledPeer, folder: Path, provider: str, *, ready_s: float
) -> AsyncIterator[RunningPeer]:
    """Run a peer around a block; `provider` is the URL of the scripted provider."""
    peer, (port, spare_port) = installed.peer, _free_ports()
    place = PeerPlace(port=port, spare_port=spare_port, provider=provider, folder=str(folder))
    for name, text in peer.files:
        (folder / name).write_text(place.fill(text), encoding="utf-8")
    own = {name: place.fill(value) for name, value in peer.environment}
    with (folder / _LOG).open("wb") as log:
        try:
            process = await asyncio.create_subprocess_exec(
                str(installed.program),
                *map(place.fill, peer.arguments),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=folder,
                env={**command_environment(), "HOME": str(folder), "TMPDIR": str(folder), **own},
                start_new_session=True,
            )
        except OSError as error:
            raise PeerError(f"its program cannot be started: {error.strerror}") from error
        try:
            url = f"http://{_HOST}:{port}"
            await _become_ready(process, f"{url}{peer.ready_path}", folder, ready_s)
            yield RunningPeer(f"{url}/v1", process.pid, folder)
        finally:
            await _stop(process)


async def _become_ready(process: asyncio.subprocess.Process, url: str, folder: Path, ready_s: float) -> None:
    until = time.monotonic() + ready_s
    timeout = aiohttp.ClientTimeout(total=2)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        while time.monotonic() < until:
            if process.returncode is not None:
                raise PeerError(f"it ended with status {process.returncode}: {_last_words(folder)}")
            try:
                async with session.get(url, allow_redirects=False) as response:
                    if response.status == _OK:
                        return
            except (OSError, aiohttp.ClientError, TimeoutError):
                pass  # it does not listen yet
            await asyncio.sleep(_ASK_AGAIN_S)
    raise PeerError(f"it was not ready after {ready_s:.0f} s: {_last_words(folder)}")


def _last_words(folder: Path) -> str:
    with (folder / _LOG).open("rb") as log:
        log.seek(max(0, log.seek(0, os.SEEK_END) - _TAIL_BYTES))
        lines = [line.strip() for line in log.read().decode("utf-8", "replace").splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower()]
    return cut(next(reversed(errors or lines), "it said nothing"))


async def _stop(process: asyncio.subprocess.Process) -> None:
    """End the process and its children, which are in a session of their own."""
    _signal(process, signal.SIGTERM)
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(process.wait(), _STOP_S)
    _signal(process, signal.SIGKILL)  # what is left of them
    await process.wait()


def _signal(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):  # they have ended
        os.killpg(process.pid, number)


def _free_ports() -> tuple[int, int]:
    """Return two ports that were free just now: most peers cannot choose one themselves."""
    with socket.socket() as one, socket.socket() as other:
        one.bind((_HOST, 0))
        other.bind((_HOST, 0))
        return one.getsockname()[1], other.getsockname()[1]
