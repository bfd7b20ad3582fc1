"""What gateways share in one Redis is opened and closed together."""

from __future__ import annotations

import asyncio
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from segue.stores.event_logs import MemoryEventLogs
from segue.stores.live.live_url import parse_live_url
from segue.stores.live.redis_live import RedisLive
from segue.testing.live_conformance import LIVE_CHECKS, LiveParts
from tests.stores.live.live_nodes import live_nodes
from tests.stores.live.redis_servers import RedisServer, discard

pytestmark = pytest.mark.redis


async def test_it_is_available_while_the_lease_holds(live_url: str) -> None:
    async with live_nodes(live_url, "a") as (one,):
        assert one.live.available
        await one.nodes.aclose()
        assert not one.live.available


def free_port() -> int:
    """A cluster needs a port that is known, and another one that is 10,000 above it."""
    while True:
        with socket.socket() as bound:
            bound.bind(("127.0.0.1", 0))
            port = int(bound.getsockname()[1])
        if port < 55_000:
            return port


@pytest.fixture
def cluster() -> Iterator[tuple[RedisServer, int]]:
    """A cluster of one server, which refuses what touches two slots as any cluster does."""
    port = free_port()
    server = RedisServer(Path(tempfile.mkdtemp(prefix="sr")), "--cluster-enabled", "yes", port=port)
    server.start()
    yield server, port
    discard(server)


@pytest.mark.deep
async def test_a_cluster_conforms(cluster: tuple[RedisServer, int]) -> None:
    server, port = cluster
    await server.command("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
    await until_whole(server)
    for number, check in enumerate(LIVE_CHECKS):
        where = parse_live_url(f"redis+cluster://127.0.0.1:{port}?prefix=check{number}")
        live = RedisLive(where, node="a", address="", started_at=1.0, lease_s=1.5)
        logs = live.share_logs(MemoryEventLogs(2**22, 2**20), log_bytes=2**20, tenant_bytes=2**21, clock=lambda: 0.0)
        try:
            await check(LiveParts(nodes=live.nodes, claims=live.claims, locks=live.locks, logs=logs))
        finally:
            await live.aclose()


async def until_whole(server: RedisServer) -> None:
    async with asyncio.timeout(30):
        while "cluster_state:ok" not in str(await server.command("CLUSTER", "INFO")):  # noqa: ASYNC110 - a server elsewhere sets no event here
            await asyncio.sleep(0.02)
