"""The gateway of one user on a machine that is reached by ssh: it listens on a Unix socket, and ends when it is idle.

`segue ssh-relay` starts it, one for each version of segue, and it outlives the ssh connection that it was started by.
Not here: the relay (`segue.cli.ssh_relay`), and the socket (`segue.gateway.user_socket`).
"""

from __future__ import annotations

import asyncio
import logging
import os
import select
import signal
import socket
import sys
from contextlib import suppress
from logging.handlers import RotatingFileHandler
from pathlib import Path

from segue.cli.loop import run
from segue.cli.private_gateway import PrivateGateway, private_gateway
from segue.cli.start_errors import start_error
from segue.config import choose_file, load, ssh_log_file
from segue.engine import Unavailable
from segue.gateway.app import Gateway
from segue.gateway.idle_timer import IdleTimer
from segue.gateway.runtime_directory import SocketFiles, locked, socket_files
from segue.gateway.user_socket import LISTENING, UserSocketError, bind_socket
from segue.stores.interface import StoreError

_log = logging.getLogger("segue.gateway")

_LOG_BYTES = 1024 * 1024
#: Turns of the loop in which a connection that was accepted gets to its protocol (see `segue.listening`).
_ACCEPT_TURNS = 3


def run_ssh_gateway() -> int:
    """Run the gateway until a signal, or until it is idle for too long; return the exit status.

    Whoever starts it holds the lock until it prints `LISTENING`.
    """
    os.umask(0o077)
    chosen = choose_file(None)
    config = load(chosen.path, relative_to=chosen.relative_to)
    _log_to_file(ssh_log_file())
    try:
        files = socket_files(config.ssh.directory)
        bound = bind_socket(files.socket)
        gateway = private_gateway(config, chosen.path, keys=(), named=False)
        return run(_run(gateway, bound, files))
    except (UserSocketError, StoreError, Unavailable, OSError, ValueError) as error:
        raise start_error(error, "the gateway cannot start") from error


def _log_to_file(file: Path | None) -> None:
    """Log to this file alone; it does not grow without end."""
    if file is None:
        logging.disable()
        return
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handler = RotatingFileHandler(file, maxBytes=_LOG_BYTES, backupCount=1, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(process)d %(levelname)s %(name)s %(message)s"))
    logging.basicConfig(level="INFO", handlers=[handler], force=True)


async def _run(private: PrivateGateway, bound: socket.socket, files: SocketFiles) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    gateway = await Gateway.open(private.config, private.router)
    try:
        await gateway.listen_for_user(bound)
        own = files.socket.stat().st_ino
        print(LISTENING, flush=True)
        _close_output()
        idle = loop.create_task(_wait_until_idle(gateway, bound, files, own=own))
        stopped = loop.create_task(stop.wait())
        await asyncio.wait((idle, stopped), return_when=asyncio.FIRST_COMPLETED)
        _log.info("action=end idle=%s", idle.done())
        for task in (idle, stopped):
            task.cancel()
        await asyncio.gather(idle, stopped, return_exceptions=True)
        await gateway.drain()
    finally:
        await gateway.aclose()
    return 0


async def _wait_until_idle(gateway: Gateway, bound: socket.socket, files: SocketFiles, *, own: int) -> None:
    """Return when the gateway has been idle for too long. Then its socket is gone, so that nobody comes any more.

    `own`: the number of the socket's file, which may have been removed, and another gateway's put in its place.
    """
    timer, loop = IdleTimer(gateway.config.ssh.idle_s), asyncio.get_running_loop()
    while True:
        await asyncio.sleep(timer.interval_s)
        if not timer.is_over(loop.time(), idle=gateway.idle):
            continue
        with locked(files.lock, wait=False) as ours:  # a relay connects only while it has the lock
            if ours and await _is_deserted(gateway, bound):
                with suppress(FileNotFoundError):
                    if files.socket.stat().st_ino == own:
                        files.socket.unlink()
                return


async def _is_deserted(gateway: Gateway, bound: socket.socket) -> bool:
    """Tell whether the gateway is idle, with what has just come in counted."""
    waiting, _, _ = select.select([bound], [], [], 0)
    for _ in range(_ACCEPT_TURNS):
        await asyncio.sleep(0)
    return gateway.idle and not waiting


def _close_output() -> None:
    """Let go of what the relay reads, which ends with it."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for standard in (sys.stdout.fileno(), sys.stderr.fileno()):
        os.dup2(nothing, standard)
    os.close(nothing)
