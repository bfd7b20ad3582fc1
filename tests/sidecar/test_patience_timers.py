"""The timers of a link that is away."""

from __future__ import annotations

import asyncio

from segue.sidecar.link_status import LinkTimeouts
from segue.sidecar.patience_timers import PatienceTimers


class Reviews:
    """Counts what is called, and tells when it was often enough."""

    def __init__(self, enough: int) -> None:
        self.count = 0
        self.reached = asyncio.Event()
        self._enough = enough

    def __call__(self) -> None:
        self.count += 1
        if self.count == self._enough:
            self.reached.set()


async def test_each_of_the_two_times_is_told() -> None:
    reviews = Reviews(2)
    PatienceTimers(LinkTimeouts(wait_s=0.0, give_up_s=0.001), reviews).start()
    await asyncio.wait_for(reviews.reached.wait(), 20)


async def test_who_starts_again_counts_from_the_beginning_and_who_stops_hears_nothing() -> None:
    others, reviews = Reviews(1), Reviews(1)
    stopped = PatienceTimers(LinkTimeouts(wait_s=0.0, give_up_s=0.0), others)
    stopped.start()
    stopped.stop()
    again = PatienceTimers(LinkTimeouts(wait_s=0.0, give_up_s=1000.0), reviews)
    again.start()
    again.start()
    await asyncio.wait_for(reviews.reached.wait(), 20)
    again.stop()
    assert (others.count, reviews.count) == (0, 1)
