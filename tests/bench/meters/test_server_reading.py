"""A reading of a server tells what its own metrics, its process and its database say."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import aiohttp
import pytest

from segue.bench.arms.model_server import ModelServerSpec, serve_workload
from segue.bench.meters.server_reading import ServerMeter, ServerReading, read_metrics
from segue.bench.workloads.agent_tasks import AgentArm
from segue.bench.workloads.holding import do_work
from segue.bench.workloads.workload import read_workload
from segue.client.client import AsyncClient
from tests.bench.arms.processes import InProcess

NAME = "conversation:2"
COUNTER = """\
# TYPE a_total counter
a_total{x="1"} 2.0
a_total{x="2"} 3.0
# TYPE a_created gauge
a_created{x="1"} 1.7e9
"""
ID = AgentArm("http id", "http", store=True, history="id")


@asynccontextmanager
async def metered_server(store: str, database: Path | None) -> AsyncIterator[tuple[ServerMeter, AsyncClient]]:
    async with (
        serve_workload(ModelServerSpec(workload=NAME, store=store)) as address,
        aiohttp.ClientSession() as session,
        AsyncClient(base_url=f"http://{address[0]}:{address[1]}/v1") as client,
    ):
        yield ServerMeter(InProcess(address), database, session), client


async def test_tells_what_was_parsed_and_what_is_kept() -> None:
    async with metered_server("memory:", None) as (meter, client):
        before = await meter.read()
        assert before == ServerReading(memory_bytes=1_000_000, parsed_bytes=0, state_bytes=0)
        await do_work(client, read_workload(NAME), ID)
        after = await meter.read()
        assert 30_000 < after.parsed_bytes < 100_000  # the first request, and its settings again
        assert 20_000 < after.state_bytes < 60_000  # each item once
        assert await meter.cpu_s() > 0


async def test_what_is_stored_is_kept_on_disk_too(tmp_path: Path) -> None:
    database = tmp_path / "responses.db"
    async with metered_server(f"sqlite:///{database}", database) as (meter, client):
        before = await meter.read()
        await do_work(client, read_workload(NAME), ID)
        added = (await meter.read()).state_bytes - before.state_bytes
    assert 40_000 < added < 150_000
    with closing(sqlite3.connect(database)) as opened:
        assert opened.execute("PRAGMA page_count").fetchone()[0] > 0


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("", {}),
        (COUNTER, {"a": 5.0}),
        ("# TYPE b gauge\nb 7\n", {"b": 7.0}),
    ],
)
def test_adds_up_the_labels_of_a_metric(text: str, read: dict[str, float]) -> None:
    assert read_metrics(text) == read
