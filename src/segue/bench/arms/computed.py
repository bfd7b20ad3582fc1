"""Arms that are computed: what a measured arm would have carried, had it been compressed as a standard prescribes.

To the bytes that the wire of the measured arm carried is added the difference that the compression makes to bodies,
events, and head lines (`baselines`). gzip and zstd are computed from HTTP replay, permessage-deflate from the same over
a WebSocket. A computed arm has no times. Not here: the compression (`baselines`), and measuring (`measurement`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from segue.bench.arms.baselines import Baseline, cost
from segue.bench.meters.turn_meter import RecordedExchange
from segue.bench.reports.report import Arm, TurnFigures
from segue.bench.reports.report import arm as make_arm
from segue.client.transports.event_scan import scan
from segue.http.heads import Line, RequestHead
from segue.http.sse import write_event
from segue.testing.recorded_session import RecordedSession, RecordedTurn
from segue.testing.replies import ProviderReply

#: What is computed from a measured arm, by its transport.
COMPUTED_FROM: dict[Literal["http", "websocket"], tuple[Baseline, ...]] = {
    "http": ("gzip", "zstd"),
    "websocket": ("permessage-deflate",),
}

_TARGET = b"/v1/responses"
_LINES = (Line(b"Content-Type", b"application/json"),)
_COUNTED = ("bytes_up_payload", "bytes_down_payload", "bytes_repeated", "bytes_settings_repeated")


def computed_arms(
    measured: Arm, recorded: Sequence[RecordedExchange], transport: Literal["http", "websocket"]
) -> list[Arm]:
    """Compute what can be computed from a measured arm and from what it said, turn by turn."""
    session = _session(recorded, transport)
    raw = cost("raw", session)
    arms: list[Arm] = []
    for baseline in COMPUTED_FROM[transport]:
        turns = [
            TurnFigures(
                bytes_up_wire=(turn.bytes_up_wire or 0) + packed.up_bytes - plain.up_bytes,
                bytes_down_wire=(turn.bytes_down_wire or 0) + packed.down_bytes - plain.down_bytes,
                **{name: getattr(turn, name) for name in _COUNTED},
            )
            for turn, packed, plain in zip(measured.turns, cost(baseline, session), raw, strict=True)
        ]
        arms.append(msgspec.structs.replace(make_arm(baseline, turns), workload=measured.workload, basis="computed"))
    return arms


def _session(recorded: Sequence[RecordedExchange], transport: Literal["http", "websocket"]) -> RecordedSession:
    """Write what was said as a session. What all encodings have in common does not matter: only differences count."""
    head = RequestHead(b"GET" if transport == "websocket" else b"POST", _TARGET, _LINES)
    turns = tuple(RecordedTurn(head=head, body=one.create, reply=_reply(one), news=b"") for one in recorded)
    return RecordedSession(kind="measured", api="responses", streamed=True, transport=transport, turns=turns)


def _reply(exchange: RecordedExchange) -> ProviderReply:
    scanned = ((scan(event), event) for event in exchange.events)
    events = (write_event("" if head is None else head.type, event) for head, event in scanned)
    return ProviderReply(lines=(), events=tuple(events), whole=b"")
