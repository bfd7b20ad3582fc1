"""A workload is done to its end through any server, and work that went otherwise is noticed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from segue.agent.progress import Ending, RunResult
from segue.agent.tasks import TaskCheck
from segue.bench.arms.model_server import ModelServerSpec, serve_workload
from segue.bench.workloads import holding
from segue.bench.workloads.agent_tasks import AgentArm
from segue.bench.workloads.conversations import make_conversation
from segue.bench.workloads.holding import WorkloadError, do_work
from segue.bench.workloads.workload import ConversationWorkload, TaskWorkload, read_workload
from segue.client.client import AsyncClient
from segue.config import Config, ServerConfig
from segue.gateway.app import serving
from segue.testing.scripted import ScriptedTurn, ScriptedUpstream, Truncate, call, say
from segue.upstreams.router import ModelRule, Router

ARM = AgentArm("http replay", "http", store=False, history="replay")
WORKLOAD = ConversationWorkload("conversation:2")


@asynccontextmanager
async def client_of(*script: ScriptedTurn) -> AsyncIterator[AsyncClient]:
    """Make a client of a gateway whose model plays a script."""
    router = Router([ModelRule(ScriptedUpstream(script), ("scripted",))])
    async with (
        serving(Config(server=ServerConfig(port=0, store="memory:")), router) as (_, url),
        AsyncClient(base_url=f"{url}/v1") as client,
    ):
        yield client


async def test_holds_a_conversation_and_lets_tools_take_their_time(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []

    async def wait(seconds: float) -> None:
        waited.append(seconds)

    monkeypatch.setattr(holding, "sleep", wait)
    async with (
        serve_workload(ModelServerSpec(workload=WORKLOAD.name)) as (host, port),
        AsyncClient(base_url=f"http://{host}:{port}/v1") as client,
    ):
        await do_work(client, WORKLOAD, ARM)
        assert waited == []
        await do_work(client, WORKLOAD, ARM, wait_for_tools=True)
    first, _ = make_conversation(WORKLOAD.name).turns
    assert waited == [max(one.seconds for one in first.calls), 0.0]


@pytest.mark.untraced
async def test_the_agent_does_its_task() -> None:
    async with (
        serve_workload(ModelServerSpec(workload="mend-a-failing-build")) as (host, port),
        AsyncClient(base_url=f"http://{host}:{port}/v1") as client,
    ):
        await do_work(client, read_workload("mend-a-failing-build"), ARM)


async def test_notices_a_conversation_that_went_otherwise() -> None:
    first, _ = make_conversation(WORKLOAD.name).turns
    (made,) = first.calls
    for turn, told in (
        (ScriptedTurn((Truncate(),)), "ended as incomplete"),
        (say(first.text), "other calls"),
        (call(made.call_id, made.name, made.arguments), "something else"),
    ):
        async with client_of(turn) as client:
            with pytest.raises(WorkloadError, match=told):
                await do_work(client, WORKLOAD, ARM)


@pytest.mark.parametrize(
    ("ending", "missing", "told"), [("turn_limit", (), "ended as turn_limit"), ("completed", ("x",), "1 of its checks")]
)
async def test_notices_a_task_that_is_not_done(
    ending: Ending, missing: tuple[str, ...], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def solve(*_: object, **__: object) -> RunResult:
        return RunResult(ending=ending, turns=(), time_s=0.0, reason="it is late")

    def check(_: Path) -> TaskCheck:
        return TaskCheck("t", not missing, missing)

    monkeypatch.setattr(holding, "solve_task", solve)
    monkeypatch.setattr(holding, "check_task", check)
    async with client_of() as client:
        with pytest.raises(WorkloadError, match=told):
            await do_work(client, TaskWorkload("mend-a-failing-build"), ARM)
