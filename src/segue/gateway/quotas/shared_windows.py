"""The windows of quotas that several gateways share: each counts for itself, and they compare several times a second.

What was taken here is told, and what all have taken together is counted here from then on. So a limit holds for all
gateways but for what comes at several of them within one interval, and that is paid back like any debt. While nothing
is shared, each counts for itself alone. Not here: the windows (`rate_bucket`) and what they refuse (`quotas`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from segue.gateway.quotas.quotas import Quotas
from segue.gateway.quotas.rate_bucket import RateBucket
from segue.stores.live.interface import LiveUnavailable, TakenUnits, Windows

#: How often gateways compare.
INTERVAL_S: Final = 0.05


class SharedWindows:
    """Compares the windows of this gateway with those of all. `clock` gives unix seconds, as for the quotas."""

    def __init__(self, quotas: Quotas, windows: Windows, clock: Callable[[], float]) -> None:
        self._quotas = quotas
        self._windows = windows
        self._clock = clock
        self.alone = False
        """Whether the last comparison failed, so that this gateway counts for itself."""

    async def run(self) -> None:
        """Compare at an interval."""
        while True:
            await asyncio.sleep(INTERVAL_S)
            await self.compare()

    async def compare(self) -> None:
        """Compare the windows that something was taken out of."""
        by_tenant: dict[str, list[tuple[str, RateBucket]]] = {}
        for tenant, key, scope in self._quotas.counted():
            for what, bucket in scope.windows.items():
                if bucket.untold:
                    name = what if key is None else f"key:{key}:{what}"
                    by_tenant.setdefault(tenant, []).append((name, bucket))
        for tenant, buckets in by_tenant.items():
            await self._compare(tenant, buckets)

    async def _compare(self, tenant: str, buckets: Sequence[tuple[str, RateBucket]]) -> None:
        now = self._clock()
        units = [bucket.untold for _, bucket in buckets]
        least_s = [bucket.full_in_s(now) if self.alone else 0.0 for _, bucket in buckets]
        taken = [
            TakenUnits(name, 0 if self.alone else count, bucket.per_minute, least)
            for (name, bucket), count, least in zip(buckets, units, least_s, strict=True)
        ]
        try:
            full_in_s = await self._windows.take(tenant, taken)
        except LiveUnavailable:
            self.alone = True
            return
        self.alone = False
        for (_, bucket), count, full_s in zip(buckets, units, full_in_s, strict=True):
            bucket.adopt(count, full_at=now + full_s)
