"""What keeps each agent from the sidecar."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segue.sidecar.diagnosis.agent_checks import AgentFacts, SettingsFile, is_known, judge_agent
from segue.sidecar.diagnosis.check_results import DiagnosticResult

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(
                ["env", "model", "provider", "openai", "options", "profiles", "profile", "security", "auth"]
            ),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)


def judged(
    *command: str, files: tuple[SettingsFile, ...] = (), targets: tuple[str, ...] = (), **variables: str
) -> tuple[DiagnosticResult, ...]:
    return judge_agent(AgentFacts(command=command, variables=variables, files=files, targets=targets))


def file(path: str, settings: dict[str, Any] | None, *, managed: bool = False) -> SettingsFile:
    return SettingsFile(path, settings, managed)


def only(results: tuple[DiagnosticResult, ...]) -> tuple[str, str]:
    [result] = results
    assert (result.status == "failed") == bool(result.cure)
    return result.status, result.finding


@pytest.mark.parametrize("program", ["claude", "/usr/bin/codex", "opencode"])
def test_an_agent_without_settings_obeys_the_sidecar(program: str) -> None:
    name = program.rpartition("/")[2]
    assert only(judged(program)) == ("passed", f"nothing in the settings of {name} wins over the sidecar's address")


def test_of_an_unknown_agent_nothing_is_claimed() -> None:
    [result] = judged("my-agent")
    assert (result.status, result.cure.startswith("If it does not")) == ("skipped", True)
    assert not is_known(AgentFacts(command=["x"], variables={}))


def test_a_file_that_cannot_be_read_is_told() -> None:
    results = judged("claude", files=(file("/a", None),))
    assert [one.status for one in results] == ["passed", "skipped"]
    assert results[1].finding == "/a cannot be read, so it is not known what it sets"


def test_claude_obeys_its_settings_files_and_asks_clouds() -> None:
    status, finding = only(judged("claude", files=(file("/s.json", {"env": {"ANTHROPIC_BASE_URL": "https://x"}}),)))
    assert (status, finding) == (
        "failed",
        "/s.json sets ANTHROPIC_BASE_URL, and claude obeys it: nothing goes through the sidecar",
    )
    assert only(judged("claude", CLAUDE_CODE_USE_VERTEX="1"))[1].startswith("CLAUDE_CODE_USE_VERTEX is set by the env")
    assert only(judged("claude", CLAUDE_CODE_USE_VERTEX="False"))[0] == "passed"
    bedrock = file("/s.json", {"env": {"CLAUDE_CODE_USE_BEDROCK": 1}})
    assert only(judged("claude", files=(bedrock,)))[1].startswith("CLAUDE_CODE_USE_BEDROCK is set by /s.json")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("-c", 'openai_base_url="x"'), "the command sets openai_base_url itself"),
        (("exec", "--config", "model_provider = 'p'"), "the command chooses the provider p"),
        (("--config=model_provider=p",), "the command chooses the provider p"),
        (("--oss",), "--oss asks a model on this machine"),
    ],
)
def test_codex_may_be_told_otherwise_by_its_command(arguments: tuple[str, ...], words: str) -> None:
    assert only(judged("codex", *arguments))[1].startswith(words)


def test_codex_chooses_its_provider_in_the_first_file_that_says_so() -> None:
    user = file("/config.toml", {"model_provider": "azure"})
    status, finding = only(judged("codex", files=(user,)))
    assert (status, finding) == ("failed", "/config.toml chooses the provider azure, which has an address of its own")
    assert only(judged("codex", files=(file("/p", {"model_provider": "openai"}), user)))[0] == "passed"
    assert only(judged("codex", "-c", "model_provider=openai", files=(user,)))[0] == "passed"
    old = {"profile": "fast", "profiles": {"fast": {"model_provider": "p"}}, "model_provider": "openai"}
    assert only(judged("codex", files=(file("/old", old),)))[1].startswith("/old chooses the provider p")
    assert only(judged("codex", "-c", files=(file("/c", {"profile": ["x"], "profiles": {}}),)))[0] == "passed"


def test_codex_with_a_chatgpt_login_needs_a_route_of_its_own() -> None:
    login = file("/h/auth.json", {"auth_mode": "chatgpt"})
    status, finding = only(judged("codex", files=(login,)))
    assert (status, finding) == (
        "failed",
        "codex is logged in with ChatGPT, whose tokens api.openai.com refuses (401, missing scopes)",
    )
    assert only(judged("codex", files=(login,), targets=("self", "https://chatgpt.com")))[0] == "passed"
    assert only(judged("codex", files=(file("/h/auth.json", {"auth_mode": "apikey"}),)))[0] == "passed"


def test_opencode_obeys_its_company_and_asks_the_provider_of_its_model() -> None:
    settings = {"provider": {"openai": {"options": {"baseURL": "x"}}}}
    assert only(judged("opencode", files=(file("/u", settings),)))[0] == "passed", "ours are put over it"
    assert only(judged("opencode", files=(file("/etc", settings, managed=True),)))[1] == (
        "/etc gives openai an address, and wins over the sidecar's"
    )
    models = (file("/a", {"model": 1}), file("/b", None), file("/c", {"model": "groq/x"}), file("/d", {"model": "y"}))
    results = judged("opencode", files=models)
    assert results[0].finding == "its model is groq/x, and the provider groq is not pointed at the sidecar"
    assert only(judged("opencode", files=(file("/a", {"model": "anthropic/x"}),)))[0] == "passed"


def test_gemini_must_log_in_by_a_key() -> None:
    def chosen(kind: str | None) -> tuple[SettingsFile, ...]:
        return (file("/none", {"security": 1}), file("/s", {"security": {"auth": {"selectedType": kind}}}))

    assert only(judged("gemini", files=chosen("gemini-api-key")))[0] == "passed"
    assert only(judged("gemini", files=chosen("oauth-personal")))[1].startswith("gemini logs in by oauth-personal")
    assert only(judged("gemini", files=chosen(None)))[1].startswith("no way to log in is chosen")


@given(st.sampled_from(["claude", "codex", "opencode", "gemini"]), st.dictionaries(st.text(max_size=8), JSON), JSON)
def test_whatever_a_file_holds_there_is_a_result(program: str, settings: dict[str, Any], inner: object) -> None:
    files = (file("/a", settings, managed=True), file("/b", {"provider": inner, "env": inner, "security": inner}))
    assert judged(program, files=files)
