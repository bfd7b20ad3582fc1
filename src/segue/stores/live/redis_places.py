"""Places under limits of what may be under way at once, in Redis: which node has how many. Not here: the limits."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from segue.stores.live.interface import HeldPlaces, WantedPlaces
from segue.stores.live.redis_link import Argument, RedisLink, load_script
from segue.stores.live.tenant_keys import tenant_tag


class RedisPlaces:
    """The places of all nodes. What a node has is free when it has said nothing for the time of a lease."""

    def __init__(self, link: RedisLink, *, node: str, lease_s: float) -> None:
        self._link = link
        self._node = node
        self.lease_s = lease_s
        self._hold = load_script("hold_places")

    async def hold(self, tenant: str, wanted: Sequence[WantedPlaces]) -> Sequence[HeldPlaces]:
        """Have so many places in place of those that this node had. Raises `LiveUnavailable`."""
        keys = [self._key(tenant, one.name) for one in wanted]
        args: list[Argument] = [self._node, int(self.lease_s * 1000)]
        for one in wanted:
            args += (one.used, one.wanted, one.most)
        told: Sequence[Sequence[int]] = await self._link.run(self._hold, keys, *args)
        return [HeldPlaces(held, others) for held, others in told]

    def _key(self, tenant: str, name: str) -> str:
        return f"{tenant_tag(self._link.prefix, tenant)}:places:{hashlib.sha256(name.encode()).hexdigest()[:32]}"
