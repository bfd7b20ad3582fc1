"""Agents that ask through sidecars, whose only gateway is the balancer, and repeat a request as their SDKs do.

A request is repeated, with the same body, if it was lost with the sidecar, or if the answer is of a kind that SDKs
repeat and does not forbid it. Each attempt says how many were before it, so that the provider can tell them apart. Not
here: what is allowed (`ledger`), and how a sidecar carries a request (`segue.sidecar`).
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from tests.faults.cluster.ledger import LedgerExchange
from tests.faults.cluster.nodes import LIMITED, TENANTS, Cluster
from tests.faults.cluster.processes import ClusterProcess
from tests.faults.cluster.provider import AGENTS, pieces_of
from tests.faults.cluster.repetition import repeated
from tests.faults.tunnels import body_of, is_whole, status_of
from tests.sidecar.sidecars import post

#: Statuses that the SDKs of OpenAI and Anthropic answer with a repeat, unless a header line forbids it.
_REPEATED = frozenset({408, 409, 429, 500, 502, 503, 504})
_FORBIDDEN = b"\r\nx-should-retry: false\r\n"
#: What says that nobody knows whether the request was carried out, and is only said if something happened to a gateway.
_UNKNOWN = 424
#: What is said to who has as much under way as it may.
_TOO_MANY = 429
#: More than any request needs: a place of a node that is gone is free when its lease is over.
_ATTEMPTS = 400
_PATIENCE_S = 60.0
_THINKS_S = 0.02
_PAUSE_S = 0.1


class ClusterAgent:
    """An agent of a tenant: each of its requests holds those before it."""

    def __init__(self, cluster: Cluster, tenant: str, name: str, seed: int) -> None:
        self._cluster = cluster
        self._ledger = cluster.ledger
        self._tenant = tenant
        self._sidecar: ClusterProcess = cluster.sidecars[tenant]
        self._name = name
        self._random = random.Random(f"{seed} {tenant} {name}")
        self._said: list[str] = []

    async def ask(self) -> None:
        """Send a request, and repeat it until its outcome is told."""
        exchange = self._ledger.begin_exchange(self._name, self._tenant)
        self._said = [*self._said[-20:], self._random.randbytes(self._random.choice((40, 400, 4000))).hex()]
        body = json.dumps({"messages": self._said, "marker": exchange.marker}).encode()
        for _ in range(_ATTEMPTS):
            if await self._try(exchange, body):
                break
            await asyncio.sleep(_PAUSE_S)
        else:
            self._ledger.fault(f"{exchange.marker} has no outcome after {_ATTEMPTS} attempts")
        await asyncio.sleep(_THINKS_S)

    async def _try(self, exchange: LedgerExchange, body: bytes) -> bool:
        """Send a request once, and judge what comes back; return whether that tells how it ended."""
        attempt = self._ledger.try_exchange(exchange)
        nodes, own = self._cluster.node_faults, self._sidecar.faults
        all_up = self._cluster.all_up and self._sidecar.state == "up"
        request = post(body, target=f"{AGENTS}/v1/messages", retries=attempt)
        async with asyncio.timeout(_PATIENCE_S):
            response = await self._send(request)
        if response is None:
            self._ledger.refuse_attempt(exchange, attempt, "the sidecar is not there")
        if not response or not is_whole(response):  # the agent sees that it was cut, and repeats it
            if all_up and (nodes, own) == (self._cluster.node_faults, self._sidecar.faults):
                self._ledger.fault(f"{exchange.marker} got {response!r}, and nothing was disturbed")
            return False
        return self._judge(exchange, attempt, response, calm=all_up and nodes == self._cluster.node_faults)

    async def _send(self, request: bytes) -> bytes | None:
        """Return all that comes back until the end; None: the sidecar is not there."""
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self._sidecar.port)
        except OSError:
            return None
        received = b""
        try:
            with suppress(OSError):
                writer.write(request)
                while chunk := await reader.read(65536):
                    received += chunk
        finally:
            writer.close()
        return received

    def _judge(self, exchange: LedgerExchange, attempt: int, response: bytes, *, calm: bool) -> bool:
        status = status_of(response)
        if status == 200:
            self._ledger.answer_attempt(exchange, attempt)
            if body_of(response) != b"".join(pieces_of(exchange.marker, attempt)):
                self._ledger.fault(f"{exchange.marker} ({attempt}) has {body_of(response)!r}")
            return True
        if status in _REPEATED and _FORBIDDEN not in response:
            self._ledger.refuse_attempt(exchange, attempt, repr(response))
            if status == _TOO_MANY and self._tenant == LIMITED:
                return False
        elif status != _UNKNOWN:
            self._ledger.fault(f"{exchange.marker} ({attempt}) was answered with {response!r}")
        if calm:
            self._ledger.fault(f"{exchange.marker} ({attempt}) got {response!r}, and no gateway was disturbed")
        exchange.outcome = "unknown" if status == _UNKNOWN else "open"
        return status == _UNKNOWN


@asynccontextmanager
async def agents_of(cluster: Cluster, seed: int) -> AsyncIterator[list[asyncio.Task[None]]]:
    """Run an agent for each tenant around a block."""
    agents = [ClusterAgent(cluster, tenant, "a0", seed) for tenant in TENANTS]
    async with repeated(agent.ask for agent in agents) as running:
        yield running
