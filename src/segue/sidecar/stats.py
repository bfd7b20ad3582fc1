"""The counters of a sidecar: for `GET /segue/stats`, the live view, and the JSON at the end.

The bytes of agents are what they would have sent to the provider and got from it without any transfer coding: start
lines, the header lines that are passed on, bodies, and WebSocket messages. Only what the tunnel carried to a reply
counts, and once: no request that failed or went straight to the provider, and no first try whose reply a retry got. The
bytes of the tunnel are its packets with
their WebSocket frame headers, acknowledgements and heartbeats, without handshakes and TLS. Not here: content of any
kind, query strings, credentials.
"""

from __future__ import annotations

from collections import deque
from typing import Literal

import msgspec

from segue.http.heads import ReplyHead, RequestHead

#: Whoever sees to the byte what was compressed can guess what is in it, letter by letter. So it is told in steps.
_STEP_BYTES = 256

#: How many of the latest exchanges the live view shows.
RECENT = 20

Outcome = Literal["completed", "cut", "failed", "gone", "parked", "direct"]


class ExchangeSummary(msgspec.Struct):
    """One exchange, as people see it in the live view."""

    path: str
    status: int | None
    outcome: Outcome
    body_bytes: int
    document_bytes: int
    reply_bytes: int
    time_s: float
    error: str = ""
    """The code of the error that its agent was told; `cut`: the reply ended early."""


class Counters(msgspec.Struct):
    """Counters that only grow, except for `active`, and the bytes of a first try, which are taken back.

    The module's docstring defines the bytes.
    """

    exchanges: int = 0
    active: int = 0
    attached: int = 0
    """Requests that got the reply of an orphaned exchange."""
    direct: int = 0
    """Requests that went straight to the provider."""
    agent_bytes_in: int = 0
    agent_bytes_out: int = 0
    tunnel_bytes_up: int = 0
    tunnel_bytes_down: int = 0
    base_hits: int = 0
    """Bodies that the gateway rebuilt from a base."""
    base_misses: int = 0
    """Bodies that the gateway could not rebuild, so that they were sent again without a base."""
    without_base: int = 0
    links: int = 0
    resumes: int = 0
    """Links on which a session went on at the same node."""


class SidecarReport(Counters, kw_only=True):
    """The JSON object of `GET /segue/stats`."""

    parked: int
    queued: int = 0
    """Exchanges that have not wholly gone to a gateway yet."""
    link: str
    gateway: str
    reason: str = ""
    """Why there is no link."""
    rtt_s: float | None
    failed: dict[str, int] = {}
    """How many requests failed, by the code of the error; `cut`: the reply ended early."""
    recent: list[ExchangeSummary]


class Stats(Counters):
    """The counters of one sidecar, and its latest exchanges."""

    failed: dict[str, int] = {}
    recent: deque[ExchangeSummary] = msgspec.field(default_factory=lambda: deque(maxlen=RECENT))

    def report(
        self, *, parked: int, queued: int = 0, link: str, gateway: str, reason: str = "", rtt_s: float | None
    ) -> SidecarReport:
        """Return the present values. `parked`: how many exchanges are orphaned; `queued`: how many wait to be sent."""
        counters = {name: getattr(self, name) for name in Counters.__struct_fields__}
        return SidecarReport(
            **counters,
            parked=parked,
            queued=queued,
            link=link,
            gateway=gateway,
            reason=reason,
            rtt_s=rtt_s,
            failed=dict(self.failed),
            recent=list(self.recent),
        )

    def note_failure(self, code: str) -> None:
        """Count a request that failed."""
        self.failed[code] = self.failed.get(code, 0) + 1


def saved_share(report: SidecarReport) -> float:
    """Return the part of the bytes of both directions that the tunnel saved; negative if it cost more."""
    direct = report.agent_bytes_in + report.agent_bytes_out
    carried = report.tunnel_bytes_up + report.tunnel_bytes_down
    return 1 - carried / direct if direct else 0.0


def rounded(report: SidecarReport) -> SidecarReport:
    """Return a report for others than this process: what was compressed is rounded up to a step."""
    replace = msgspec.structs.replace
    return replace(
        report,
        tunnel_bytes_up=_in_steps(report.tunnel_bytes_up),
        tunnel_bytes_down=_in_steps(report.tunnel_bytes_down),
        recent=[replace(one, document_bytes=_in_steps(one.document_bytes)) for one in report.recent],
    )


def _in_steps(count: int) -> int:
    return -(-count // _STEP_BYTES) * _STEP_BYTES


def request_bytes(head: RequestHead) -> int:
    """Return the size of a request's head as it is passed on (RFC 9112, 2.1)."""
    first = len(head.method) + len(head.target) + len("  HTTP/1.1\r\n")
    return first + sum([len(name) + len(value) + 4 for name, value in head.lines]) + 2


def reply_bytes(head: ReplyHead) -> int:
    """Return the size of a response's head as it was passed on."""
    first = len(head.reason) + len("HTTP/1.1 200 \r\n")
    return first + sum([len(name) + len(value) + 4 for name, value in head.lines]) + 2
