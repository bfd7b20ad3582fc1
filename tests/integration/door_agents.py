"""Real agents, and how each is told to use a gateway.

They run where they are installed: `claude` (2.1), `opencode` (1.18), `pi` (1.6) and `codex` (0.171) on the path.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

MODEL = "scripted-one"
PATIENCE_S = 240.0
#: What of the environment would lead an agent elsewhere.
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


def codex(url: str) -> DoorAgent:
    """Codex at the door of Responses."""
    provider = f'name = "segue", base_url = "{url}/v1", wire_api = "responses", env_key = "SEGUE_KEY"'
    settings = {"model": MODEL, "model_provider": "segue", "model_providers.segue": f"{{{provider}}}"}
    options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    flags = ("--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox")
    return DoorAgent("codex", ("exec", *options, *flags), None, {"SEGUE_KEY": "x"})


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
    try:
        said, _ = await asyncio.wait_for(running.communicate(), PATIENCE_S)
    finally:
        if running.returncode is None:
            running.kill()
            await running.wait()
    return running.returncode, said.decode()
