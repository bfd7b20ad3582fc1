"""What nodes say of themselves while their parts fail: real processes over a real PostgreSQL and a real Redis.

Not here: what becomes of turns meanwhile (`test_cluster_kills`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import psycopg
import pytest

from tests.faults.cluster.nodes import OPERATOR, Cluster, clustered, key_of
from tests.faults.cluster.processes import ClusterProcess
from tests.stores.live.redis_servers import PROGRAM

pytestmark = [
    pytest.mark.postgres,
    pytest.mark.redis,
    pytest.mark.deep,
    pytest.mark.skipif(PROGRAM is None, reason="no redis-server"),
]

READY = {"status": "ready", "store": "in use", "live": "in use"}
SHARED = ["idempotency keys", "background turns", "deletions"]
_PATIENCE_S = 30.0


class Operator:
    """Asks single nodes, as an operator does; a turn is asked for as a tenant does."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def get(self, node: ClusterProcess, path: str, key: str = OPERATOR) -> tuple[int, Any]:
        """Return the status of an answer, and what it says."""
        async with self._session.get(f"{node.url}{path}", headers={"Authorization": f"Bearer {key}"}) as reply:
            return reply.status, await reply.json()

    async def health(self, node: ClusterProcess) -> tuple[int, dict[str, Any]]:
        """Return how a node is, without the number of its records."""
        status, said = await self.get(node, "/readyz")
        said.pop("records", None)
        return status, said

    async def nodes(self, node: ClusterProcess) -> dict[str, bool]:
        """Return the addresses of the nodes that live, as one of them knows them, and which are leaving."""
        status, said = await self.get(node, "/segue/nodes")
        assert status == 200, said
        return {one["address"]: one["draining"] for one in said["data"]}

    async def turn(self, node: ClusterProcess, *, key: str | None = None, **fields: object) -> int:
        """Run a turn; return the status of its answer."""
        headers = {"Authorization": f"Bearer {key_of('ada')}"}
        if key is not None:
            headers["Idempotency-Key"] = key
        body = {"model": "s", "input": "hello", **fields}
        async with self._session.post(f"{node.url}/v1/responses", json=body, headers=headers) as reply:
            await reply.read()
            return reply.status


async def eventually(look: Callable[[], Awaitable[object]], expected: object) -> None:
    """Wait until something is as it should be; only a failing test waits long."""
    found: object = None
    try:
        async with asyncio.timeout(_PATIENCE_S):
            while (found := await look()) != expected:  # noqa: ASYNC110 - other processes set no event of ours
                await asyncio.sleep(0.05)
    except TimeoutError:
        assert found == expected


async def restart_with(cluster: Cluster, server: str) -> None:
    """Restart all nodes with a model that answers by itself, and with more settings of `[server]`."""
    file = cluster.folder / "segue.toml"
    text = file.read_text().replace("[server]\n", f"[server]\n{server}\n")
    file.write_text(f'{text}[[upstream]]\nname = "s"\ndialect = "scripted"\nmodels = ["s"]\n')
    for node in cluster.nodes:
        await cluster.restart_node(node)


async def test_nodes_say_which_part_is_ill_and_whether_they_serve(tmp_path: Path) -> None:
    async with clustered(tmp_path, seed=1) as cluster, aiohttp.ClientSession() as session:
        await restart_with(cluster, "drain_delay_s = 2.0")
        operator, (one, two, three) = Operator(session), cluster.nodes
        addresses = {node.url: False for node in cluster.nodes}
        await eventually(lambda: operator.nodes(one), addresses)
        for node in cluster.nodes:
            await eventually(partial(operator.health, node), (200, READY))
            assert await operator.nodes(node) == addresses, "all see the same nodes"
        await _nothing_secret_is_shown(operator, one)
        await _redis_goes_and_comes(cluster, operator, one)
        await _postgres_goes_and_comes(cluster, operator, one)
        await _postgres_only_reads(cluster, operator, one)
        two.terminate()
        await eventually(lambda: operator.nodes(one), {**addresses, two.url: True})
        assert await operator.health(two) == (503, {"status": "draining"})
        await eventually(lambda: operator.nodes(one), {one.url: False, three.url: False})
        await three.kill()
        await eventually(lambda: operator.nodes(one), {one.url: False})


async def _nothing_secret_is_shown(operator: Operator, node: ClusterProcess) -> None:
    status, refused = await operator.get(node, "/segue/nodes", key_of("ada"))
    assert (status, refused["error"]["code"]) == (403, "forbidden_peer"), "the key of a tenant is no operator's"
    _, said = await operator.get(node, "/segue/nodes")
    assert {frozenset(shown) for shown in said["data"]} == {
        frozenset({"id", "address", "started_at", "draining", "token", "this"})
    }


async def _redis_goes_and_comes(cluster: Cluster, operator: Operator, node: ClusterProcess) -> None:
    cluster.redis.kill()
    await eventually(lambda: operator.health(node), (200, {**READY, "live": "away", "refuses": SHARED}))
    assert (await operator.get(node, "/segue/nodes"))[0] == 503
    assert await operator.turn(node) == 200, "stored turns work without it"
    assert await operator.turn(node, key="k") == 503
    await asyncio.to_thread(cluster.redis.start)
    await eventually(lambda: operator.health(node), (200, READY))
    assert await operator.turn(node, key="k") == 200


async def _postgres_goes_and_comes(cluster: Cluster, operator: Operator, node: ClusterProcess) -> None:
    await asyncio.to_thread(cluster.postgres.stop)
    away = {**READY, "status": "unready", "store": "away", "refuses": ["stored turns"]}
    await eventually(lambda: operator.health(node), (503, away))
    assert await operator.turn(node, store=False) == 200, "it need not be stored"
    await asyncio.to_thread(cluster.postgres.start)
    await eventually(lambda: operator.health(node), (200, READY))
    assert await operator.turn(node) == 200


async def _postgres_only_reads(cluster: Cluster, operator: Operator, node: ClusterProcess) -> None:
    """As a replica that nobody has made the primary yet."""
    _let_write(cluster, "off")
    status, said = await operator.health(node)
    assert (status, said["status"], said["refuses"]) == (503, "unready", ["stored turns"])
    assert said["store"] in {"not writable", "away"}, "its connections may be those of before"
    assert await operator.turn(node, store=False) == 200
    _let_write(cluster, "on")
    await eventually(lambda: operator.health(node), (200, READY))


def _let_write(cluster: Cluster, allowed: str) -> None:
    read_only = {"on": "off", "off": "on"}[allowed]
    with psycopg.connect(cluster.postgres.url("postgres"), autocommit=True) as connection:
        connection.execute(f"ALTER SYSTEM SET default_transaction_read_only = {read_only}".encode())
        connection.execute("SELECT pg_reload_conf()")
