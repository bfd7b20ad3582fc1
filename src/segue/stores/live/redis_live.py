"""Everything that gateways share in one Redis, behind one link to it. Not here: picking it by a URL (`opening`)."""

from __future__ import annotations

from collections.abc import Callable

from segue.stores.event_logs import MemoryEventLogs
from segue.stores.live.live_url import LiveUrl
from segue.stores.live.redis_claims import RedisClaims
from segue.stores.live.redis_exchanges import RedisExchanges
from segue.stores.live.redis_link import CALL_S, RedisLink
from segue.stores.live.redis_locks import RedisLocks
from segue.stores.live.redis_logs import RedisEventLogs
from segue.stores.live.redis_nodes import LEASE_S, RedisNodes
from segue.stores.live.redis_places import RedisPlaces
from segue.stores.live.redis_windows import RedisWindows


class RedisLive:
    """One node's part of what is shared. Start its `nodes` before anything else is used."""

    def __init__(
        self,
        where: LiveUrl,
        *,
        node: str,
        address: str,
        started_at: float,
        lease_s: float = LEASE_S,
        call_s: float = CALL_S,
        monotonic: Callable[[], float] | None = None,
    ) -> None:
        self.link = RedisLink(where, call_s=call_s)
        self.nodes = RedisNodes(
            self.link,
            where,
            node=node,
            address=address,
            started_at=started_at,
            lease_s=lease_s,
            monotonic=monotonic,
        )
        self.logs: RedisEventLogs | None = None
        self.exchanges = RedisExchanges(self.link, self.nodes)
        self.windows = RedisWindows(self.link)
        self.places = RedisPlaces(self.link, node=node, lease_s=lease_s)
        self.claims = RedisClaims(self.link, self.nodes)
        self.locks = RedisLocks(self.link, self.nodes)

    def share_logs(
        self, local: MemoryEventLogs, *, log_bytes: int, tenant_bytes: int, clock: Callable[[], float]
    ) -> RedisEventLogs:
        """Return event logs that all nodes can read, around those of this one."""
        self.logs = RedisEventLogs(
            local, self.link, self.nodes, log_bytes=log_bytes, tenant_bytes=tenant_bytes, clock=clock
        )
        return self.logs

    @property
    def available(self) -> bool:
        """Whether Redis answers, and this node has its lease."""
        return self.link.available and self.nodes.held

    async def aclose(self) -> None:
        """Give the lease back, and close the connections."""
        if self.logs is not None:
            await self.logs.aclose()
        await self.claims.aclose()
        await self.locks.aclose()
        await self.nodes.aclose()
        await self.link.aclose()
