"""`segue serve --workers N`: several gateways on the same ports, each in a process of its own, and one supervisor.

The supervisor opens the ports and keeps them open; it serves nothing itself. On Linux each slot has sockets of its own
(`SO_REUSEPORT`), over which the kernel spreads connections evenly; elsewhere all slots share one. A worker has a pipe
from the supervisor: when that is closed, because another worker has its slot or the supervisor is gone, the worker
accepts nothing more and ends what runs. It has a pipe to the supervisor too, for its heartbeat.

SIGHUP makes every worker read its configuration again, and replaces the workers one after the other if another version
of segue is installed by then. SIGUSR2 replaces them in any case. Not here: what is done when (`worker_supervision`),
and what a worker is (`worker`).
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
import time
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager, suppress

import msgspec

import segue
from segue.cli.serve_options import ServeOptions, WorkerSpec, of_worker
from segue.cli.worker_supervision import (
    SILENT_TICKS,
    Announce,
    Drain,
    Effect,
    End,
    Kill,
    Retire,
    Spawn,
    Tell,
    WorkerProcess,
    WorkerSupervision,
)
from segue.config import Config, ListenerConfig, ServerConfig
from segue.http.origins import authority_of
from segue.listening import bind

_log = logging.getLogger("segue.workers")

READY = b"segue: listening on "
#: Where the kernel spreads connections evenly over the sockets of one port.
_BALANCES = sys.platform == "linux"
_VERSION = "import segue; print(segue.__version__)"

#: The sockets of one worker: those of each address of the configuration.
Sockets = list[list[socket.socket]]


def count_workers(config: Config) -> int:
    """Return how many workers are configured; `auto` is one for each core that this process may use."""
    workers = config.server.workers
    if workers != "auto":
        return workers
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


async def open_ports(config: Config, workers: int) -> list[Sockets]:
    """Open the ports of the configuration for so many workers. A port that is chosen freely is the same for all.

    Raises:
        ConfigError: a worker has no port of its own.
        OSError: a port cannot be opened.
    """
    ports: list[Sockets] = [[] for _ in range(workers)]
    own = [of_worker(config, slot).listener for slot in range(workers)]
    addresses: list[ServerConfig | ListenerConfig] = [config.server, *config.listener]
    for number, address in enumerate(addresses):
        if isinstance(address, ListenerConfig) and address.per_worker:
            for sockets, listeners in zip(ports, own, strict=True):
                sockets.append(await bind(address.host, listeners[number - 1].port))
            continue
        first = await bind(address.host, address.port, shared=_BALANCES)
        port = first[0].getsockname()[1]
        for slot, sockets in enumerate(ports):
            spread = slot > 0 and _BALANCES
            sockets.append(await bind(address.host, port, shared=True) if spread else first)
    return ports


class Supervisor:
    """Carries out what a `WorkerSupervision` decides."""

    def __init__(self, ports: Sequence[Sockets], options: ServeOptions, scheme: str, *, silence_s: float = 0) -> None:
        self._ports = ports
        self._options = options
        self._scheme = scheme
        self._silence_s = silence_s
        self._supervision = WorkerSupervision(len(ports))
        self._processes: dict[WorkerProcess, Process] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._wake: asyncio.TimerHandle | None = None

    async def run(self) -> int:
        """Run the workers until all of them have ended; returns the exit status."""
        self._carry_out(self._supervision.start(time.monotonic()))
        watching = asyncio.create_task(self._watch())
        try:
            return await self._ended
        finally:
            watching.cancel()
            for process in self._processes.values():
                with suppress(ProcessLookupError):
                    process.kill()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            for one in {one for sockets in self._ports for own in sockets for one in own}:
                one.close()

    @property
    def process_ids(self) -> list[int]:
        """The processes of workers that have not ended."""
        return sorted(process.pid for process in self._processes.values())

    def stop(self) -> None:
        """Let the workers drain; the second time they stop at once."""
        self._carry_out(self._supervision.stop())

    def roll(self) -> None:
        """Replace the workers, one after the other."""
        _log.info("action=roll workers=%d", len(self._ports))
        self._carry_out(self._supervision.roll(time.monotonic()))

    def spawn(self, work: Coroutine[object, object, None]) -> None:
        """Do something beside everything else."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def reload(self) -> None:
        """Let every worker read its configuration again; if another version is installed by now, replace them."""
        installed = await _installed_version()
        if installed is None:
            _log.warning("action=reload installed=unknown: the workers are kept")
        if installed not in (segue.__version__, None):
            _log.info("action=reload version=%s installed=%s", segue.__version__, installed)
            self.roll()
            return
        for worker in self._supervision.ready:
            self._signal(worker, signal.SIGHUP)

    # --- carrying out ------------------------------------------------------------------------------------------------

    def _carry_out(self, effects: Sequence[Effect]) -> None:
        for effect in effects:
            match effect:
                case Spawn(worker):
                    self.spawn(self._run_worker(worker))
                case Retire(worker):
                    self._close_pipe(worker)
                case Drain(worker):
                    self._signal(worker, signal.SIGTERM)
                case Kill(worker):
                    self._signal(worker, signal.SIGKILL)
                case Announce():
                    host, port = self._ports[0][0][0].getsockname()[:2]
                    _log.info("action=start workers=%d", len(self._ports))
                    print(f"{READY.decode()}{self._scheme}://{authority_of(host, port)}", flush=True)
                case Tell(line):
                    _log.warning("action=supervise %s", line)
                case End(status):
                    if not self._ended.done():
                        self._ended.set_result(status)
        self._wake_later()

    def _wake_later(self) -> None:
        if self._wake is not None:
            self._wake.cancel()
            self._wake = None
        at = self._supervision.wake_at
        if at is not None:
            self._wake = asyncio.get_running_loop().call_later(
                max(0.0, at - time.monotonic()), lambda: self._carry_out(self._supervision.wake(time.monotonic()))
            )

    async def _watch(self) -> None:
        """Look at an interval whether a worker stands still."""
        while self._silence_s:
            await asyncio.sleep(self._silence_s / SILENT_TICKS)
            self._carry_out(self._supervision.tick())

    async def _run_worker(self, worker: WorkerProcess) -> None:
        """Run a worker to its end, and tell the supervision when it is ready and when it has ended."""
        sockets = self._ports[worker.slot]
        numbers = [[one.fileno() for one in own] for own in sockets]
        options = msgspec.structs.replace(self._options, slot=worker.slot)
        heard, heartbeat = os.pipe()
        spec = msgspec.json.encode(WorkerSpec(worker.number, options, numbers, heartbeat)).decode()
        try:
            process = self._processes[worker] = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "segue.cli.worker",
                spec,
                stdin=PIPE,
                stdout=PIPE,
                pass_fds=[heartbeat, *(number for own in numbers for number in own)],
                start_new_session=True,  # Ctrl-C in a terminal is for the supervisor, which tells the workers
            )
        finally:
            os.close(heartbeat)
        with self._heartbeat(worker, heard):
            assert process.stdout is not None
            async for line in process.stdout:
                if line.startswith(READY):
                    self._carry_out(self._supervision.on_ready(worker, time.monotonic()))
            status = await process.wait()
        del self._processes[worker]
        self._carry_out(self._supervision.on_exit(worker, status, time.monotonic()))

    @contextmanager
    def _heartbeat(self, worker: WorkerProcess, heard: int) -> Iterator[None]:
        """Listen to the heartbeat of a worker within a block."""
        loop = asyncio.get_running_loop()

        def on_beat() -> None:
            if os.read(heard, 4096):
                self._supervision.on_beat(worker)
            else:
                loop.remove_reader(heard)

        loop.add_reader(heard, on_beat)
        try:
            yield
        finally:
            loop.remove_reader(heard)
            os.close(heard)

    def _close_pipe(self, worker: WorkerProcess) -> None:
        process = self._processes.get(worker)
        if process is not None and process.stdin is not None:
            process.stdin.close()

    def _signal(self, worker: WorkerProcess, number: signal.Signals) -> None:
        process = self._processes.get(worker)
        if process is not None:
            with suppress(ProcessLookupError):
                process.send_signal(number)


async def supervise(options: ServeOptions, workers: int, *, terminal_is_gone: Callable[[], bool]) -> int:
    """Run so many workers until a signal, or until they cannot start; returns the exit status.

    Raises:
        OSError: a port cannot be opened.
    """
    config = options.read()
    scheme = "http" if config.server.tls_cert is None else "https"
    ports, silence_s = await open_ports(config, workers), config.server.worker_silence_s
    supervisor = Supervisor(ports, options, scheme, silence_s=silence_s)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, supervisor.stop)
    loop.add_signal_handler(
        signal.SIGHUP, lambda: supervisor.stop() if terminal_is_gone() else supervisor.spawn(supervisor.reload())
    )
    loop.add_signal_handler(signal.SIGUSR2, supervisor.roll)
    return await supervisor.run()


async def _installed_version() -> str | None:
    """Return the version that a new process would have; None if that cannot be told."""
    try:
        asked = await asyncio.create_subprocess_exec(sys.executable, "-c", _VERSION, stdout=PIPE, stderr=DEVNULL)
        printed, _ = await asked.communicate()
    except OSError:
        return None
    return printed.decode().strip() or None
