"""The recovery decision: what a client does when a turn meets a fault.

Not here: what carries a decision out (`turn_machine`), and how a fault is noticed (`transports`).
"""

from __future__ import annotations

from typing import Literal

import msgspec

from segue.client.settings import TransportKind

FaultKind = Literal[
    "connect_failed",  # no connection came about: name, route, TLS, time
    "upgrade_refused",  # the server answered the WebSocket upgrade with a status other than 101
    "connection_gone",  # the connection that the request was meant for is not there any more; nothing was sent
    "connection_lost",  # the connection broke
    "timeout",  # nothing came for too long
    "refused",  # an error before the first event of the response: its status, or its error event
    "failed",  # an error event after the response had started
    "stream_ended",  # the stream ended in order, but without a terminal event
    "unreadable",  # what came is no event of this API: a web page, broken JSON, too much
]

#: How far the turn was when the fault came. It never goes back while the turn's outcome is open.
Progress = Literal[
    "not_sent",  # the create was certainly never delivered
    "sent",  # perhaps delivered; no event came
    "started",  # `response.created` came, so the id is known
    "output",  # output came
]

Delivered = Literal["no", "maybe"]
BodyKind = Literal["json", "html", "other", "none"]


class TurnFault(msgspec.Struct, frozen=True, kw_only=True):
    """What went wrong, as a transport saw it.

    `status`, `code`, `param`, `message` and `retry_after_s` are the server's own. `silent_s` says how long before the
    fault a lost connection last showed life. `delivered` is "no" only if the server cannot have got the request.
    """

    kind: FaultKind
    transport: TransportKind
    delivered: Delivered = "maybe"
    status: int | None = None
    code: str | None = None
    param: str | None = None
    message: str | None = None
    retry_after_s: float | None = None
    body_kind: BodyKind = "none"
    close_code: int | None = None
    silent_s: float | None = None
