"""Windows of quotas in Redis: what all nodes have taken together. Not here: what a quota refuses."""

from __future__ import annotations

from collections.abc import Sequence

from segue.stores.live.interface import TakenUnits
from segue.stores.live.redis_link import Argument, RedisLink, load_script
from segue.stores.live.tenant_keys import tenant_tag


class RedisWindows:
    """The windows of all tenants."""

    def __init__(self, link: RedisLink) -> None:
        self._link = link
        self._take = load_script("take_units")

    async def take(self, tenant: str, taken: Sequence[TakenUnits]) -> Sequence[float]:
        """Take units out of windows; return for each after how many seconds it is full. Raises `LiveUnavailable`."""
        args: list[Argument] = []
        for one in taken:
            args += (one.window, one.units, one.per_minute, int(one.full_in_s * 1000))
        key = f"{tenant_tag(self._link.prefix, tenant)}:windows"
        told: Sequence[bytes] = await self._link.run(self._take, [key], *args)
        return [float(one) / 1000 for one in told]
