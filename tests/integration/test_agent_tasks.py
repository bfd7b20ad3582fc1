"""The agent solves its tasks through the gateway: the same work, whatever carries a conversation and whoever keeps it.

The model is the scripted one, so two runs of a task differ only in how its turns travel. What they leave in the
workspace is compared byte for byte with what the model does without agent, client and gateway.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal, TypeAlias
from urllib.parse import urlsplit

import pytest

from segue.agent.progress import AgentTurn, RunObserver, RunResult
from segue.agent.tasks import TASKS, check_task, make_task, task_prompt
from segue.bench.workloads.agent_tasks import AGENT_ARMS, AgentArm, solve_task
from segue.client.client import AsyncClient
from segue.client.settings import TransportMode
from segue.config import UpstreamConfig
from segue.gateway.app import Gateway
from segue.testing.link import EmulatedLink, linked
from segue.testing.provider import provided
from segue.testing.responses_faults import AgeLimit, Cut
from segue.testing.responses_rules import OPEN_RESPONSES, OPENAI, ServerRules
from segue.testing.responses_server import responding
from segue.testing.task_provider import solving_tasks, task_model
from segue.upstreams.scripted import ScriptedUpstream
from tests.agent_tools import files_of, play
from tests.integration.gateway import listening
from tests.integration.providers import gateway

Dialect: TypeAlias = Literal["chat", "messages", "responses"]
QUICK = "mend-a-failing-build"
REPLAY, _, UNSTORED, _ = AGENT_ARMS
#: Bytes of answers after which the connection is cut: more than the head and the longest event of an answer, since
#: otherwise nothing could ever come through.
CUT_EVERY = dict.fromkeys(TASKS, 6_000) | {QUICK: 3_000, "fix-a-failing-test": 4_000}
every_task = pytest.mark.parametrize(
    "task", [pytest.param(task, marks=() if task == QUICK else pytest.mark.deep) for task in TASKS]
)


def on_arms(*quick: AgentArm) -> pytest.MarkDecorator:
    """Run a test on every arm; all but those named only in the deep run."""
    return pytest.mark.parametrize(
        "arm", [pytest.param(arm, id=arm.name, marks=() if arm in quick else pytest.mark.deep) for arm in AGENT_ARMS]
    )


async def solve(
    client: AsyncClient,
    task: str,
    folder: Path,
    arm: AgentArm,
    *,
    model: str = "scripted",
    observer: RunObserver | None = None,
) -> RunResult:
    """Let the agent solve a task in a new workspace, and check what it leaves."""
    workspace = folder / "workspace"
    make_task(task, workspace)
    result = await solve_task(
        client, workspace, arm, transcript=folder / "transcript.jsonl", model=model, observer=observer
    )
    assert (result.ending, result.reason) == ("completed", "")
    check = await asyncio.to_thread(check_task, workspace)
    assert check.passed, (result.text, check.missing)
    return result


def expected(task: str, folder: Path) -> tuple[dict[str, bytes], int]:
    """Return the files that the model leaves without an agent, and its turns."""
    make_task(task, folder)
    played = play(folder, task_prompt(task))
    return files_of(folder), played.turns


@every_task
async def test_every_arm_leaves_the_same_workspace(task: str, tmp_path: Path) -> None:
    files, turns = await asyncio.to_thread(expected, task, tmp_path / "by hand")
    model = ScriptedUpstream()
    async with listening(model) as (_, url), AsyncClient(base_url=f"{url}/v1") as client:
        for arm in AGENT_ARMS:
            result = await solve(client, task, tmp_path / arm.name, arm)
            assert files_of(tmp_path / arm.name / "workspace") == files, arm.name
            assert len(result.turns) == turns, arm.name
    assert model.started == turns * len(AGENT_ARMS)


@every_task
@on_arms(REPLAY, UNSTORED)
async def test_cut_connections_change_nothing_and_no_turn_runs_twice(task: str, arm: AgentArm, tmp_path: Path) -> None:
    """The connection is reset again and again, after so many bytes of the answers: before, in and after them."""
    files, turns = await asyncio.to_thread(expected, task, tmp_path / "by hand")
    model = ScriptedUpstream()
    async with (
        listening(model) as (_, url),
        cutting(url, every=CUT_EVERY[task]) as link,
        AsyncClient(base_url=f"{link.url}/v1") as client,
    ):
        result = await solve(client, task, tmp_path, arm)
        connections = len(link.connections)
    assert files_of(tmp_path / "workspace") == files
    assert len(result.turns) == turns
    assert model.started == turns
    assert connections >= 3


@asynccontextmanager
async def cutting(url: str, *, every: int) -> AsyncIterator[EmulatedLink]:
    """A way to the gateway that is cut each time when so many bytes of answers have come."""
    parts = urlsplit(url)
    async with linked(parts.hostname or "", parts.port or 0) as link:

        async def cut() -> None:
            while True:
                await link.cut_after(down_bytes=every).wait()

        task = asyncio.create_task(cut())
        try:
            yield link
        finally:
            task.cancel()


@pytest.mark.parametrize("dialect", ["chat", "messages", "responses"])
@every_task
@on_arms(UNSTORED)
async def test_the_model_may_be_behind_any_api(task: str, arm: AgentArm, dialect: Dialect, tmp_path: Path) -> None:
    """The provider sees the whole conversation in its own API."""
    files, turns = await asyncio.to_thread(expected, task, tmp_path / "by hand")
    async with provided(solving_tasks) as provider:
        up = UpstreamConfig(name="double", dialect=dialect, base_url=f"{provider.url}/v1", models=["m"])
        async with gateway(up) as url, AsyncClient(base_url=f"{url}/v1") as client:
            await solve(client, task, tmp_path, arm, model="m")
        assert len(provider.requests) == turns
    assert files_of(tmp_path / "workspace") == files


@pytest.mark.parametrize(
    ("rules", "transport"),
    [
        pytest.param(OPENAI, "websocket", id="openai-websocket"),
        pytest.param(OPEN_RESPONSES, "http", id="open-responses-http"),
        pytest.param(OPENAI, "http", id="openai-http", marks=pytest.mark.deep),
        pytest.param(OPEN_RESPONSES, "websocket", id="open-responses-websocket", marks=pytest.mark.deep),
    ],
)
async def test_other_servers_of_the_api_do_too(rules: ServerRules, transport: TransportMode, tmp_path: Path) -> None:
    """What they lose between two turns is sent again, and nothing runs twice: not even without segue's extensions."""
    files, turns = await asyncio.to_thread(expected, QUICK, tmp_path / "by hand")
    arm = AgentArm("auto", transport, store=False, history="auto")
    async with responding(rules, model=task_model) as server, AsyncClient(base_url=server.base_url) as client:
        if transport == "websocket":
            server.plan(None, Cut(at="end"), None, AgeLimit())
        server.plan(None, None, Cut(at="end", close_code=1000))
        await solve(client, QUICK, tmp_path, arm)
        assert len(server.executions) == turns
    assert files_of(tmp_path / "workspace") == files


class ConnectionCounter(RunObserver):
    """Notes how many WebSockets the gateway has at the end of each turn."""

    def __init__(self, running: Gateway) -> None:
        self._registry = running.services.metrics.registry
        self.seen: set[float | None] = set()

    def turn_finished(self, turn: AgentTurn) -> None:
        self.seen.add(self._registry.get_sample_value("segue_websocket_connections"))


@pytest.mark.deep  # `tests/cli/test_agent.py` has two copies at the same time
async def test_eight_agents_share_one_connection(tmp_path: Path) -> None:
    model = ScriptedUpstream()
    async with listening(model) as (running, url), AsyncClient(base_url=f"{url}/v1") as client:
        counter = ConnectionCounter(running)
        results = await asyncio.gather(
            *(solve(client, QUICK, tmp_path / str(n), UNSTORED, observer=counter) for n in range(8))
        )
    assert counter.seen == {1.0}
    assert model.started == sum(len(result.turns) for result in results)
    first, *others = (files_of(tmp_path / str(n) / "workspace") for n in range(8))
    assert others == [first] * 7
