"""Real agents at the gateway's own doors: a whole task each, with a model behind an upstream of every API.

They run where they are installed: `claude` (2.1), `opencode` (1.18) and `pi` (1.6) on the path. Claude Code uses
message threads if it is told to.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from segue.bench.agent_task import agent_task
from segue.config import Config, ServerConfig, UpstreamConfig
from segue.gateway.app import serving

MODEL = "scripted-one"
PATIENCE_S = 240.0
UPSTREAMS: Mapping[str, UpstreamConfig] = {
    "chat": UpstreamConfig(name="chat", dialect="chat", models=["scripted-*"]),
    "messages": UpstreamConfig(name="messages", dialect="messages", models=["scripted-*"]),
    "responses": UpstreamConfig(name="responses", dialect="responses", models=["scripted-*"]),
    "websocket": UpstreamConfig(name="websocket", dialect="responses", models=["scripted-*"], transport="websocket"),
}
_KEPT_OUT = ("OPENAI", "ANTHROPIC", "CLAUDE", "XDG_")


class DoorAgent(NamedTuple):
    """How an agent is run: what it is told, its settings (a path in its home, and JSON), and its environment."""

    program: str
    command: Sequence[str]
    settings: tuple[str, Mapping[str, Any]] | None = None
    environ: Mapping[str, str] = {}


def pi(api: str, base: str) -> Callable[[str], DoorAgent]:
    """pi at one door."""

    def made(url: str) -> DoorAgent:
        cost = {"input": 0, "output": 0, "cacheRead": 0, "cacheWrite": 0}
        model = {"id": MODEL, "name": MODEL, "reasoning": False, "input": ["text"], "cost": cost}
        model |= {"contextWindow": 128_000, "maxTokens": 8000}
        provider = {"baseUrl": f"{url}{base}", "apiKey": "x", "api": api, "models": [model]}
        command = ("--provider", "segue", "--model", MODEL, "--mode", "json", "-p")
        settings = (".pi/agent/models.json", {"providers": {"segue": provider}})
        return DoorAgent("pi", command, settings, {"PI_OFFLINE": "1"})

    return made


def opencode(url: str) -> DoorAgent:
    """opencode at the door of Chat Completions."""
    options = {"baseURL": f"{url}/v1", "apiKey": "x"}
    provider = {"npm": "@ai-sdk/openai-compatible", "name": "segue", "options": options}
    provider |= {"models": {MODEL: {"name": MODEL}}}
    settings = (".config/opencode/opencode.json", {"provider": {"segue": provider}})
    environ = {"OPENCODE_DISABLE_MODELS_FETCH": "1", "OPENCODE_DISABLE_AUTOUPDATE": "1"}
    return DoorAgent("opencode", ("run", "-m", f"segue/{MODEL}"), settings, environ)


def claude(*, threads: bool) -> Callable[[str], DoorAgent]:
    """Claude Code at the door of Messages."""

    def made(url: str) -> DoorAgent:
        environ = {
            "ANTHROPIC_BASE_URL": url,
            "ANTHROPIC_API_KEY": "x",
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "DISABLE_AUTOUPDATER": "1",
            "DISABLE_TELEMETRY": "1",
            **({"CLAUDE_CODE_TETHER_LIVE": "1"} if threads else {}),
        }
        command = ("--model", MODEL, "--allowedTools", "Bash,Read,Edit,Write,Grep,Glob", "-p")
        return DoorAgent("claude", command, None, environ)

    return made


AGENTS: Mapping[str, Callable[[str], DoorAgent]] = {
    "pi-chat": pi("openai-completions", "/v1"),
    "pi-messages": pi("anthropic-messages", ""),
    "pi-responses": pi("openai-responses", "/v1"),
    "opencode": opencode,
    "claude": claude(threads=False),
    "claude-threads": claude(threads=True),
}


async def run_agent(agent: DoorAgent, home: Path, folder: Path, prompt: Sequence[str]) -> tuple[int | None, str]:
    """Run an agent in a folder; return its status, and what it printed."""
    program = shutil.which(agent.program)
    if program is None:
        pytest.skip(f"{agent.program} is not installed")
    if agent.settings is not None:
        path, settings = agent.settings
        (home / path).parent.mkdir(parents=True)
        (home / path).write_text(json.dumps(settings), encoding="utf-8")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_KEPT_OUT)}
    running = await asyncio.create_subprocess_exec(
        program,
        *agent.command,
        *prompt,
        cwd=folder,
        env={**kept, **agent.environ, "HOME": str(home), "PWD": str(folder)},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await asyncio.wait_for(running.communicate(), PATIENCE_S)
    return running.returncode, said.decode()


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
