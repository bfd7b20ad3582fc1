"""What is done to the nodes and to what is around them, drawn from a seed: kills, pauses, cut connections, restarts.

Between two disturbances some turns are acknowledged, or a moment passes in which none is. Each is over when what was
disturbed runs again; what clients make of it goes on beside the next one. Not here: how a process is killed
(`processes`).
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from types import MappingProxyType
from typing import Literal, NamedTuple, TypeAlias

from tests.faults.cluster.nodes import LIMITED, TENANTS, Cluster, key_of
from tests.faults.cluster.processes import ClusterProcess
from tests.faults.cluster.requests import client_of
from tests.faults.cluster.sessions import ClusterSession
from tests.faults.gateways import until

#: How long at most is waited for turns between two disturbances.
_MOMENT_S = 0.5


class Disturbances:
    """Disturbs a cluster until so many nodes were killed."""

    def __init__(self, cluster: Cluster, seed: int) -> None:
        self._cluster = cluster
        self._seed = seed
        self._random = random.Random(seed)
        self._disturbed: set[ClusterProcess] = set()
        self.schedule: list[str] = []
        """What was done so far, in order."""

    @property
    def kills(self) -> int:
        """How many nodes were killed."""
        return self.counts()["kill"]

    def counts(self) -> Counter[str]:
        """Return how often each kind of disturbance came."""
        return Counter(one.partition(" ")[0] for one in self.schedule)

    async def run(self, kills: int, watch: Callable[[], None]) -> None:
        """Disturb, and call `watch` after each; the end is when all nodes run again."""
        while self.kills < kills:
            await self._draw(_KINDS)(self)
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

    def _draw(self, kinds: Mapping[_Disturb, _Kind]) -> _Disturb:
        (drawn,) = self._random.choices(tuple(kinds), [kind.weight for kind in kinds.values()])
        return drawn

    async def _turns(self, count: int) -> None:
        """Wait until so many more turns are acknowledged, or for a moment."""
        ledger = self._cluster.ledger
        goal = ledger.acknowledged + count
        with suppress(TimeoutError):
            async with asyncio.timeout(_MOMENT_S):
                await until(lambda: ledger.acknowledged >= goal)

    # --- what is done ------------------------------------------------------------------------------------------------

    @contextmanager
    def _some(self, processes: Sequence[ClusterProcess], count: int = 1) -> Iterator[Sequence[ClusterProcess]]:
        """Choose so many that nothing else is done to, until the end of the block."""
        chosen = self._random.sample([one for one in processes if one not in self._disturbed], count)
        self._disturbed.update(chosen)
        try:
            yield chosen
        finally:
            self._disturbed.difference_update(chosen)

    async def kill_node(self) -> None:
        """Kill a node; it is started again at once."""
        await self._kill(1)

    async def kill_most(self) -> None:
        """Kill all nodes but one at the same moment."""
        await self._kill(2)

    async def _kill(self, count: int) -> None:
        with self._some(self._cluster.nodes, count) as nodes:
            self.schedule += [f"kill {node.name}" for node in nodes]
            await asyncio.gather(*(self._cluster.restart_node(node) for node in nodes))

    async def kill_sidecar(self) -> None:
        """Kill the sidecar of a tenant; it is started again at once."""
        with self._some(tuple(self._cluster.sidecars.values())) as [sidecar]:
            self.schedule.append(f"kill-sidecar {sidecar.name}")
            await self._cluster.restart_sidecar(sidecar)

    async def pause_node(self) -> None:
        """Let a node stand still until its lease is over for all others, and then go on."""
        with self._some(self._cluster.nodes) as [node]:
            self.schedule.append(f"pause {node.name}")
            await self._pause_past_lease(node)

    async def pause_in_turn(self) -> None:
        """The same in the middle of a turn on a WebSocket. Its model has ended before the node goes on, or after."""
        tenant = self._random.choice([tenant for tenant in TENANTS if tenant != LIMITED])
        with self._some(self._cluster.nodes) as [node]:
            self.schedule.append(f"pause-in-turn {node.name}")
            async with client_of(node.url, key_of(tenant)) as client, client.socket() as socket:
                session = ClusterSession(self._cluster, tenant, client, f"w{len(self.schedule)}", self._seed)
                turn, body = session.begin()
                gate = self._cluster.model.hold(turn.marker)
                asking = asyncio.create_task(socket.turn(body))
                await until(lambda: turn.runs > 0 or asking.done())
                if self._random.random() < 0.5:
                    asyncio.get_running_loop().call_later(_MOMENT_S, gate.set)
                await self._pause_past_lease(node)
                gate.set()
                told = await asking
                session.settle(turn, told)
                await session.rest_after(turn, told)

    async def _pause_past_lease(self, node: ClusterProcess) -> None:
        lease = await self._cluster.lease_of(node)
        node.pause()
        try:
            while lease is not None and await self._cluster.has_lease(lease):
                await self._turns(2)
        finally:
            node.resume()

    async def stall_node(self) -> None:
        """Let a node stand still for less than its lease."""
        with self._some(self._cluster.nodes) as [node]:
            self.schedule.append(f"stall {node.name}")
            node.pause()
            try:
                await self._turns(3)
            finally:
                node.resume()

    async def cut_clients(self) -> None:
        """Cut all connections of clients and of sidecars."""
        self.schedule.append("cut-clients")
        self._cluster.balancer.cut()

    async def end_database_sessions(self) -> None:
        """Let the database end the sessions of all nodes."""
        self.schedule.append("end-database-sessions")
        await self._cluster.end_database_sessions()

    async def cut_database(self) -> None:
        """Reset all connections of nodes to the database: what was sent may have been done, or may not."""
        self.schedule.append("cut-database")
        self._cluster.database.cut()

    async def stall_database(self) -> None:
        """Let nothing move between the nodes and the database for a moment."""
        self.schedule.append("stall-database")
        with self._cluster.database.silenced():
            await self._turns(2)

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
        self._cluster.note_live_fault()
        self._cluster.redis.pause()
        try:
            await self._turns(4)
        finally:
            self._cluster.redis.resume()
            self._cluster.note_live_fault()

    async def disturb_two(self) -> None:
        """Do two of these at the same time, of different families."""
        first = self._draw(_SINGLE)
        second = self._draw({one: kind for one, kind in _SINGLE.items() if kind.family != _SINGLE[first].family})
        self.schedule.append("two-at-once")
        await asyncio.gather(first(self), second(self))


_Disturb: TypeAlias = Callable[[Disturbances], Awaitable[None]]


class _Kind(NamedTuple):
    weight: int
    family: Literal["nodes", "sidecars", "clients", "database", "redis"]


#: What is done, and how often in comparison.
_SINGLE: Mapping[_Disturb, _Kind] = MappingProxyType(
    {
        Disturbances.kill_node: _Kind(60, "nodes"),
        Disturbances.kill_most: _Kind(10, "nodes"),
        Disturbances.pause_node: _Kind(3, "nodes"),
        Disturbances.pause_in_turn: _Kind(3, "nodes"),
        Disturbances.stall_node: _Kind(3, "nodes"),
        Disturbances.kill_sidecar: _Kind(10, "sidecars"),
        Disturbances.cut_clients: _Kind(6, "clients"),
        Disturbances.end_database_sessions: _Kind(3, "database"),
        Disturbances.cut_database: _Kind(6, "database"),
        Disturbances.stall_database: _Kind(2, "database"),
        Disturbances.restart_database: _Kind(3, "database"),
        Disturbances.restart_redis: _Kind(3, "redis"),
        Disturbances.empty_redis: _Kind(2, "redis"),
        Disturbances.pause_redis: _Kind(3, "redis"),
    }
)
_KINDS: Mapping[_Disturb, _Kind] = MappingProxyType({**_SINGLE, Disturbances.disturb_two: _Kind(10, "nodes")})
