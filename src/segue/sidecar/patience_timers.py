"""Calls back when it is time to ask again whether a link that is away is still worth waiting for.

Not here: the answer (`segue.sidecar.link_status`), and what follows from it (`segue.sidecar.session`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from segue.sidecar.link_status import LinkTimeouts

#: A little later than the time itself, so that it is over by then.
_LATER_S = 0.001


class PatienceTimers:
    """The two timers of one session. `review` is called when each of the two times is over."""

    def __init__(self, timeouts: LinkTimeouts, review: Callable[[], None]) -> None:
        self._timeouts = timeouts
        self._review = review
        self._running: list[asyncio.TimerHandle] = []

    def start(self) -> None:
        """Begin to count from now; what ran before is stopped."""
        self.stop()
        loop = asyncio.get_running_loop()
        times_s = (self._timeouts.wait_s, self._timeouts.give_up_s)
        self._running = [loop.call_later(time_s + _LATER_S, self._review) for time_s in times_s]

    def stop(self) -> None:
        """Call back no more."""
        for timer in self._running:
            timer.cancel()
        self._running = []
