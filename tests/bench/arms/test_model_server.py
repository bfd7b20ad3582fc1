"""The server of the arms answers by its own API, and through its own tunnel."""

from __future__ import annotations

import sys

import msgspec
import pytest

from segue.bench.arms import model_server
from segue.bench.arms.ends import SidecarSpec, run_sidecar
from segue.bench.arms.model_server import ModelServerSpec, serve_workload
from segue.bench.arms.server import ProcessUsage, Ready
from segue.bench.workloads.agent_tasks import AgentArm
from segue.bench.workloads.holding import do_work
from segue.bench.workloads.workload import read_workload
from segue.client.client import AsyncClient
from tests.bench.arms.processes import with_stdin

ARM = AgentArm("http replay", "http", store=False, history="replay")
NAME = "conversation:2"


@pytest.mark.parametrize("tunnelled", [False, True])
async def test_does_the_work(*, tunnelled: bool) -> None:
    async with serve_workload(ModelServerSpec(workload=NAME)) as (host, port):
        if not tunnelled:
            async with AsyncClient(base_url=f"http://{host}:{port}/v1") as client:
                await do_work(client, read_workload(NAME), ARM)
            return
        async with (
            run_sidecar(SidecarSpec(f"http://{host}:{port}")) as (near_host, near_port),
            AsyncClient(base_url=f"http://{near_host}:{near_port}/v1") as client,
        ):
            await do_work(client, read_workload(NAME), ARM)


def test_the_program_serves_what_its_argument_says(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = msgspec.json.encode(ModelServerSpec(workload=NAME, tokens_s=65.0))
    monkeypatch.setattr(sys, "argv", ["model_server", spec.decode()])
    printed = with_stdin(monkeypatch, b"usage\n")
    model_server.main()
    ready, usage = printed.getvalue().splitlines()
    assert msgspec.json.decode(ready, type=Ready).port > 0
    assert msgspec.json.decode(usage, type=ProcessUsage).cpu_ns > 0
