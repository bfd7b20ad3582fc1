"""When to ask a silent peer for life, and when to give it up: pure.

Any byte counts as life, not only a pong. A ping waits behind what was written before it, so that a peer has as much
longer to answer as a slow line takes to carry that. While nothing is read, because the reader is slow, silence says
nothing. Not here: the timer and the ping (`websocket_liveness`).
"""

from __future__ import annotations

from typing import Literal, NamedTuple

#: No line that is worth waiting for is slower.
SLOWEST_BYTES_PER_S = 4096


class Beat(NamedTuple):
    """What to do now, and after how many seconds to look again."""

    action: Literal["wait", "ping", "dead"]
    again_s: float


class Heartbeat:
    """Watches one connection; times are in seconds of one monotonic clock."""

    def __init__(self, interval_s: float, now: float) -> None:
        self._interval_s = interval_s
        self._life_at = now
        self._sent_at_life = 0
        self._pinged = False

    def look(self, now: float, *, received_at: float, sent_bytes: int, reading: bool) -> Beat:
        """Return what to do.

        `received_at` is when the last byte came, `sent_bytes` how much was written so far, and `reading` says that what
        comes is read.
        """
        life_at = received_at if reading else now
        if life_at > self._life_at:
            self._life_at, self._sent_at_life, self._pinged = life_at, sent_bytes, False
        due_s = self._life_at + self._interval_s - now
        if due_s > 0:
            return Beat("wait", due_s)
        left_s = due_s + self._interval_s + (sent_bytes - self._sent_at_life) / SLOWEST_BYTES_PER_S
        if left_s <= 0:
            return Beat("dead", 0.0)
        action: Literal["wait", "ping"] = "wait" if self._pinged else "ping"
        self._pinged = True
        return Beat(action, min(left_s, self._interval_s))
