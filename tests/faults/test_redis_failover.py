"""A Redis that fails over under load, by a Sentinel and as a cluster: what gateways have acknowledged is not lost.

A claim that Redis had not replicated is lost with its server (docs/decisions/0046); nothing else is.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager

import pytest

from segue.gateway.services import Services
from segue.protocol.ids import ResponseId
from segue.protocol.problems import Refused
from segue.stores.event_logs import MemoryEventLogs
from segue.stores.live.live_url import parse_live_url
from segue.stores.live.redis_live import RedisLive
from segue.stores.live.tenant_keys import tenant_tag
from segue.testing.live_conformance import LIVE_CHECKS, LiveParts
from segue.upstreams.interface import Batch, UpstreamRequest
from segue.upstreams.scripted import ScriptedUpstream
from tests.faults.test_several_nodes import begin, follow, gateways, is_found, keyed
from tests.gateway.parts import TENANT
from tests.stores.live.redis_deployments import Deployment, cluster_deployment, owner_of, sentinel_deployment
from tests.stores.live.redis_servers import RedisServer

pytestmark = [pytest.mark.redis, pytest.mark.deep]

LANES = 4


class Load:
    """Creates with keys at several nodes. A create that is refused is repeated with its key until it is not."""

    def __init__(self, nodes: Sequence[Services]) -> None:
        self.acknowledged: dict[str, ResponseId] = {}
        self.refused = Counter[str]()
        self._nodes = nodes
        self._changed = asyncio.Event()
        self._stopping = False
        self._lanes = [asyncio.create_task(self._run(lane)) for lane in range(LANES)]

    async def reach(self, more: int) -> None:
        goal = len(self.acknowledged) + more
        async with asyncio.timeout(90):
            while len(self.acknowledged) < goal:
                self._changed.clear()
                changed = asyncio.create_task(self._changed.wait())
                await asyncio.wait([changed, *self._lanes], return_when=asyncio.FIRST_COMPLETED)
                for lane in self._lanes:
                    if lane.done():
                        lane.result()

    async def stop(self) -> None:
        self._stopping = True
        await asyncio.gather(*self._lanes)

    async def _run(self, lane: int) -> None:
        turn = 0
        while not self._stopping:
            name = f"{lane}/{turn}"
            node = self._nodes[(lane + turn) % len(self._nodes)]
            try:
                response_id = await begin(node, keyed(name, key=name))
                events = await follow(node, response_id)
            except Refused as refused:
                self.refused[refused.problem.code] += 1
                await asyncio.sleep(0.02)
                continue
            assert events[-1].type == "response.completed"
            self.acknowledged[name] = response_id
            self._changed.set()
            turn += 1


class CountedUpstream(ScriptedUpstream):
    """Counts how often each input came."""

    def __init__(self, runs: Counter[str]) -> None:
        super().__init__()
        self._runs = runs

    def stream(self, request: UpstreamRequest) -> AsyncGenerator[Batch, None]:
        self._runs[json.loads(request.history.input[0])["content"][0]["text"]] += 1
        return super().stream(request)


async def go_through(deployment: Deployment, doomed: RedisServer) -> None:
    """Kill a server under load. What was acknowledged is there, no input ran twice, and deletions work again."""
    runs = Counter[str]()
    async with gateways(deployment.url, CountedUpstream(runs), CountedUpstream(runs), call_s=0.5) as nodes:
        epoch = nodes[0].nodes.epoch
        load = Load(nodes)
        await load.reach(30)
        doomed.kill()
        await load.reach(30)
        await load.stop()
        assert max(runs.values()) == 1
        assert set(load.acknowledged) <= set(runs)
        # Events that the lost server had not replicated are gone; the response is stored, and can be retrieved.
        assert set(load.refused) <= {"store_error", "segue_outcome_unknown", "response_events_gone"}
        for response_id in load.acknowledged.values():
            assert [await is_found(node, response_id) for node in nodes] == [True, True]
        assert [node.nodes.epoch for node in nodes] == [epoch, epoch], "the replica has the data"
        one, another = list(load.acknowledged.values())[-2:]
        assert await nodes[0].executor.delete(TENANT, one)
        assert [await is_found(node, one) for node in nodes] == [False, False]
        assert await is_found(nodes[1], another)


async def test_gateways_go_on_when_a_sentinel_makes_the_replica_the_primary() -> None:
    async with sentinel_deployment() as deployment:
        await go_through(deployment, deployment.servers[0])


async def test_gateways_go_on_when_a_shard_of_a_cluster_fails_over() -> None:
    """The shard of the tenant that is at work, and that of the nodes."""
    for key in (tenant_tag("segue", TENANT), "segue:{nodes}"):
        async with cluster_deployment() as deployment:
            await go_through(deployment, await owner_of(deployment, key))


@pytest.mark.parametrize("deploy", [sentinel_deployment, cluster_deployment])
async def test_each_deployment_conforms(deploy: Callable[[], AbstractAsyncContextManager[Deployment]]) -> None:
    """Each script touches one slot: a cluster refuses any other."""
    async with deploy() as deployment:
        for number, check in enumerate(LIVE_CHECKS):
            where = parse_live_url(f"{deployment.url}?prefix=check{number}")
            live = RedisLive(where, node="a", address="", started_at=1.0, lease_s=1.5)
            local = MemoryEventLogs(2**22, 2**20)
            logs = live.share_logs(local, log_bytes=2**20, tenant_bytes=2**21, clock=lambda: 0.0)
            try:
                await check(LiveParts(nodes=live.nodes, claims=live.claims, locks=live.locks, logs=logs))
            finally:
                await live.aclose()
