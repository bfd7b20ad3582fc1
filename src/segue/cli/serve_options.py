"""What `segue serve` was asked for, as a value that can be handed to a worker. Not here: carrying it out (`serve`)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec

from segue.config import Config, load


class ServeOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The options of the command; what is None is in the file, or has its default."""

    config: str | None = None
    log: str = "info"
    host: str | None = None
    port: int | None = None
    store: str | None = None
    workers: int | Literal["auto"] | None = None

    def read(self) -> Config:
        """Read the configuration. Raises `ConfigError`."""
        file = None if self.config is None else Path(self.config)
        return load(file, host=self.host, port=self.port, store=self.store, workers=self.workers)


class WorkerSpec(msgspec.Struct, frozen=True):
    """How to run a worker: its number, the command's options, and its listening sockets for each address."""

    number: int
    options: ServeOptions
    sockets: Sequence[Sequence[int]]
