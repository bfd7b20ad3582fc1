"""A log of JSON lines: a file of its owner, or the stream of errors.

A thread writes it, so that no turn waits for a disk. If the disk is too slow, lines are left out, and the next one says
how many. Not here: what a line says (`audit`, `turns.turn_log`).
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


class LogLine(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One line; `left_out`: how many before it were not written."""

    left_out: int = 0


class JsonLines:
    """Where lines go; without a place, nowhere."""

    def __init__(self, place: str | None, name: str) -> None:
        self.failed = 0
        """How many lines could not be written. The writer alone counts them."""
        self._failed_told = 0
        self._left_out = 0
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

    def put(self, line: LogLine) -> None:
        """Write a line, soon, unless too many wait."""
        failed = self.failed
        left_out = self._left_out + failed - self._failed_told
        if left_out:
            line = msgspec.structs.replace(line, left_out=left_out)
        try:
            self._waiting.put_nowait(msgspec.json.encode(line) + b"\n")
        except queue.Full:
            self._left_out += 1
        else:
            self._left_out, self._failed_told = 0, failed

    def leave_out(self) -> None:
        """Count a line that whoever writes has left out."""
        self._left_out += 1

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
