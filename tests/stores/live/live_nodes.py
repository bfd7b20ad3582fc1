"""Nodes that share one Redis, for tests."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from redis.asyncio import Redis

from segue.stores.event_logs import MemoryEventLogs
from segue.stores.live.interface import Notice
from segue.stores.live.live_url import parse_live_url
from segue.stores.live.redis_live import RedisLive


class NodeClock:
    """The clock by which a node counts its lease."""

    def __init__(self) -> None:
        self._ahead_s = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self._ahead_s

    def forward(self, seconds: float) -> None:
        """Set it forward."""
        self._ahead_s += seconds


class TestNode:
    """One node, with what it heard and how often it was told that it may have missed something."""

    __test__ = False

    def __init__(self, url: str, name: str, lease_s: float, *, call_s: float = 2.0, log_bytes: int = 2**20) -> None:
        self.anything = Notice("deleted", "nobody")
        self.heard: list[Notice] = []
        self.lost = 0
        self.epoch_when_lost = b""
        self.began = 0
        self.fail = False
        self._gate: asyncio.Event | None = None
        self._url = url
        self._lease_s = lease_s
        self.clock = NodeClock()
        self.live = RedisLive(
            parse_live_url(url),
            node=name,
            address=f"http://{name}",
            started_at=1.0,
            lease_s=lease_s,
            call_s=call_s,
            monotonic=self.clock,
        )
        self.nodes = self.live.nodes
        self.local = MemoryEventLogs(log_bytes * 4, log_bytes)
        self.logs = self.live.share_logs(self.local, log_bytes=log_bytes, tenant_bytes=log_bytes * 2, clock=lambda: 0.0)
        self.nodes.watch(self._lose)

    async def act(self, notice: Notice) -> None:
        self.began += 1
        if self._gate is not None:
            await self._gate.wait()
        if self.fail:
            raise RuntimeError("it cannot act")
        self.heard.append(notice)

    def act_slowly(self, gate: asyncio.Event) -> None:
        """Act on nothing until the gate is open."""
        self._gate = gate

    async def outlive_lease(self) -> None:
        """End the lease of a node that does not renew it, as time would: by its own clock, and in Redis."""
        self.clock.forward(self._lease_s)
        await end_lease(self._url, self.nodes.id)

    async def _lose(self) -> None:
        self.lost += 1
        self.epoch_when_lost = self.nodes.epoch


@asynccontextmanager
async def live_nodes(
    url: str, *names: str, lease_s: float = 9.0, call_s: float = 2.0, log_bytes: int = 2**20
) -> AsyncIterator[list[TestNode]]:
    """Start nodes, and close them at the end."""
    nodes = [TestNode(url, name, lease_s, call_s=call_s, log_bytes=log_bytes) for name in names]
    try:
        for node in nodes:
            await node.nodes.start(node.act)
        yield nodes
    finally:
        for node in nodes:
            await node.live.aclose()


async def until(reached: Callable[[], bool]) -> None:
    """Wait for what other tasks or other processes do."""
    async with asyncio.timeout(30):
        while not reached():  # noqa: ASYNC110 - a server elsewhere sets no event here
            await asyncio.sleep(0.005)


async def stop(node: TestNode, gate: asyncio.Event, *, seen_by: TestNode) -> None:
    """Have a node stand still until the gate is open, and return when its lease is over."""
    node.act_slowly(gate)
    began = node.began
    telling = asyncio.create_task(seen_by.nodes.tell(node.anything))
    await until(lambda: node.began > began)
    assert not telling.done()
    await node.outlive_lease()
    await telling


async def end_lease(url: str, node: str) -> None:
    """End the lease of a node in Redis, as time would if the node does not renew it."""
    async with Redis.from_url(url) as client:
        assert await client.delete(f"segue:{{nodes}}:lease:{node}") == 1, "it had one"


async def end_places(url: str, node: str) -> None:
    """End the time for which a node has its places, as time would if it does not renew them."""
    async with Redis.from_url(url) as client:
        keys = await client.keys("*:places:*")
        assert keys, "places are had"
        for key in keys:
            if await client.hexists(key, node):
                await client.hset(key, node, "1:0")


async def outlive_loss(url: str) -> None:
    """End the time in which nodes may count on leases that were lost with all data: it is over in Redis."""
    async with Redis.from_url(url) as client:
        assert await client.delete("segue:{nodes}:lost") == 1, "data was lost"
