"""Gateways to inject faults into: in this process on a real socket, or the command as a process that can be killed."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from segue.config import Config, KeyConfig, RouteConfig
from segue.gateway.app import Gateway
from segue.stores.interface import Store
from segue.upstreams.interface import Upstream
from segue.upstreams.router import ModelRule, Router
from segue.upstreams.scripted import ScriptedUpstream

READY = "segue: listening on "
ROOT = Path(__file__).parents[2]

#: Offers the scripted model alone: to load the local one takes as long as everything else that a gateway starts with.
SCRIPTED = {f"SEGUE_UPSTREAM_0_{name}": "scripted" for name in ("NAME", "DIALECT", "MODELS")}

#: How long anything may take that takes milliseconds. Only a failing test waits that long.
PATIENCE_S = 20.0

#: How many looks in a row must show the same figure.
_SETTLED = 20


class Local:
    """A listening gateway of this process."""

    def __init__(self, gateway: Gateway, url: str) -> None:
        self.gateway = gateway
        self.url = url
        self._tasks = asyncio.all_tasks()
        self._size_bytes = gateway.services.cache.size_bytes

    def received_bytes(self) -> float:
        """Return how much of what its WebSocket clients sent has reached their sessions."""
        labels = {"transport": "websocket"}
        return self.gateway.services.metrics.registry.get_sample_value("segue_received_bytes_total", labels) or 0.0

    async def rest(self) -> None:
        """Wait until nothing runs and nothing more is held than at first; all clients must be gone."""
        await until(lambda: not self.gateway.services.drain.connections)
        await until(lambda: asyncio.all_tasks() <= self._tasks)
        assert self.gateway.services.cache.size_bytes == self._size_bytes
        assert self.gateway.services.memory.size_bytes == 0


@asynccontextmanager
async def listening(
    upstream: Upstream | None = None,
    *,
    store: Store | str = "memory:",
    clock: Callable[[], float] = time.time,
    keys: Sequence[KeyConfig] = (),
    routes: Sequence[RouteConfig] = (),
    **server: object,
) -> AsyncIterator[Local]:
    """Run a gateway in this process; `upstream` answers to every model, `server` are settings of `[server]`."""
    url = store if isinstance(store, str) else "memory:"
    config = msgspec.structs.replace(
        msgspec.convert({"server": {"port": 0, "store": url, **server}}, Config), key=list(keys), route=list(routes)
    )
    router = Router([ModelRule(upstream or ScriptedUpstream(), ("*",))])
    if isinstance(store, str):
        gateway = await Gateway.open(config, router, clock)
    else:
        gateway = Gateway(config, router, store, clock)
    try:
        yield Local(gateway, await gateway.listen())
    finally:
        await gateway.aclose()


class Process:
    """`segue serve` in a process of its own, with `folder` as working directory, home and place of its log."""

    def __init__(self, process: asyncio.subprocess.Process, url: str, log: Path) -> None:
        self.url = url
        self.pid = process.pid
        self._process = process
        self._log = log

    def kill(self) -> None:
        """End it as a crash of the machine's memory would: at once, without a word."""
        if self._process.returncode is None:
            self._process.kill()

    def terminate(self) -> None:
        """Ask it to leave."""
        self._process.send_signal(signal.SIGTERM)

    def release(self) -> None:
        """Let the turns of the gated model go on (see `gated_command`)."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")

    async def left(self, within_s: float) -> bool:
        """Tell whether it ends within so many seconds."""
        await asyncio.wait([asyncio.ensure_future(self._process.wait())], timeout=within_s)
        return self._process.returncode is not None

    async def ended(self) -> tuple[int, str]:
        """Wait for its end; return its status and what it printed after the ready line."""
        async with asyncio.timeout(PATIENCE_S):
            rest, _ = await self._process.communicate()
        assert self._process.returncode is not None
        return self._process.returncode, rest.decode()

    def log(self) -> str:
        """Return what it has logged so far."""
        return self._log.read_text("utf-8")


@asynccontextmanager
async def serving(folder: Path, *arguments: str, gated: bool = False, port: int = 0) -> AsyncIterator[Process]:
    """Start the command and wait until it is ready; at the end it is killed if it still runs."""
    log = folder / "gateway.log"
    program = [sys.executable, "-m", "tests.faults.gated_command" if gated else "segue"]
    process = await _start([*program, "serve", "--port", str(port), *arguments], folder, log)
    try:
        assert process.stdout is not None
        async with asyncio.timeout(PATIENCE_S):
            line = (await process.stdout.readline()).decode()
        assert line.startswith(READY), log.read_text("utf-8")
        yield Process(process, line.removeprefix(READY).strip(), log)
    except Exception as error:
        error.add_note(log.read_text("utf-8"))
        raise
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def refused(folder: Path, *arguments: str, port: str = "0") -> tuple[int, str, str]:
    """Run a command that cannot start to its end; return its status, what it printed and what it logged."""
    log = folder / "refused.log"
    process = await _start([sys.executable, "-m", "segue", "serve", "--port", port, *arguments], folder, log)
    async with asyncio.timeout(PATIENCE_S):
        printed, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, printed.decode(), log.read_text("utf-8")


async def _start(command: Sequence[str], folder: Path, log: Path) -> asyncio.subprocess.Process:
    """Start a process whose every file is in `folder`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SEGUE_")}
    places = {"HOME": str(folder), "TMPDIR": str(folder), "PYTHONPATH": str(ROOT)}
    models = {} if "--config" in command else SCRIPTED
    with log.open("ab") as stderr:
        return await asyncio.create_subprocess_exec(
            *command,
            cwd=folder,
            env={**kept, **places, **models},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=stderr,
        )


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that has no event of its own to be true."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - for what another process or a kernel buffer does, there is no event
            await asyncio.sleep(0.005)


async def settled(measure: Callable[[], float]) -> None:
    """Wait until a figure that grows has stopped growing: what fills a kernel's buffer tells nobody when it is full."""
    async with asyncio.timeout(PATIENCE_S):
        last, same = measure(), 0
        while same < _SETTLED:
            await asyncio.sleep(0.005)
            now = measure()
            last, same = now, same + 1 if now == last and now else 0
