"""The audit log: who did what to which response or conversation, which keys were refused, and reloads. JSON lines.

A line says when, what, who (tenant, and name of the key or client certificate) and from which address; never a key and
never content. Lines are written in a thread, so that no turn waits for a disk. If the disk is too slow, or somebody
tries keys without end, lines are left out, and the next one says how many. Not here: usage and metrics, and the log of
the process.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal

import msgspec

from segue.gateway.principal import Principal
from segue.gateway.quotas.rate_bucket import RateBucket

Action = Literal[
    "read",
    "delete",
    "cancel",
    "export",
    "import",
    "erase",
    "refused_key",
    "refused_certificate",
    "reload",
    "refused_reload",
]

#: The setting that means the stream of errors, not a file.
STDERR: Final = "stderr"
_MOST_WAITING = 10_000
#: Of keys and certificates that are refused: whoever tries thousands must not fill the disk.
_REFUSALS_PER_MINUTE = 600
_REFUSED: Final = frozenset({"refused_key", "refused_certificate"})


class AuditLine(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line. `at` is in unix seconds; `certificate`: the SHA-256 of the client's; `left_out`: lines before it."""

    at: float
    action: Action
    tenant: str | None = None
    key: str | None = None
    certificate: str | None = None
    peer: str | None = None
    response_id: str | None = None
    conversation_id: str | None = None
    status: int | None = None
    reason: str | None = None
    left_out: int = 0


class AuditLog:
    """Where lines go; without a place, nowhere."""

    def __init__(self, place: str | None, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._refusals = RateBucket(_REFUSALS_PER_MINUTE)
        self._left_out = 0
        self.failed = 0
        """How many lines could not be written. The writer alone counts them."""
        self._failed_told = 0
        self._waiting: queue.Queue[bytes | None] = queue.Queue(_MOST_WAITING)
        self._writer: threading.Thread | None = None
        if place is not None:
            descriptor = sys.stderr.fileno() if place == STDERR else _open(Path(place))
            self._writer = threading.Thread(
                target=self._write, args=(descriptor, place != STDERR), name="segue-audit", daemon=True
            )
            self._writer.start()

    def note(
        self,
        action: Action,
        principal: Principal | None = None,
        *,
        peer: str | None = None,
        response_id: str | None = None,
        conversation_id: str | None = None,
        status: int | None = None,
        reason: str | None = None,
    ) -> None:
        """Write a line, soon."""
        if self._writer is None:
            return
        now = self._clock()
        if action in _REFUSED:
            if self._refusals.wait_s(now):
                self._left_out += 1
                return
            self._refusals.take(1, now)
        failed = self.failed
        line = AuditLine(
            at=round(now, 3),
            action=action,
            tenant=None if principal is None else principal.tenant,
            key=None if principal is None else principal.key,
            certificate=None if principal is None or principal.certificate is None else principal.certificate.sha256,
            peer=peer,
            response_id=response_id,
            conversation_id=conversation_id,
            status=status,
            reason=reason,
            left_out=self._left_out + failed - self._failed_told,
        )
        try:
            self._waiting.put_nowait(msgspec.json.encode(line) + b"\n")
        except queue.Full:
            self._left_out += 1
        else:
            self._left_out, self._failed_told = 0, failed

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
