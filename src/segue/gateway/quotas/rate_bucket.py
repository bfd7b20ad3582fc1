"""A rate per minute as a bucket: it holds one minute's worth, and fills up evenly.

This is the generic cell rate algorithm (https://www.itu.int/rec/T-REC-I.371, annex A): all that is kept is the moment
at which the bucket is full again. A cost that is known only afterwards, like the tokens of an answer, may take more
than there is; the debt is paid back at the same rate. Pure: `now` is passed in, in seconds, of a clock that may be set
back: what is owed then stays as it was. Not here: whose it is.
"""

from __future__ import annotations

import math
from typing import Final

MINUTE_S: Final = 60.0
#: Times are sums of many small parts: a place that is there but for the last bit is there.
_SLACK_S: Final = 1e-6


class RateBucket:
    """One bucket of `per_minute` units; it is full at first."""

    __slots__ = ("_full_at", "_latest", "per_minute", "untold")

    def __init__(self, per_minute: int) -> None:
        self.per_minute = per_minute
        self._full_at = -math.inf
        self._latest = -math.inf
        self.untold = 0
        """How many units were taken that other gateways do not know of (`shared_windows`)."""

    def wait_s(self, now: float) -> float:
        """Return after how long there is a whole unit; 0 if there is one."""
        self._note_time(now)
        wait = self._full_at + MINUTE_S / self.per_minute - MINUTE_S - now
        return wait if wait > _SLACK_S else 0.0

    def take(self, units: int, now: float) -> None:
        """Take units out, even if they are not there."""
        self._note_time(now)
        self._full_at = max(self._full_at, now) + units * MINUTE_S / self.per_minute
        self.untold += units

    def adopt(self, told: int, *, full_at: float) -> None:
        """Take over when it is full, by all gateways together, which know of this many units that were taken here."""
        self.untold -= told
        self._full_at = full_at + self.untold * MINUTE_S / self.per_minute

    def remaining(self, now: float) -> int:
        """Return how many whole units there are."""
        share = 1 - self.full_in_s(now) / MINUTE_S
        return max(0, math.floor(share * self.per_minute + _SLACK_S))

    def full_in_s(self, now: float) -> float:
        """Return after how long it is full."""
        self._note_time(now)
        return max(0.0, self._full_at - now)

    def _note_time(self, now: float) -> None:
        """Move what is owed with a clock that was set back."""
        if now < self._latest:
            self._full_at += now - self._latest
        self._latest = now
