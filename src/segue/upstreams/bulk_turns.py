"""Turns of bulk data: one piece of each tenant at a time, at the tenant's pace, and a round of the loop between two.

A pace alone is not enough: while the loop is late, many pieces become due, and all of them would be read in the round
after. Not here: the pace (`bulk_pace`), and what is read.
"""

from __future__ import annotations

import asyncio

from segue.upstreams.bulk_pace import BulkPace


class BulkTurns:
    """The turns of all tenants."""

    def __init__(self, pace: BulkPace | None = None) -> None:
        self._pace = BulkPace() if pace is None else pace
        self._reading: dict[str, asyncio.Lock] = {}  # as many as the configuration has tenants

    async def wait(self, tenant: str, size: int) -> None:
        """Wait until a tenant may read its next piece, after one of this size."""
        clock = asyncio.get_running_loop().time
        async with self._reading.setdefault(
            tenant, asyncio.Lock()
        ):  # the pace is from one to the next: none catches up
            await asyncio.sleep(self._pace.wait_s(tenant, size, clock()))
