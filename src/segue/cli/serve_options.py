"""What `segue serve` was asked for, as a value that can be handed to a worker. Not here: carrying it out (`serve`)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit, urlunsplit

import msgspec

from segue.config import Config, ConfigError, ListenerConfig, load
from segue.http.origins import authority_of

_LAST_PORT = 65535


class ServeOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The options of the command; what is None is in the file, or has its default."""

    config: str | None = None
    log: str = "info"
    host: str | None = None
    port: int | None = None
    store: str | None = None
    workers: int | Literal["auto"] | None = None
    slot: int | None = None
    """Of a worker: its place among the others, from 0 on."""

    def read(self) -> Config:
        """Read the configuration. Raises `ConfigError`."""
        file = None if self.config is None else Path(self.config)
        config = load(file, host=self.host, port=self.port, store=self.store, workers=self.workers)
        return config if self.slot is None else of_worker(config, self.slot)


def of_worker(config: Config, slot: int) -> Config:
    """Return the configuration of the worker of a slot: where a listener is `per_worker`, it has a port of its own.

    Raises:
        ConfigError: no port is left for it.
    """
    own = {listener.port for listener in config.listener if listener.per_worker and listener.port}
    listeners = [_own(listener, slot) if listener.port in own else listener for listener in config.listener]
    tunnel = config.tunnel
    port = urlsplit(tunnel.address).port
    if port in own:
        tunnel = msgspec.structs.replace(tunnel, address=_with_port(tunnel.address, port + slot))
    return msgspec.structs.replace(config, listener=listeners, tunnel=tunnel)


def _own(listener: ListenerConfig, slot: int) -> ListenerConfig:
    if listener.port + slot > _LAST_PORT:
        raise ConfigError(f"[[listener]] port: {listener.port} leaves no port for worker {slot + 1} (per_worker)")
    return msgspec.structs.replace(listener, port=listener.port + slot)


def _with_port(url: str, port: int) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=authority_of(parts.hostname or "", port)))


class WorkerSpec(msgspec.Struct, frozen=True):
    """How to run a worker: its number, the command's options, its listening sockets for each address.

    `heartbeat` is a pipe into which it writes while its event loop turns.
    """

    number: int
    options: ServeOptions
    sockets: Sequence[Sequence[int]]
    heartbeat: int
