"""What is read from the environment beside the settings."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from segue.config import (
    AgentConfig,
    ChosenProxy,
    ConfigError,
    SidecarConfig,
    agent_key,
    agent_proxy,
    cache_directory,
    child_environment,
    command_environment,
    environment,
    gateway_proxy,
    has_openmp_policy,
    named_key,
    read_key,
    ssh_log_file,
    state_directory,
)
from segue.config.environment import environment_with_key
from tests.config.tables import PROVIDER_TOML, from_toml


def test_a_providers_key_is_read_from_the_environment_only(tmp_path: Path) -> None:
    """When it is needed; the configuration, which is shown and logged, does not have it."""
    (up,) = from_toml(tmp_path, PROVIDER_TOML + 'key_env = "K"').upstream
    assert read_key(up, {"K": " sk-1\n"}) == "sk-1"
    (keyless,) = from_toml(tmp_path, PROVIDER_TOML).upstream
    assert read_key(keyless, {"K": "sk-1"}) is None


def test_a_key_may_be_named_on_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", "sk-2")
    assert named_key("SOME_KEY", "--key-env") == "sk-2"
    with pytest.raises(ConfigError, match=r"^the variable OTHER \(--key-env\) is not set$"):
        named_key("OTHER", "--key-env", environ={})


@pytest.mark.parametrize("environ", [{}, {"K": ""}, {"K": " "}, {"K": "a b"}, {"K": "a\nb"}, {"K": "\u00e9"}])
def test_a_key_that_is_none_is_refused(tmp_path: Path, environ: dict[str, str]) -> None:
    """Without showing it."""
    (up,) = from_toml(tmp_path, PROVIDER_TOML + 'key_env = "K"').upstream
    with pytest.raises(ConfigError, match="the variable K \\(key_env\\)") as caught:
        read_key(up, environ)
    assert not any(len(value) > 1 and value in str(caught.value) for value in environ.values())


def test_the_cache_is_in_the_users_cache_directory_unless_another_is_named() -> None:
    assert cache_directory(SidecarConfig(cache=False)) is None
    assert cache_directory(SidecarConfig(cache_dir="/var/x")) == Path("/var/x")
    assert cache_directory(SidecarConfig(), {"XDG_CACHE_HOME": "/c"}) == Path("/c/segue/bases")
    assert cache_directory(SidecarConfig(), {"XDG_CACHE_HOME": "relative"}) == cache_directory(SidecarConfig(), {})


def test_a_child_reaches_this_machine_without_a_proxy() -> None:
    assert child_environment(["::1"], {"B": "2"}) == {"B": "2"}
    environment = child_environment(["127.0.0.1"], {"HTTP_PROXY": "http://p", "NO_PROXY": "x"})
    assert environment["no_proxy"] == environment["NO_PROXY"] == "x,127.0.0.1,localhost"
    assert child_environment(["::1"], {"all_proxy": "http://p"})["NO_PROXY"] == "127.0.0.1,localhost,::1"


@pytest.mark.parametrize(
    ("proxy", "environ", "expected"),
    [
        (None, {}, None),
        (None, {"HTTP_PROXY": "h:1"}, None),
        (None, {"HTTPS_PROXY": "h:1", "ALL_PROXY": "h:2", "NO_PROXY": "x"}, ChosenProxy("h:1", "HTTPS_PROXY", "x")),
        (None, {"https_proxy": "h:0", "HTTPS_PROXY": "h:1"}, ChosenProxy("h:0", "https_proxy", "")),
        (None, {"HTTPS_PROXY": "", "ALL_PROXY": "h:2"}, ChosenProxy("h:2", "ALL_PROXY", "")),
        (None, {"all_proxy": "h:3", "no_proxy": "y", "NO_PROXY": "x"}, ChosenProxy("h:3", "all_proxy", "y")),
        ("h:4", {"HTTPS_PROXY": "h:1", "NO_PROXY": "x"}, ChosenProxy("h:4", "[sidecar] proxy", "x")),
        ("", {"HTTPS_PROXY": "h:1"}, None),
    ],
)
def test_the_proxy_to_gateways_is_the_setting_or_that_of_the_environment(
    proxy: str | None, environ: dict[str, str], expected: ChosenProxy | None
) -> None:
    assert gateway_proxy(SidecarConfig(proxy=proxy), environ) == expected
    agents = expected and expected._replace(source=expected.source.replace("sidecar", "agent"))
    assert agent_proxy(AgentConfig(proxy=proxy), environ) == agents


def test_a_child_does_not_get_the_key_for_gateways() -> None:
    environ = {"SEGUE_SIDECAR_KEY": "sk-1", "SEGUE_SIDECAR_PROXY": "http://u:p@h", "ANTHROPIC_API_KEY": "sk-2"}
    assert child_environment(environ=environ) == {"ANTHROPIC_API_KEY": "sk-2"}


def test_without_a_home_there_is_no_cache_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    assert cache_directory(SidecarConfig(), {}) is None
    assert cache_directory(SidecarConfig(), {"XDG_CACHE_HOME": "/c"}) == Path("/c/segue/bases")


@pytest.mark.parametrize(
    ("platform", "caches"), [("linux", ".cache/segue/bases"), ("darwin", "Library/Caches/segue/bases")]
)
def test_the_cache_directory_is_the_platforms_own(monkeypatch: pytest.MonkeyPatch, platform: str, caches: str) -> None:
    monkeypatch.setattr("sys.platform", platform)
    assert cache_directory(SidecarConfig(), {}) == Path.home() / caches


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, False),
        ({"GOMP_SPINCOUNT": "7"}, True),
        ({"OMP_WAIT_POLICY": "active"}, True),
        ({"OMP_NUM_THREADS": "1"}, False),
    ],
)
def test_the_users_own_openmp_policy_is_noticed(environ: dict[str, str], *, expected: bool) -> None:
    assert has_openmp_policy(environ) is expected


def test_transcripts_are_in_the_users_directory_for_state(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    assert state_directory({"XDG_STATE_HOME": "/s"}) == Path("/s/segue/agent")
    found = state_directory({})
    assert found is not None
    assert found.is_absolute()
    monkeypatch.setattr(Path, "home", homeless)
    assert state_directory({"XDG_STATE_HOME": "relative"}) is None


def test_the_log_of_the_gateway_for_ssh_is_there_too(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ssh_log_file({"XDG_STATE_HOME": "/s"}) == Path("/s/segue/ssh-gateway.log")
    monkeypatch.setattr(environment, "_state_home", lambda _: None)
    assert ssh_log_file({}) is None


def test_the_key_for_openai_goes_nowhere_else() -> None:
    """Not to a server whose name only looks alike."""
    environ = {"OPENAI_API_KEY": "sk-openai"}
    assert agent_key(AgentConfig(base_url="https://api.openai.com/v1"), environ) == "sk-openai"
    assert agent_key(AgentConfig(base_url="https://api.openai.com/v1", key="sk-own"), environ) == "sk-own"
    assert agent_key(AgentConfig(base_url="https://api.openai.com/v1"), {"OPENAI_API_KEY": ""}) is None
    assert agent_key(AgentConfig(base_url="https://api.openai.com/v1"), {"OPENAI_API_KEY": "sk-1\n"}) == "sk-1"
    with pytest.raises(ConfigError, match="the variable OPENAI_API_KEY cannot be sent"):
        agent_key(AgentConfig(base_url="https://api.openai.com/v1"), {"OPENAI_API_KEY": "sk\n1"})
    for url in ("http://127.0.0.1:4747/v1", "http://api.openai.com/v1", "https://api.openai.com.example/v1"):
        assert agent_key(AgentConfig(base_url=url), environ) is None


def test_a_command_of_a_model_gets_no_keys() -> None:
    kept = {"HOME": "/h", "LANG": "C", "KEYBOARD": "us", "TOKENIZERS_PARALLELISM": "0", "MONKEY": "m"}
    secret = {
        "OPENAI_API_KEY": "1", "GITHUB_TOKEN": "2", "SEGUE_AGENT_MODEL": "3", "DB_PASSWORD": "4", "aws_secret_x": "5",
        "SSH_AUTH_SOCK": "6", "HEADER": "Bearer sk-1234567", "GOOGLE_CREDENTIALS": "7",
    }  # fmt: skip
    made = command_environment("sk-1234567", {**kept, **secret, "PATH": "/bin"})
    assert set(made) - set(kept) == {
        "PATH", "PYTHONDONTWRITEBYTECODE", "PAGER", "GIT_PAGER", "GIT_TERMINAL_PROMPT", "TERM",
    }  # fmt: skip
    assert {name: made[name] for name in kept} == kept
    assert made["PATH"] == f"{Path(sys.executable).parent}{os.pathsep}/bin"
    assert command_environment("x", {"A": "xyz"})["A"] == "xyz", "a key so short would be found everywhere"


def test_a_key_takes_the_place_of_every_other() -> None:
    before = {"PATH": "p", "SEGUE_SIDECAR_KEY_FILE": "f", "SEGUE_SIDECAR_KEY": "sk-1"}
    assert environment_with_key("sk-2", environ=before) == {"PATH": "p", "SEGUE_SIDECAR_KEY": "sk-2"}
