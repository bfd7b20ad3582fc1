"""`segue serve`: opens a gateway, says where it listens, reads its file again on SIGHUP, and drains it on a signal."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import msgspec

from segue.cli.file_watch import FileWatch
from segue.cli.loop import run
from segue.cli.serve_options import ServeOptions
from segue.cli.start_errors import start_error
from segue.cli.start_report import risks, start_lines
from segue.cli.workers import count_workers, supervise
from segue.config import FILE_NAME, Config, ConfigError
from segue.engine import Unavailable
from segue.gateway.app import Gateway
from segue.gateway.bootstrap import build_routes
from segue.gateway.descriptors import raise_descriptor_limit
from segue.gateway.memory_allocator import return_free_memory, return_large_blocks
from segue.gateway.redacted_traceback import redacted_traceback
from segue.stores.interface import StoreError
from segue.stores.live.interface import LiveUnavailable

_log = logging.getLogger("segue.gateway")

DEFAULT_FILE = Path(FILE_NAME)
#: How soon a thread that computes lets the event loop go on. The loop waits so long after each system call, and a turn
#: has dozens of them: with the 5 ms of Python everybody would feel it.
SWITCH_S = 0.00005
#: After how many collections of younger objects all are looked through for cycles, which takes a millisecond for each
#: thousand. Python's own ten would be every few seconds for a busy gateway, and hardly anything of ours is in a cycle.
YOUNG_COLLECTIONS = 50
#: What requests under way may have in memory if none of them is a large one.
IDLE_BYTES = 4 * 1024 * 1024
#: How often a watched configuration file is looked at.
WATCH_S = 1.0
#: How long a worker that was replaced serves as before: a client that it has accepted sends its request by then.
RETIRE_S = 1.0
#: So many heartbeats a worker has in the time after which its silence means that it stands still.
BEATS = 10


def find_config(path: Path | None) -> Path | None:
    """Return the configuration file to read: the one named, else segue.toml of this folder if there is one."""
    if path is None and DEFAULT_FILE.exists():
        return DEFAULT_FILE
    return path


class Inherited(msgspec.Struct, frozen=True):
    """What a worker has from its supervisor: the sockets of each address, and a pipe whose end tells it to retire.

    `heartbeat` is a pipe back: a byte in it shows that the event loop turns. `slot` is its place among the workers.
    """

    sockets: Sequence[Sequence[socket.socket]]
    pipe: int
    heartbeat: int
    slot: int


def run_serve(options: ServeOptions) -> int:
    """Run the gateway, or several, until a signal; returns the exit status."""
    set_up_log(options.log, "%(asctime)s %(levelname)s %(name)s %(message)s")
    file = find_config(None if options.config is None else Path(options.config))
    options = msgspec.structs.replace(options, config=None if file is None else str(file))
    workers = count_workers(options.read())
    return run_gateway(options) if workers == 1 else run_supervisor(options, workers)


def run_gateway(options: ServeOptions, inherited: Inherited | None = None) -> int:
    """Run one gateway until a signal; returns the exit status."""
    watch = None if options.config is None else FileWatch(Path(options.config))  # before it is read
    config = options.read()
    watched = watch if config.server.reload_on_change else None
    try:
        work = run_until_signal(config, options.read, watched=watched, inherited=inherited)
        silence_s = config.server.worker_silence_s
        return run(work if inherited is None or not silence_s else _with_heartbeat(work, inherited, silence_s / BEATS))
    except (StoreError, LiveUnavailable, Unavailable, OSError, ValueError) as error:
        raise start_error(error) from error


def run_supervisor(options: ServeOptions, workers: int) -> int:
    """Run so many gateways, each in a process of its own, until a signal; returns the exit status."""
    raise_descriptor_limit()
    try:
        return run(supervise(options, workers, terminal_is_gone=terminal_watch()))
    except OSError as error:
        raise start_error(error) from error


def set_up_log(level: str, form: str) -> None:
    """Let the log go to stderr."""
    logging.basicConfig(level=level.upper(), stream=sys.stderr, format=form, force=True)


async def run_until_signal(
    config: Config,
    read: Callable[[], Config],
    *,
    watched: FileWatch | None = None,
    inherited: Inherited | None = None,
) -> int:
    """Run a gateway until a signal, then drain it; a second signal ends the drain.

    At SIGHUP, and when the watched file has changed, `read` is asked for the configuration anew. A SIGHUP because the
    terminal is gone is a signal like the others. A worker whose pipe has ended closes its ports before it drains.
    """
    stop = asyncio.Event()
    signalled = asyncio.Event()  # a worker may have been told to retire before: then this lets it drain on
    hurry = asyncio.Event()
    retired = asyncio.Event()

    def on_signal() -> None:
        (hurry if signalled.is_set() else signalled).set()
        stop.set()

    asked, terminal_is_gone = asyncio.Event(), terminal_watch()

    def on_hangup() -> None:
        if terminal_is_gone():
            on_signal()
        else:
            asked.set()

    def on_pipe(pipe: int) -> None:
        if not os.read(pipe, 1):
            loop.remove_reader(pipe)
            retired.set()
            stop.set()

    loop = asyncio.get_running_loop()
    if inherited is not None:
        loop.add_reader(inherited.pipe, on_pipe, inherited.pipe)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    loop.add_signal_handler(signal.SIGHUP, on_hangup)
    before, now = raise_descriptor_limit()
    if now != before:
        _log.info("action=start descriptors=%d before=%d", now, before)
    sys.setswitchinterval(SWITCH_S)
    return_large_blocks()
    gateway = await Gateway.open(config)
    try:
        await _listen(gateway, inherited)
        async with _tended(gateway, read, asked=asked, watched=watched):
            await stop.wait()
        if retired.is_set():
            await _retire(gateway, hurry)
        draining = asyncio.create_task(gateway.drain(at_once=retired.is_set()))
        hurried = asyncio.create_task(hurry.wait())
        await asyncio.wait((draining, hurried), return_when=asyncio.FIRST_COMPLETED)
        await _cancel((draining, hurried))
    finally:
        await gateway.aclose()
    return 0


async def _with_heartbeat(work: Coroutine[object, object, int], inherited: Inherited, period_s: float) -> int:
    beating = asyncio.create_task(_beat(inherited.heartbeat, period_s))
    try:
        return await work
    finally:
        await _cancel((beating,))


async def _beat(heartbeat: int, period_s: float) -> None:
    """Show the supervisor that the event loop turns. It reads soon: a full pipe, or none, is no reason to wait."""
    os.set_blocking(heartbeat, False)
    while True:
        with suppress(OSError):
            os.write(heartbeat, b".")
        await asyncio.sleep(period_s)


async def _retire(gateway: Gateway, hurry: asyncio.Event) -> None:
    """Close the ports, at which another worker accepts what comes; who has just connected is served before a drain."""
    await gateway.stop_listening()
    _log.info("action=retire")
    with suppress(TimeoutError):
        await asyncio.wait_for(hurry.wait(), RETIRE_S)


async def _listen(gateway: Gateway, inherited: Inherited | None) -> None:
    """Open the ports, or take those of the supervisor, and say that the gateway is ready."""
    if inherited is not None:
        gateway.services.metrics.worker = inherited.slot + 1
    url = await gateway.listen(None if inherited is None else inherited.sockets)
    _tell_start(gateway.config, gateway)
    gc.collect()
    gc.set_threshold(*gc.get_threshold()[:2], YOUNG_COLLECTIONS)
    gc.freeze()  # what is there from the start stays: to look through it again and again would hold up turns
    print(f"segue: listening on {url}", flush=True)


def _tell_start(config: Config, gateway: Gateway) -> None:
    for line in start_lines(config, gateway.services.router.models(), build_routes(config)):
        _log.info("%s", line)
    for risk in risks(config):
        _log.warning("action=start risk=%r", risk)


@asynccontextmanager
async def _tended(
    gateway: Gateway, read: Callable[[], Config], *, asked: asyncio.Event, watched: FileWatch | None
) -> AsyncIterator[None]:
    """Around a block, reload the gateway whenever that is asked for, or the watched file has changed.

    Between large requests, what is free of their memory goes back to the system.
    """
    requests = gateway.services.memory
    tasks = [
        asyncio.create_task(_reload_when(asked, gateway, read)),
        asyncio.create_task(return_free_memory(lambda: requests.size_bytes < IDLE_BYTES)),
    ]
    if watched is not None:
        tasks.append(asyncio.create_task(_ask_when_changed(watched, asked)))
    try:
        yield
    finally:
        await _cancel(tasks)


async def _cancel(tasks: Sequence[asyncio.Task[object]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def terminal_watch() -> Callable[[], bool]:
    """Return what tells whether the terminal that there is now is gone."""
    before = _has_terminal()
    return lambda: before and not _has_terminal()


def _has_terminal() -> bool:
    """Tell whether stdin is a terminal that is still there."""
    try:
        return os.isatty(sys.stdin.fileno())
    except (AttributeError, OSError, ValueError):  # there is no stdin
        return False


async def _reload_when(asked: asyncio.Event, gateway: Gateway, read: Callable[[], Config]) -> None:
    while True:
        await asked.wait()
        asked.clear()
        try:
            await gateway.reload(read())
        except (ConfigError, Unavailable, OSError, ValueError) as error:
            _log.error("action=reload nothing has changed, because %s", error)
        except Exception as error:  # noqa: BLE001 - a bug of ours must not end the reloading
            _log.error("action=reload error=%s", redacted_traceback(error))


async def _ask_when_changed(watch: FileWatch, asked: asyncio.Event) -> None:
    while True:
        await asyncio.sleep(WATCH_S)
        if watch.has_changed():
            asked.set()
