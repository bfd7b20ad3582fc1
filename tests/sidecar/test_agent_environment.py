"""How agents are pointed at the sidecar."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segue.sidecar.agent_environment import AgentSettingsError, Launch, merged, pointed_at

URL = "http://127.0.0.1:4748"
TOOL_SEARCH, THREADS = "ENABLE_TOOL_SEARCH", "CLAUDE_CODE_TETHER_LIVE"


def launched(command: Sequence[str], environ: Mapping[str, str] | None = None, *, official: bool = False) -> Launch:
    return pointed_at(command, URL, environ=environ or {}, official=official)


def opencode_settings(given_settings: str) -> dict[str, Any]:
    environ = {"OPENCODE_CONFIG_CONTENT": given_settings}
    settings: dict[str, Any] = json.loads(launched(["opencode"], environ).variables["OPENCODE_CONFIG_CONTENT"])
    return settings


def test_every_agent_gets_the_variables_of_the_sdks() -> None:
    command, variables, notices = launched(["/usr/bin/claude", "-p", "hello"])
    assert command == ["/usr/bin/claude", "-p", "hello"]
    assert variables == {
        "ANTHROPIC_BASE_URL": f"{URL}/anthropic",
        "OPENAI_BASE_URL": f"{URL}/openai/v1",
        "OPENAI_API_BASE": f"{URL}/openai/v1",
        "GOOGLE_GEMINI_BASE_URL": f"{URL}/gemini",
    }
    assert notices == []


def test_an_address_that_led_elsewhere_is_named() -> None:
    """Without its value; empty ones and those that have the value already are not."""
    environ = {"ANTHROPIC_BASE_URL": "https://u:secret@e", "OPENAI_BASE_URL": "", "OPENAI_API_BASE": f"{URL}/openai/v1"}
    (notice,) = launched(["agent"], environ).notices
    assert notice.startswith("ANTHROPIC_BASE_URL was set to something else")
    assert "secret" not in notice


def test_codex_gets_a_setting_before_its_own_arguments() -> None:
    command, _, _ = launched(["/opt/codex", "exec", "-c", "x=1", "hello"])
    assert command == ["/opt/codex", "-c", f'openai_base_url="{URL}/openai/v1"', "exec", "-c", "x=1", "hello"]


@pytest.mark.parametrize("given_settings", ["", " ", "{}"])
def test_opencode_gets_the_addresses_of_its_providers(given_settings: str) -> None:
    assert opencode_settings(given_settings)["provider"] == {
        "anthropic": {"options": {"baseURL": f"{URL}/anthropic/v1"}},
        "openai": {"options": {"baseURL": f"{URL}/openai/v1"}},
        "google": {"options": {"baseURL": f"{URL}/gemini/v1beta"}},
    }


def test_opencode_keeps_the_users_settings() -> None:
    given_settings = {
        "permission": {"bash": "deny"},
        "provider": {
            "anthropic": {"options": {"timeout": 5, "baseURL": "https://e"}, "models": {"x": {}}},
            "own": {"npm": "x"},
        },
    }
    settings = opencode_settings(json.dumps(given_settings))
    assert settings["permission"] == {"bash": "deny"}
    assert settings["provider"]["own"] == {"npm": "x"}
    anthropic = {"options": {"timeout": 5, "baseURL": f"{URL}/anthropic/v1"}, "models": {"x": {}}}
    assert settings["provider"]["anthropic"] == anthropic
    assert settings["provider"]["openai"] == {"options": {"baseURL": f"{URL}/openai/v1"}}


@pytest.mark.parametrize("given_settings", ["{", "[]", "null", '{"key": "sk-1"} // mine', "\udce4"])
def test_settings_of_opencode_that_cannot_be_read_are_not_replaced(given_settings: str) -> None:
    with pytest.raises(AgentSettingsError, match="OPENCODE_CONFIG_CONTENT is not a JSON object") as caught:
        opencode_settings(given_settings)
    assert "sk-1" not in str(caught.value)


LEAVES = st.none() | st.booleans() | st.integers() | st.text(max_size=3)
OBJECTS = st.dictionaries(
    st.sampled_from("abc"),
    st.recursive(LEAVES, lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3), max_leaves=8),
    max_size=3,
)


def leaves_of(value: object, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], object]:
    if not isinstance(value, dict) or not value:
        return {path: value}
    return {place: leaf for name, inner in value.items() for place, leaf in leaves_of(inner, (*path, name)).items()}


@given(OBJECTS, OBJECTS)
def test_merging_adds_everything_new_and_keeps_what_it_does_not_touch(
    ours: dict[str, Any], more: dict[str, Any]
) -> None:
    found = merged(ours, more)
    assert {path: leaf for path, leaf in leaves_of(more).items() if leaf != {}}.items() <= leaves_of(found).items()
    assert {name: value for name, value in ours.items() if name not in more}.items() <= found.items()
    assert merged(found, more) == found
    assert merged(ours, {}) == ours


def test_claude_code_keeps_the_features_that_it_has_at_anthropics_own_address() -> None:
    _, variables, (notice,) = launched(["/usr/bin/claude"], official=True)
    assert (variables[TOOL_SEARCH], variables[THREADS]) == ("true", "1")
    assert "ENABLE_TOOL_SEARCH=true and CLAUDE_CODE_TETHER_LIVE=1" in notice


def test_what_the_user_has_set_for_claude_code_stays() -> None:
    _, variables, (notice,) = launched(["claude"], {TOOL_SEARCH: "false"}, official=True)
    assert TOOL_SEARCH not in variables
    assert TOOL_SEARCH not in notice
    assert variables[THREADS] == "1"
    _, variables, notices = launched(["claude"], {TOOL_SEARCH: "false", THREADS: ""}, official=True)
    assert not {TOOL_SEARCH, THREADS} & variables.keys()
    assert notices == []


@pytest.mark.parametrize(("program", "official"), [("claude", False), ("python", True), ("codex", True)])
def test_other_hosts_and_other_agents_get_no_features_of_claude_code(program: str, official: bool) -> None:
    assert not {TOOL_SEARCH, THREADS} & launched([program], official=official).variables.keys()
