"""Agents that ask through real sidecars, whose only gateway is the balancer: each request once, under a marker.

Not here: what is allowed (`ledger`), and how a sidecar carries a request (`segue.sidecar`).
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from segue.sidecar.app import SidecarSettings
from segue.sidecar.connector import ConnectorSettings
from segue.sidecar.link_status import LinkTimeouts
from tests.faults.cluster.nodes import TENANTS, Cluster, key_of
from tests.faults.cluster.provider import AGENTS, pieces_of
from tests.faults.tunnels import body_of, is_whole, status_of
from tests.sidecar.sidecars import Running
from tests.sidecar.sidecars import running as sidecar_running

#: Statuses that say that a request went nowhere, and may be sent again.
_REPEATABLE = frozenset({429, 503})
#: Statuses that say nothing of it: an outcome that is unknown, and a provider that seemed to be away.
_UNKNOWN = frozenset({424, 502, 504})
#: Those of them that are only said if something has happened to a gateway.
_NO_REPLY = frozenset({424, 503})
_PATIENCE_S = 60.0
_THINKS_S = 0.02


class ClusterAgent:
    """An agent of a tenant: each of its requests holds those before it."""

    def __init__(self, cluster: Cluster, tenant: str, sidecar: Running, name: str, seed: int) -> None:
        self._cluster = cluster
        self._ledger = cluster.ledger
        self._tenant = tenant
        self._sidecar = sidecar
        self._name = name
        self._random = random.Random(f"{seed} {name}")
        self._said: list[str] = []
        self._faults = -1

    async def ask(self) -> None:
        """Send a request, and judge what came back."""
        exchange = self._ledger.begin_exchange(self._name, self._tenant)
        self._said = [*self._said[-20:], self._random.randbytes(self._random.choice((40, 400, 4000))).hex()]
        body = json.dumps({"messages": self._said, "marker": exchange.marker}).encode()
        before, self._faults = self._faults, self._cluster.node_faults
        async with asyncio.timeout(_PATIENCE_S):
            response = await self._sidecar.post(body, target=f"{AGENTS}/v1/messages")
        calm = (
            before == self._cluster.node_faults
        )  # since the request before: a link that is lost may not be noticed yet
        if not is_whole(response):  # the agent sees that it was cut
            if calm:
                self._ledger.fault(
                    f"the reply to {exchange.marker} was cut, and no gateway was disturbed: {response!r}"
                )
            return
        status = status_of(response)
        if calm and status in _NO_REPLY:
            self._ledger.fault(
                f"{exchange.marker}, forwarded {exchange.runs} times, got {response!r}, and no gateway was disturbed"
            )
        elif status == 200:
            if body_of(response) != b"".join(pieces_of(exchange.marker)) or exchange.runs != 1:
                self._ledger.fault(f"{exchange.marker}, forwarded {exchange.runs} times, has {body_of(response)!r}")
        elif status in _REPEATABLE:
            if exchange.runs:
                self._ledger.fault(f"{exchange.marker} was forwarded, and answered with {response!r}")
        elif status not in _UNKNOWN:
            self._ledger.fault(f"{exchange.marker} was answered with {response!r}")


@asynccontextmanager
async def agents_of(cluster: Cluster, seed: int) -> AsyncIterator[list[Running]]:
    """Run a sidecar with an agent for each tenant around a block."""
    stop = asyncio.Event()
    async with AsyncExitStack() as stack:
        sidecars, running = [], []
        for tenant in TENANTS:
            settings = SidecarSettings(
                gateways=(),
                connector=ConnectorSettings(key=key_of(tenant)),
                timeouts=LinkTimeouts(wait_s=30.0, give_up_s=30.0),
            )
            url = cluster.balancer.url.replace("http", "ws", 1)
            sidecar = await stack.enter_async_context(sidecar_running(url, settings=settings))
            sidecars.append(sidecar)
            for number in range(1):
                agent = ClusterAgent(cluster, tenant, sidecar, f"a{number}", seed)
                running.append(asyncio.create_task(_run(agent, stop)))
        try:
            yield sidecars
            stop.set()
            await asyncio.gather(*running)
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)


async def _run(agent: ClusterAgent, stop: asyncio.Event) -> None:
    while not stop.is_set():
        await agent.ask()
        await asyncio.sleep(_THINKS_S)
