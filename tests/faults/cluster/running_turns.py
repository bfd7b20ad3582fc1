"""How many turns and requests of one tenant are at the provider at once, compared with how many may be.

What counts them is shared by the nodes, and may be lost: then more may run for a while. Not here: what has happened to
it (`nodes`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from segue.testing.provider import ScriptedProvider
from tests.faults.cluster.ledger import Ledger

#: The provider may learn so much later than a node that a turn is over.
_OVERLAP_S = 0.03


class RunningTurns:
    """What runs. `losses`: how often their counts may have been lost; None: just now."""

    def __init__(
        self, provider: ScriptedProvider, ledger: Ledger, *, most: int, losses: Callable[[], int | None]
    ) -> None:
        self._provider = provider
        self._ledger = ledger
        self._most = most
        self._losses = losses
        self._loop = asyncio.get_running_loop()
        self._running: dict[int, int | None] = {}

    def begin(self, number: int) -> None:
        """Take a request; what still runs beside it soon afterwards is counted."""
        self._running[number] = self._losses()
        self._loop.call_later(_OVERLAP_S, self._count)

    def _count(self) -> None:
        answered, hung_up = self._provider.answered, self._provider.hung_up
        for number in [number for number in self._running if number in answered or number in hung_up]:
            del self._running[number]
        losses = self._losses()
        calm = losses is not None and all(before == losses for before in self._running.values())
        self._ledger.count_running(len(self._running), most=self._most, calm=calm)
