"""The log of the tunnel: one JSON line for each exchange, with whose it was, how it ended, and what its link carried.

No line holds content, a path, a query, or a header line but the provider's own id of the request. A line is written
when the sidecar has the reply. A session has at most `MAX_EXCHANGES` whose reply is on its way. Not here: the sums
(`admin.metrics`), and turns at the gateway's own API (`turns.turn_log`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, NamedTuple, Protocol

import msgspec

from segue.gateway.admin.metrics import ExchangeOutcome
from segue.gateway.json_lines import JsonLines, LogLine
from segue.gateway.principal import Principal
from segue.http.heads import ExchangeKind, Line, ReplyHead, RequestHead

#: So much of a method is logged; the longest registered one has 17 letters.
_MOST_METHOD: Final = 20
_REQUEST_IDS: Final = frozenset({b"x-request-id", b"request-id"})
_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9_.:-]{1,100}")


class ExchangeLine(LogLine, frozen=True, omit_defaults=True, kw_only=True):
    """One line. `at`: when the exchange ended, in unix seconds; times in milliseconds since its request arrived.

    `up` and `down` are the bytes of bodies and messages; `up_link` and `down_link` are what they took in the tunnel,
    without heads and frames. `delivered_ms`: until the sidecar had all of the reply, or wanted no more of it.
    `resumes`: how often its link broke and was made anew.
    """

    at: float
    tenant: str
    key: str | None
    route: str | None
    kind: ExchangeKind
    method: str
    status: int | None
    outcome: ExchangeOutcome
    code: str | None = None
    first_byte_ms: float | None = None
    total_ms: float
    delivered_ms: float | None = None
    up_bytes: int
    up_link_bytes: int
    down_bytes: int
    down_link_bytes: int
    saved_bytes: int
    base_misses: int = 0
    resumes: int = 0
    request_id: str | None = None


class ExchangeRecord(msgspec.Struct):
    """What an exchange notes about itself as it goes on."""

    request: RequestHead
    kind: ExchangeKind
    route: str | None = None
    status: int | None = None
    code: str | None = None
    request_id: str | None = None
    first_byte_at: float | None = None
    outcome: ExchangeOutcome = "cancelled"
    up_bytes: int = 0
    up_link_bytes: int = 0
    down_bytes: int = 0
    down_link_bytes: int = 0
    base_misses: int = 0

    def note_reply(self, head: ReplyHead, now: float) -> None:
        """Note the head of a provider's reply."""
        self.status, self.first_byte_at = head.status, now
        self.request_id = _request_id(head.lines, self.request.lines)


class EndTimes(NamedTuple):
    """When an exchange was opened and when it ended, by the loop's clock, and its end in unix seconds."""

    opened_at: float
    ended_at: float
    at: float


class _EndedExchange(NamedTuple):
    record: ExchangeRecord
    times: EndTimes
    principal: Principal
    links_before: int


class RepliesUnderWay(Protocol):
    """A session's end of the tunnel."""

    def holds(self, number: int) -> bool:
        """Tell whether an exchange is under way, or its reply is."""


class ExchangeLog:
    """Where the lines of exchanges go; without a place, nowhere."""

    def __init__(self, place: str | None) -> None:
        self._lines = JsonLines(place, "exchanges")
        self.on = self._lines.on

    def note(self, line: ExchangeLine) -> None:
        """Write a line, soon."""
        self._lines.put(line)

    def close(self) -> None:
        """Write what waits, and end."""
        self._lines.close()


class SessionExchangeLog:
    """The exchanges of one session that have ended, each until its reply is with the sidecar."""

    def __init__(self, log: ExchangeLog) -> None:
        self.on = log.on
        self._log = log
        self._ended: dict[int, _EndedExchange] = {}

    @property
    def waits(self) -> bool:
        """Whether there are any."""
        return bool(self._ended)

    def note_end(
        self, number: int, record: ExchangeRecord, times: EndTimes, *, principal: Principal, links_before: int
    ) -> None:
        """Note that an exchange has ended. `links_before`: how many links the session had had when it was opened."""
        self._ended[number] = _EndedExchange(record, times, principal, links_before)

    def note_progress(self, end: RepliesUnderWay, *, now: float, links: int) -> None:
        """Write the lines of those that the sidecar has, or wants no more."""
        for number in [number for number in self._ended if not end.holds(number)]:
            self._log.note(_line(self._ended.pop(number), delivered_at=now, links=links))

    def give_up(self, *, links: int) -> None:
        """Write the lines of all: nobody will fetch the replies."""
        for ended in self._ended.values():
            self._log.note(_line(ended, delivered_at=None, links=links))
        self._ended.clear()


def _line(ended: _EndedExchange, *, delivered_at: float | None, links: int) -> ExchangeLine:
    record, principal, times = ended.record, ended.principal, ended.times
    begun_at = times.opened_at
    plain, on_link = record.up_bytes + record.down_bytes, record.up_link_bytes + record.down_link_bytes
    return ExchangeLine(
        at=round(times.at, 3),
        tenant=principal.tenant,
        key=principal.key,
        route=record.route,
        kind=record.kind,
        method=record.request.method[:_MOST_METHOD].decode("ascii", "replace"),
        status=record.status,
        outcome=record.outcome,
        code=record.code,
        first_byte_ms=_ms(begun_at, record.first_byte_at),
        total_ms=_ms(begun_at, times.ended_at) or 0.0,
        delivered_ms=_ms(begun_at, delivered_at),
        up_bytes=record.up_bytes,
        up_link_bytes=record.up_link_bytes,
        down_bytes=record.down_bytes,
        down_link_bytes=record.down_link_bytes,
        saved_bytes=plain - on_link,
        base_misses=record.base_misses,
        resumes=links - ended.links_before,
        request_id=record.request_id,
    )


def _ms(since: float, until: float | None) -> float | None:
    return None if until is None else round((until - since) * 1000, 1)


def _request_id(lines: Iterable[Line], asked: Iterable[Line]) -> str | None:
    """Return the provider's id of a request, unless it repeats what the request's own lines hold, such as its key."""
    given = next((line.value for line in lines if line.name.lower() in _REQUEST_IDS), b"")
    if _REQUEST_ID.fullmatch(given) is None or any(given in line.value for line in asked):
        return None
    return given.decode("ascii")
