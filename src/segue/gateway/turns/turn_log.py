"""The log of turns: one JSON line for each, with who asked for what, how it ended, and what it used. Never content.

It is off unless the configuration names a place for it: a line is written for every turn, and a busy gateway has
thousands a minute. Not here: the sums (`quotas`, `admin.metrics`), and who read or deleted what (`audit`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from segue.gateway.json_lines import JsonLines, LogLine
from segue.gateway.turns.caller import Api, Caller
from segue.protocol.requests import Create
from segue.protocol.responses import Usage
from segue.upstreams.interface import HasName, Upstream, UpstreamNotes

#: So much of a name is logged that a client has chosen.
_MOST_NAME = 200


class TurnLine(LogLine, frozen=True, omit_defaults=True, kw_only=True):
    """One line. `at`: when the turn ended, in unix seconds; times in milliseconds since its request was read.

    `upstream` is the one that ran the turn, after `failovers` others of its group; of a turn that reached none, all
    that it may have reached. `continuation` is `hit` if the upstream was sent only what is new, or else why it was sent
    all; without it there was nothing to continue, or the upstream keeps no conversations. `code` says why the turn
    failed or was refused.
    """

    at: float
    tenant: str
    key: str | None
    model: str
    api: Api
    transport: str
    outcome: str
    total_ms: float
    first_output_ms: float | None = None
    response_id: str | None = None
    upstream: str | None = None
    failovers: int = 0
    continuation: str | None = None
    code: str | None = None
    request_bytes: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0


class TurnLog:
    """Where the lines of turns go; without a place, nowhere."""

    def __init__(self, place: str | None) -> None:
        self._lines = JsonLines(place, "turns")
        self.on = self._lines.on

    def note(self, line: TurnLine) -> None:
        """Write a line, soon."""
        self._lines.put(line)

    def close(self) -> None:
        """Write what waits, and end."""
        self._lines.close()


class TurnTimes(NamedTuple):
    """When a turn ended, in unix seconds, and how long it took since its request was read."""

    at: float
    total_s: float
    first_output_s: float | None


class TurnEnd(NamedTuple):
    """How a turn ended, where, and what it used; `code` says why, if it failed or was refused."""

    outcome: str
    code: str | None
    response_id: str | None
    used: Usage | None
    notes: UpstreamNotes


def turn_line(
    caller: Caller, create: Create, upstreams: Sequence[Upstream], times: TurnTimes, end: TurnEnd
) -> TurnLine:
    """Return the line of a turn that is over."""
    names = [one.name for one in upstreams if isinstance(one, HasName)]
    used, tried = end.used, end.notes.tried
    return TurnLine(
        at=round(times.at, 3),
        tenant=caller.tenant,
        key=caller.principal.key,
        model=create.settings.model[:_MOST_NAME],
        api=caller.api,
        transport=caller.meter.transport,
        outcome=end.outcome,
        total_ms=_ms(times.total_s),
        first_output_ms=None if times.first_output_s is None else _ms(times.first_output_s),
        response_id=end.response_id,
        upstream=(tried[-1] if tried else "|".join(names)) or None,
        failovers=max(0, len(tried) - 1),
        continuation=end.notes.continuation,
        code=end.code,
        request_bytes=create.size_bytes,
        input_tokens=0 if used is None else used.input_tokens,
        cached_tokens=0 if used is None else used.input_tokens_details.cached_tokens,
        output_tokens=0 if used is None else used.output_tokens,
    )


def _ms(time_s: float) -> float:
    return round(time_s * 1000, 1)
