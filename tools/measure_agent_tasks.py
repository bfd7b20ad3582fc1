"""Counts what the agent's tasks send and receive on each arm, and writes it to docs/results/agent-tasks.json.

    python -m tools.measure_agent_tasks

Bytes are those of the sockets, heads and frames included, without the headers of TCP and IP; they are counted between
the agent and a gateway on this machine, over connections that compress as they would to another machine. Times are not
measured. Not here: the table (`task_tables`).
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

import msgspec

from segue.agent.tasks import check_task, list_tasks, make_task
from segue.bench.workloads.agent_tasks import AGENT_ARMS, AgentArm, solve_task
from segue.client.client import AsyncClient
from segue.config import Config, ServerConfig
from segue.gateway.app import serving
from segue.testing.link import linked
from segue.upstreams.router import ModelRule, Router
from segue.upstreams.scripted import MODEL, ScriptedUpstream

RESULT = Path(__file__).resolve().parents[1] / "docs" / "results" / "agent-tasks.json"


class TaskFigures(msgspec.Struct, frozen=True, kw_only=True):
    """One task on one arm. Payload is the JSON of the requests."""

    task: str
    arm: str
    turns: int
    tool_calls: int
    payload_bytes: int
    sent_bytes: int
    received_bytes: int


async def measure(url: str, task: str, arm: AgentArm, folder: Path) -> TaskFigures:
    """Solve a task over connections of its own."""
    parts = urlsplit(url)
    make_task(task, folder / "workspace")
    async with linked(parts.hostname or "", parts.port or 0) as link:
        async with AsyncClient(base_url=f"{link.url}/v1", deflate=True) as client:
            result = await solve_task(client, folder / "workspace", arm, transcript=folder / "transcript.jsonl")
        sent, received = link.sent_up_bytes, link.down_bytes
    check = check_task(folder / "workspace")
    if not check.passed:
        raise SystemExit(f"{task}, {arm.name}: {'; '.join(check.missing)}")
    return TaskFigures(
        task=task,
        arm=arm.name,
        turns=len(result.turns),
        tool_calls=sum(turn.tool_calls for turn in result.turns),
        payload_bytes=sum(turn.bytes_up_payload for turn in result.turns),
        sent_bytes=sent,
        received_bytes=received,
    )


async def measure_all() -> list[TaskFigures]:
    """Measure every task on every arm."""
    config = Config(server=ServerConfig(port=0, store="memory:"))
    figures = []
    async with serving(config, Router([ModelRule(ScriptedUpstream(), (MODEL,))])) as (_, url):
        for task in list_tasks():
            for arm in AGENT_ARMS:
                with TemporaryDirectory() as folder:
                    figures.append(await measure(url, task, arm, Path(folder)))
                print(msgspec.json.encode(figures[-1]).decode())
    return figures


if __name__ == "__main__":
    RESULT.write_bytes(msgspec.json.format(msgspec.json.encode(asyncio.run(measure_all())), indent=1) + b"\n")
