"""What strangers look for has a page that answers it, and the start page leads there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"

#: What a page must speak of, by what a stranger asks.
TOPICS = {
    "my subscription": ("how-to/agents.md", ["Pro, Max, Team", "ChatGPT", "Google account", "API key"]),
    "a machine of my own": ("how-to/put-a-gateway-on-a-server.md", ["certificate", "Caddy", "systemctl", "key new"]),
    "containers": ("how-to/run-in-containers.md", ["docker build", "compose.yaml", "segue.yaml"]),
    "a fault": ("how-to/troubleshoot.md", ["segue doctor", "401", "Where the logs are"]),
    "questions": ("explanation/questions.md", ["a VPN?", "compression?", "money?", "API keys?", "twice?"]),
    "what else there is": ("explanation/comparison.md", ["a VPN", "compression", "LiteLLM"]),
    "words": ("reference/glossary.md", ["sidecar", "gateway", "turn", "upstream"]),
    "installing": ("install.md", ["pip install", "uv tool install", "wheel", "segue model get"]),
}


@pytest.mark.parametrize("topic", TOPICS)
def test_a_page_that_the_start_page_links_speaks_of_it(topic: str) -> None:
    page, words = TOPICS[topic]
    assert f"]({page})" in (DOCS / "index.md").read_text("utf-8")
    text = (DOCS / page).read_text("utf-8")
    assert [word for word in words if word not in text] == []


def test_each_agent_that_the_sidecar_page_names_has_a_quick_start_with_its_logins() -> None:
    sidecar, agents = ((DOCS / "how-to" / name).read_text("utf-8") for name in ("use-the-sidecar.md", "agents.md"))
    table = sidecar.partition("| agent | command behind `--` |")[2].partition("\n\n")[0]
    commands = re.findall(r"^\| [^|]+ \| `([a-z]+)` \|", table, re.MULTILINE)
    assert {"claude", "codex", "opencode", "gemini", "aider"} <= set(commands)
    rows = re.findall(r"^\| [^|]+ \| `segue run -- ([a-z]+)` \| ([^|]+) \| ([^|]+) \|$", agents, re.MULTILINE)
    told = {command: (login.strip(), tried.strip()) for command, login, tried in rows}
    assert [command for command in commands if not all(told.get(command, ()) or [""])] == []


@pytest.mark.parametrize("page", ["README.md", "docs/index.md"])
def test_the_main_claim_is_shown_as_a_picture(page: str) -> None:
    text = (ROOT / page).read_text("utf-8")
    pictures = re.findall(r"!\[([^]]+)\]\(([^)]+\.svg)\)", text)
    claims = [target for words, target in pictures if "Bytes that Claude Code sends" in words]
    assert claims
    assert "<svg" in (ROOT / page).parent.joinpath(claims[0]).read_text("utf-8")
