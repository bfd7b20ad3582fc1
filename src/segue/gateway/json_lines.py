"""A log of JSON lines: a file of its owner, or the stream of errors.

A thread writes it, so that no turn waits for a disk. If the disk is too slow, lines are left out, and whoever writes
them is told. Not here: what a line says (`audit`, `turns.turn_log`).
"""

from __future__ import annotations

import os
import queue
import sys
import threading
from pathlib import Path
from typing import Final

import msgspec

#: The setting that means the stream of errors, not a file.
STDERR: Final = "stderr"
_MOST_WAITING = 10_000


class JsonLines:
    """Where lines go; without a place, nowhere."""

    def __init__(self, place: str | None, name: str) -> None:
        self.failed = 0
        """How many lines could not be written. The writer alone counts them."""
        self._waiting: queue.Queue[bytes | None] = queue.Queue(_MOST_WAITING)
        self._writer: threading.Thread | None = None
        if place is not None:
            descriptor = sys.stderr.fileno() if place == STDERR else _open(Path(place))
            self._writer = threading.Thread(
                target=self._write, args=(descriptor, place != STDERR), name=f"segue-{name}", daemon=True
            )
            self._writer.start()

    @property
    def on(self) -> bool:
        """Whether lines go anywhere."""
        return self._writer is not None

    def put(self, line: msgspec.Struct) -> bool:
        """Write a line, soon; return False if it is left out, because too many wait."""
        try:
            self._waiting.put_nowait(msgspec.json.encode(line) + b"\n")
        except queue.Full:
            return False
        return True

    def close(self) -> None:
        """Write what waits, and end."""
        if self._writer is not None:
            self._waiting.put(None)
            self._writer.join()
            self._writer = None

    def _write(self, descriptor: int, owned: bool) -> None:  # noqa: FBT001 - the arguments of a thread have no names
        while (line := self._waiting.get()) is not None:
            try:
                os.write(descriptor, line)
            except OSError:  # the disk is full, for example
                self.failed += 1
        if owned:
            os.close(descriptor)


def _open(file: Path) -> int:
    """Open a file to append to; nobody else may read a new one. Raises `OSError`."""
    return os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
