"""How agents are pointed at the sidecar."""

from __future__ import annotations

import json

from segue.sidecar.agent_environment import pointed_at

URL = "http://127.0.0.1:4748"


def test_every_agent_gets_the_variables_of_the_sdks() -> None:
    command, variables = pointed_at(["/usr/bin/claude", "-p", "hello"], URL)
    assert command == ["/usr/bin/claude", "-p", "hello"]
    assert variables == {
        "ANTHROPIC_BASE_URL": f"{URL}/anthropic",
        "OPENAI_BASE_URL": f"{URL}/openai/v1",
        "OPENAI_API_BASE": f"{URL}/openai/v1",
        "GOOGLE_GEMINI_BASE_URL": f"{URL}/gemini",
    }


def test_codex_gets_a_setting_before_its_own_arguments() -> None:
    command, _ = pointed_at(["/opt/codex", "exec", "-c", "x=1", "hello"], URL)
    assert command == ["/opt/codex", "-c", f'openai_base_url="{URL}/openai/v1"', "exec", "-c", "x=1", "hello"]


def test_opencode_gets_the_addresses_of_its_providers() -> None:
    _, variables = pointed_at(["opencode", "run"], URL)
    assert json.loads(variables["OPENCODE_CONFIG_CONTENT"])["provider"] == {
        "anthropic": {"options": {"baseURL": f"{URL}/anthropic/v1"}},
        "openai": {"options": {"baseURL": f"{URL}/openai/v1"}},
        "google": {"options": {"baseURL": f"{URL}/gemini/v1beta"}},
    }
