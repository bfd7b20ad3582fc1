"""The audit log: who did what to which response or conversation, which keys were refused, and reloads. JSON lines.

A line says when, what, who (tenant, and name of the key or client certificate) and from which address; never a key and
never content. If the disk is too slow, or somebody tries keys without end, lines are left out, and the next one says
how many. Not here: usage and metrics, and the log of the process.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal

from segue.gateway.json_lines import JsonLines, LogLine
from segue.gateway.principal import Principal
from segue.gateway.quotas.rate_bucket import RateBucket

Action = Literal[
    "read",
    "list",
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

#: Of keys and certificates that are refused: whoever tries thousands must not fill the disk.
_REFUSALS_PER_MINUTE = 600
_REFUSED: Final = frozenset({"refused_key", "refused_certificate"})


class AuditLine(LogLine, frozen=True, omit_defaults=True, kw_only=True):
    """One line. `at` is in unix seconds; `certificate`: the SHA-256 of the client's."""

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


class AuditLog:
    """Where lines go; without a place, nowhere."""

    def __init__(self, place: str | None, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._refusals = RateBucket(_REFUSALS_PER_MINUTE)
        self._lines = JsonLines(place, "audit")

    @property
    def failed(self) -> int:
        """How many lines could not be written."""
        return self._lines.failed

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
        if not self._lines.on:
            return
        now = self._clock()
        if action in _REFUSED:
            if self._refusals.wait_s(now):
                self._lines.leave_out()
                return
            self._refusals.take(1, now)
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
        )
        self._lines.put(line)

    def close(self) -> None:
        """Write what waits, and end."""
        self._lines.close()
