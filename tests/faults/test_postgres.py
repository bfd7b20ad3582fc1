"""A store in PostgreSQL whose server is killed under load, or replaced by its replica: no acknowledged turn is lost.

These servers wait for their disk. Not here: connections that are cut (`tests/stores/postgres`).
"""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest
from aiohttp import ClientSession

from segue.config import Config, ServerConfig
from segue.gateway.app import serving
from segue.stores.postgres.postgres_url import parse_postgres_url
from segue.stores.postgres.store import PostgresStore
from segue.testing.store_samples import ALICE, NOW, link_of, sample_id, sample_record
from segue.upstreams.router import ModelRule, Router
from segue.upstreams.scripted import ScriptedUpstream
from tests.loop_clock import LoopClock
from tests.postgres_server import QUICK, PostgresServer, server_folder

pytestmark = pytest.mark.postgres

LANES = 6
DURABLE = {**QUICK, "fsync": "on"}


class Load:
    """Appends chains from several sides at once, and notes what was acknowledged."""

    def __init__(self, stores: list[PostgresStore]) -> None:
        self._stores = stores
        self.acknowledged: dict[int, int] = dict.fromkeys(range(LANES), 0)
        self._changed = asyncio.Event()
        self._stopping = False
        self._lanes = [asyncio.create_task(self._append(lane)) for lane in range(LANES)]

    async def reach(self, more: int) -> None:
        """Wait until so many more turns are acknowledged."""
        goal = sum(self.acknowledged.values()) + more
        while sum(self.acknowledged.values()) < goal:
            self._changed.clear()
            changed = asyncio.create_task(self._changed.wait())
            await asyncio.wait([changed, *self._lanes], return_when=asyncio.FIRST_COMPLETED)
            for lane in self._lanes:
                if lane.done():
                    lane.result()

    async def stop(self) -> None:
        self._stopping = True
        await asyncio.gather(*self._lanes)

    async def _append(self, lane: int) -> None:
        store = self._stores[lane % len(self._stores)]
        while not self._stopping:
            depth = self.acknowledged[lane]
            await store.append(sample_record(f"{lane}/{depth}", f"{lane}/{depth - 1}" if depth else None))
            self.acknowledged[lane] = depth + 1
            self._changed.set()

    async def check(self, store: PostgresStore) -> None:
        """Each lane has exactly what was acknowledged, and nothing twice."""
        for lane, depth in self.acknowledged.items():
            names = [f"{lane}/{n}" for n in range(depth)]
            links = [link_of(sample_record(n, p)) for n, p in zip(names, [None, *names], strict=False)]
            assert await store.chain(ALICE, sample_id(names[-1]), NOW) == links
        assert (await store.size()).records == sum(self.acknowledged.values())


@pytest.fixture
def folder() -> Iterator[Path]:
    with server_folder() as found:
        yield found


async def in_thread(function: object) -> None:
    assert callable(function)
    await asyncio.to_thread(function)


async def test_gateways_share_a_database_that_stops_and_comes_back(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One continues what another has stored. Without the server turns fail as such, and no gateway says it is ready."""
    clock = LoopClock(monkeypatch)
    with PostgresServer(folder) as server:
        config = Config(server=ServerConfig(port=0, store=server.url("postgres", wait_s="20")))
        async with (
            serving(config, Router([ModelRule(ScriptedUpstream(), ("*",))])) as (_, first),
            serving(config, Router([ModelRule(ScriptedUpstream(), ("*",))])) as (_, second),
            ClientSession() as client,
        ):

            async def ask(url: str, **fields: object) -> tuple[int, dict[str, object]]:
                body = {"model": "m", "input": "hello", **fields}
                async with client.post(f"{url}/v1/responses", json=body) as reply:
                    return reply.status, await reply.json()

            async def is_ready(url: str) -> int:
                async with client.get(f"{url}/readyz") as reply:
                    return reply.status

            _, root = await ask(first)
            status, turn = await ask(second, previous_response_id=root["id"])
            assert (status, turn["status"]) == (200, "completed")
            assert [await is_ready(url) for url in (first, second)] == [200, 200]
            server.stop(signal.SIGKILL)
            status, refused = await clock.hurry(ask(first))
            assert isinstance(error := refused["error"], dict)
            assert (status, error["code"]) == (400, "store_error"), "what is not stored is not completed"
            assert await clock.hurry(is_ready(second)) == 503
            server.start()
            status, turn = await ask(second, previous_response_id=turn["id"])
            assert (status, turn["status"], await is_ready(first)) == (200, "completed", 200)


@pytest.mark.parametrize("kills", [1, pytest.param(6, marks=pytest.mark.deep)])
async def test_a_server_that_is_killed_under_load_loses_nothing(folder: Path, kills: int) -> None:
    """Killed with all its processes, and started again, while appends run: they wait, and none fails."""
    server, seeds = PostgresServer(folder, DURABLE), random.Random(kills)
    server.create()
    server.start()
    url = parse_postgres_url(server.url("postgres", wait_s="60"))
    stores = [await PostgresStore.open(url) for _ in range(2)]
    load = Load(stores)
    for _ in range(kills):
        await load.reach(seeds.randrange(20, 120))
        await asyncio.to_thread(server.stop, signal.SIGKILL)
        await in_thread(server.start)
    await load.reach(20)
    await load.stop()
    await load.check(stores[0])
    for store in stores:
        await store.aclose()
    server.stop()


@pytest.mark.deep
async def test_a_failover_to_a_synchronous_replica_loses_nothing(folder: Path) -> None:
    """The primary is killed for good under load, and its replica is promoted: the URL names both."""
    with server_folder() as other:
        settings = {**DURABLE, "wal_level": "replica", "max_wal_senders": "4"}
        primary = PostgresServer(folder, {**settings, "synchronous_standby_names": "*"})
        replica = PostgresServer(other, {**settings, "hot_standby": "on"})
        primary.create()
        primary.start()
        replica.run("pg_basebackup", "-h", folder, "-U", "segue", "-D", replica.data, "-R", "-X", "stream")
        replica.start()
        hosts = quote(f"{folder},{other}")
        url = parse_postgres_url(f"postgresql://segue@/postgres?host={hosts}&wait_s=60")
        stores = [await PostgresStore.open(url) for _ in range(2)]
        load = Load(stores)
        await load.reach(300)
        await asyncio.to_thread(primary.stop, signal.SIGKILL)
        with psycopg.connect(replica.url("postgres"), autocommit=True) as connection:
            assert connection.execute("SELECT pg_promote()").fetchone() == (True,)
        await load.reach(200)
        await load.stop()
        await load.check(stores[0])
        for store in stores:
            await store.aclose()
        replica.stop()
