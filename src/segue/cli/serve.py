"""`segue serve`: opens a gateway, says where it listens, and drains it on a signal."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from pathlib import Path

from segue.cli.loop import run
from segue.config import FILE_NAME, Config, ConfigError, load
from segue.engine import Unavailable
from segue.gateway.app import Gateway
from segue.stores.interface import StoreError

DEFAULT_FILE = Path(FILE_NAME)


def find_config(path: Path | None) -> Path | None:
    """Return the configuration file to read: the one named, else segue.toml of this folder if there is one."""
    if path is None and DEFAULT_FILE.exists():
        return DEFAULT_FILE
    return path


def run_serve(path: Path | None, *, log: str, host: str | None, port: int | None, store: str | None) -> int:
    """Run the gateway until a signal; returns the exit status."""
    logging.basicConfig(
        level=log.upper(), stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s %(message)s", force=True
    )
    config = load(find_config(path), host=host, port=port, store=store)
    try:
        return run(run_until_signal(config))
    except (StoreError, Unavailable, OSError, ValueError) as error:
        raise ConfigError(f"cannot start: {error}") from error


async def run_until_signal(config: Config) -> int:
    """Run a gateway until a signal, then drain it; a second signal ends the drain."""
    stop = asyncio.Event()
    hurry = asyncio.Event()

    def on_signal() -> None:
        (hurry if stop.is_set() else stop).set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    gateway = await Gateway.open(config)
    try:
        url = await gateway.listen()
        print(f"segue: listening on {url}", flush=True)
        await stop.wait()
        draining = asyncio.create_task(gateway.drain())
        hurried = asyncio.create_task(hurry.wait())
        await asyncio.wait((draining, hurried), return_when=asyncio.FIRST_COMPLETED)
        for task in (draining, hurried):
            task.cancel()
        await asyncio.gather(draining, hurried, return_exceptions=True)
    finally:
        await gateway.aclose()
    return 0
