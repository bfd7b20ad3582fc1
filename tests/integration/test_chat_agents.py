"""Real agents at the door of Chat Completions: a whole task each, with a model behind an upstream of every API.

They run where they are installed: `pi` (1.6) and `opencode` (1.18) on the path.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from segue.bench.agent_task import agent_task
from segue.config import Config, ServerConfig, UpstreamConfig
from segue.gateway.app import serving
from tests.integration.providers import Api

Settings: TypeAlias = dict[str, Any]
MODEL = "scripted-one"
PATIENCE_S = 240.0
_OFFLINE = {"PI_OFFLINE": "1", "OPENCODE_DISABLE_MODELS_FETCH": "1", "OPENCODE_DISABLE_AUTOUPDATE": "1"}


def pi(url: str) -> tuple[str, Settings, list[str]]:
    """Where pi has its settings, what they are, and how it is told what to do."""
    cost = {"input": 0, "output": 0, "cacheRead": 0, "cacheWrite": 0}
    model = {"id": MODEL, "name": MODEL, "reasoning": False, "input": ["text"], "cost": cost}
    model |= {"contextWindow": 128_000, "maxTokens": 8000}
    provider = {"baseUrl": f"{url}/v1", "apiKey": "x", "api": "openai-completions", "models": [model]}
    command = ["--provider", "segue", "--model", MODEL, "--mode", "json", "-p"]
    return ".pi/agent/models.json", {"providers": {"segue": provider}}, command


def opencode(url: str) -> tuple[str, Settings, list[str]]:
    """The same for opencode."""
    options = {"baseURL": f"{url}/v1", "apiKey": "x"}
    provider = {"npm": "@ai-sdk/openai-compatible", "name": "segue", "options": options}
    provider |= {"models": {MODEL: {"name": MODEL}}}
    return ".config/opencode/opencode.json", {"provider": {"segue": provider}}, ["run", "-m", f"segue/{MODEL}"]


AGENTS: dict[str, Callable[[str], tuple[str, Settings, list[str]]]] = {"pi": pi, "opencode": opencode}


@pytest.mark.deep
@pytest.mark.parametrize("api", ["chat", "messages", "responses"])
@pytest.mark.parametrize("agent", AGENTS)
async def test_a_real_agent_solves_its_task(agent: str, api: Api, tmp_path: Path) -> None:
    program = shutil.which(agent)
    if program is None:
        pytest.skip(f"{agent} is not installed")
    async with agent_task("fix-a-failing-test") as task:
        upstream = UpstreamConfig(name=api, dialect=api, models=["scripted-*"], base_url=f"{task.url}/v1")
        config = Config(server=ServerConfig(port=0, store="memory:"), upstream=[upstream])
        async with serving(config) as (_, url):
            path, settings, command = AGENTS[agent](url)
            (tmp_path / path).parent.mkdir(parents=True)
            (tmp_path / path).write_text(json.dumps(settings), encoding="utf-8")
            kept = {name: value for name, value in os.environ.items() if not name.startswith(("OPENAI", "XDG_"))}
            running = await asyncio.create_subprocess_exec(
                program,
                *command,
                *task.command(["{prompt}"]),
                cwd=task.folder,
                env={**kept, **_OFFLINE, "HOME": str(tmp_path), "PWD": str(task.folder)},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
            )
            said, _ = await asyncio.wait_for(running.communicate(), PATIENCE_S)
        outcome = task.outcome()
    assert running.returncode == 0, said.decode()[-2000:]
    assert outcome.done, outcome.sentence
    assert outcome.repeated == 0
