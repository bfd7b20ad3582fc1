"""What is done to the nodes and to what they share, drawn from a seed: kills, pauses, cut connections, restarts.

Between two disturbances some turns are acknowledged, or a moment passes in which none is. Each is over when what was
disturbed runs again; what clients make of it goes on beside the next one. Not here: how a node is killed (`nodes`).
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from types import MappingProxyType

from tests.faults.cluster.nodes import Cluster, ClusterNode
from tests.faults.gateways import until

#: How long at most is waited for turns between two disturbances.
_MOMENT_S = 0.5


class Disturbances:
    """Disturbs a cluster until so many nodes were killed."""

    def __init__(self, cluster: Cluster, seed: int) -> None:
        self._cluster = cluster
        self._random = random.Random(seed)
        self.schedule: list[str] = []
        """What was done so far, in order."""

    @property
    def kills(self) -> int:
        """How many nodes were killed."""
        return sum(one.startswith("kill") for one in self.schedule)

    def counts(self) -> Counter[str]:
        """Return how often each kind of disturbance came."""
        return Counter(one.partition(" ")[0] for one in self.schedule)

    async def run(self, kills: int, watch: Callable[[], None]) -> None:
        """Disturb, and call `watch` after each; the end is when all nodes run again."""
        kinds, weights = tuple(_KINDS), tuple(_KINDS.values())
        while self.kills < kills:
            (kind,) = self._random.choices(kinds, weights)
            await kind(self)
            watch()
            await self._turns(self._random.randint(0, 4))

    async def once_each(self, watch: Callable[[], None]) -> None:
        """Disturb in each way once, in some order."""
        kinds = list(_KINDS)
        self._random.shuffle(kinds)
        for kind in kinds:
            await kind(self)
            watch()
            await self._turns(self._random.randint(1, 4))

    async def _turns(self, count: int) -> None:
        """Wait until so many more turns are acknowledged, or for a moment."""
        ledger = self._cluster.ledger
        goal = ledger.acknowledged + count
        with suppress(TimeoutError):
            async with asyncio.timeout(_MOMENT_S):
                await until(lambda: ledger.acknowledged >= goal)

    # --- what is done ------------------------------------------------------------------------------------------------

    async def kill_node(self) -> None:
        """Kill a node; it is started again at once."""
        await self._kill([self._random.choice(self._cluster.nodes)])

    async def kill_most(self) -> None:
        """Kill all nodes but one at the same moment."""
        await self._kill(self._random.sample(self._cluster.nodes, 2))

    async def _kill(self, nodes: list[ClusterNode]) -> None:
        self.schedule += [f"kill {node.slot}" for node in nodes]
        await asyncio.gather(*(self._cluster.restart_node(node) for node in nodes))

    async def pause_node(self) -> None:
        """Let a node stand still until its lease is over for all others, and then go on."""
        node = self._random.choice(self._cluster.nodes)
        self.schedule.append(f"pause {node.slot}")
        leases = await self._cluster.leases()
        try:
            while len(await self._cluster.leases()) >= len(leases):
                self._cluster.pause_node(node)
                await self._turns(2)
        finally:
            self._cluster.resume_node(node)

    async def stall_node(self) -> None:
        """Let a node stand still for less than its lease."""
        node = self._random.choice(self._cluster.nodes)
        self.schedule.append(f"stall {node.slot}")
        self._cluster.pause_node(node)
        try:
            await self._turns(3)
        finally:
            self._cluster.resume_node(node)

    async def cut_clients(self) -> None:
        """Cut all connections of clients and of sidecars."""
        self.schedule.append("cut-clients")
        self._cluster.balancer.cut()

    async def cut_database(self) -> None:
        """End all connections to the database."""
        self.schedule.append("cut-database")
        await self._cluster.cut_database()

    async def restart_database(self) -> None:
        """Kill the database, and start it again."""
        self.schedule.append("restart-database")
        await self._cluster.restart_database()

    async def restart_redis(self) -> None:
        """Kill Redis, and start it again with its data."""
        self.schedule.append("restart-redis")
        await self._cluster.restart_redis(with_data=True)

    async def empty_redis(self) -> None:
        """Kill Redis, and start it again without its data."""
        self.schedule.append("empty-redis")
        await self._cluster.restart_redis(with_data=False)

    async def pause_redis(self) -> None:
        """Let Redis stand still for a moment."""
        self.schedule.append("pause-redis")
        self._cluster.live_faults += 1
        self._cluster.redis.pause()
        try:
            await self._turns(4)
        finally:
            self._cluster.redis.resume()
            self._cluster.live_faults += 1


_KINDS: Mapping[Callable[[Disturbances], Awaitable[None]], int] = MappingProxyType(
    {
        Disturbances.kill_node: 60,
        Disturbances.kill_most: 10,
        Disturbances.pause_node: 3,
        Disturbances.stall_node: 3,
        Disturbances.cut_clients: 6,
        Disturbances.cut_database: 5,
        Disturbances.restart_database: 3,
        Disturbances.restart_redis: 3,
        Disturbances.empty_redis: 2,
        Disturbances.pause_redis: 3,
    }
)
