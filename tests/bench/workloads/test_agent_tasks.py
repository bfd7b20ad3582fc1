"""The agent's tasks as a workload: one arm after the other does the same work."""

from __future__ import annotations

import json
from pathlib import Path

from segue.agent.progress import AgentTurn, RunObserver
from segue.agent.tasks import check_task, make_task
from segue.bench.workloads.agent_tasks import AGENT_ARMS, solve_task
from segue.client.client import AsyncClient
from segue.config import Config, ServerConfig
from segue.gateway.app import serving
from segue.upstreams.router import ModelRule, Router
from segue.upstreams.scripted import MODEL, ScriptedUpstream

TASK = "mend-a-failing-build"


class Turns(RunObserver):
    def __init__(self) -> None:
        self.finished: list[AgentTurn] = []

    def turn_finished(self, turn: AgentTurn) -> None:
        self.finished.append(turn)


def test_the_arms_are_told_apart_by_their_switches_alone() -> None:
    switches = {(arm.transport, arm.store, arm.history) for arm in AGENT_ARMS}
    assert len(switches) == len({arm.name for arm in AGENT_ARMS}) == len(AGENT_ARMS)


async def test_the_agent_solves_a_task_through_a_server(tmp_path: Path) -> None:
    make_task(TASK, tmp_path / "workspace")
    observer = Turns()
    config = Config(server=ServerConfig(port=0, store="memory:"))
    async with (
        serving(config, Router([ModelRule(ScriptedUpstream(), (MODEL,))])) as (_, url),
        AsyncClient(base_url=f"{url}/v1") as client,
    ):
        result = await solve_task(
            client, tmp_path / "workspace", AGENT_ARMS[-1], transcript=tmp_path / "transcript.jsonl", observer=observer
        )
    assert (result.ending, result.turns) == ("completed", tuple(observer.finished))
    assert check_task(tmp_path / "workspace").passed
    lines = [json.loads(line) for line in (tmp_path / "transcript.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [lines[0]["type"], lines[-1]["type"]] == ["started", "ended"]
