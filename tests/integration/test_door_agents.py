"""Real agents at the gateway's own doors: a whole task each, with a model behind an upstream of every API.

Claude Code uses message threads if it is told to.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec
import pytest

from segue.bench.agent_task import agent_task
from segue.config import Config, ServerConfig, UpstreamConfig
from segue.gateway.app import serving
from tests.integration.door_agents import AGENTS, run_agent

UPSTREAMS: Mapping[str, UpstreamConfig] = {
    "chat": UpstreamConfig(name="chat", dialect="chat", models=["scripted-*"]),
    "messages": UpstreamConfig(name="messages", dialect="messages", models=["scripted-*"]),
    "responses": UpstreamConfig(name="responses", dialect="responses", models=["scripted-*"]),
    "websocket": UpstreamConfig(name="websocket", dialect="responses", models=["scripted-*"], transport="websocket"),
}


@pytest.mark.deep
@pytest.mark.parametrize("upstream", UPSTREAMS)
@pytest.mark.parametrize("agent", AGENTS)
async def test_a_real_agent_solves_its_task(agent: str, upstream: str, tmp_path: Path) -> None:
    async with agent_task("fix-a-failing-test") as task:
        behind = msgspec.structs.replace(UPSTREAMS[upstream], base_url=f"{task.url}/v1")
        async with serving(Config(server=ServerConfig(port=0, store="memory:"), upstream=[behind])) as (gateway, url):
            status, said = await run_agent(AGENTS[agent](url), tmp_path, task.folder, task.command(["{prompt}"]))
            sample = gateway.services.metrics.registry.get_sample_value
            continued = sample("segue_continuation_hits_total", {"level": "connection"}) or 0
        outcome = task.outcome()
    assert status == 0, said[-2000:]
    assert outcome.done, outcome.sentence
    assert outcome.repeated == 0
    assert (continued > 0) is (agent == "claude-threads")
