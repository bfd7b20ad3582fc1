"""Whether the turns of an upstream go over WebSockets at the moment, or over HTTP instead. Pure.

A server that says that it has no WebSockets gets its turns over HTTP, and so does one whose sockets break several times
in a row without a finished turn: proxies on the way may cut them. After a while a turn tries again. Not here: which
answers say so (`http.websocket`), and what a broken socket means for its turn.
"""

from __future__ import annotations

from collections import Counter
from typing import Literal

#: How often in a row sockets may break without a finished turn.
MOST_FAILURES = 3
#: After how long WebSockets are tried again.
AGAIN_S = 300.0

#: Why a turn goes over HTTP: the server has no WebSockets; they break on this way; its request is too large for one.
HttpReason = Literal["no_websocket", "unreliable", "too_large"]


class WebSocketTrust:
    """What was seen of an upstream's WebSockets. Every `now` is of the same monotonic clock."""

    def __init__(self) -> None:
        self._reason: HttpReason | None = None
        self._again_at = 0.0
        self._failures = 0
        self.fallbacks: Counter[HttpReason] = Counter()
        """How many turns went over HTTP, by why."""

    def why_http(self, now: float) -> HttpReason | None:
        """Return why a turn that begins now goes over HTTP; None if it goes over a WebSocket."""
        return self._reason if now < self._again_at else None

    def note_absence(self, now: float) -> None:
        """Note that the server has said that it has no WebSockets."""
        self._reason, self._again_at = "no_websocket", now + AGAIN_S

    def note_failure(self, now: float) -> None:
        """Note that a socket broke, or did not come about, although its server can be reached."""
        self._failures += 1
        if self._failures >= MOST_FAILURES:
            self._reason, self._again_at, self._failures = "unreliable", now + AGAIN_S, 0

    def note_success(self) -> None:
        """Note that a turn over a socket has come to its end."""
        self._failures = 0
