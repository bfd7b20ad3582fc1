"""How many turns and requests of one tenant are at the provider at once: the ledger compares it with how many may be.

A node gives a place free after it has hung up, and hears the last piece of an answer after that was written. So what
was over when a request came, the kernel knows already, and the provider as soon as its loop has gone round a little.
Not here: which of them count (`ledger`), and what may have happened to their places (`nodes`).
"""

from __future__ import annotations

import asyncio

from segue.testing.provider import ScriptedProvider
from tests.faults.cluster.ledger import Ledger

#: The provider has taken all that its kernel knew when its loop has gone round so often: each time it reads what there
#: is, and of what it has read it knows the meaning some rounds later.
_ROUNDS = 20


class RunningTurns:
    """What runs of one tenant, which may run so many at once."""

    def __init__(self, provider: ScriptedProvider, ledger: Ledger, *, most: int) -> None:
        self._provider = provider
        self._ledger = ledger
        self._most = most
        self._loop = asyncio.get_running_loop()
        self._running: dict[int, int | None] = {}

    def begin(self, number: int, sent_in: int | None) -> None:
        """Take a request that was sent when places had been lost so often, and count what runs beside it."""
        self._running[number] = sent_in
        self._count_after(_ROUNDS)

    def _count_after(self, rounds: int) -> None:
        if rounds:
            self._loop.call_soon(self._count_after, rounds - 1)
            return
        over = self._provider.spoken | self._provider.hung_up
        self._running = {number: sent_in for number, sent_in in self._running.items() if number not in over}
        self._ledger.count_running(self._running.values(), most=self._most)
