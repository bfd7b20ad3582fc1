"""The checks over several tables, and what of a configuration may be shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from segue.config import AgentConfig, Config, SidecarConfig, without_secrets
from tests.config.tables import KEY_TOML, PROVIDER_TOML, UPSTREAM_TOML, error_of, from_toml


def test_what_headers_hold_is_not_shown(tmp_path: Path) -> None:
    """It may be a key."""
    config = from_toml(tmp_path, PROVIDER_TOML + 'headers = ["api-key: secret", "X-A: b"]')
    assert without_secrets(config).upstream[0].headers == ["api-key: (set)", "X-A: (set)"]
    assert config.upstream[0].headers == ["api-key: secret", "X-A: b"]


def test_what_bodies_hold_is_not_shown(tmp_path: Path) -> None:
    """It may be a salt."""
    config = from_toml(tmp_path, PROVIDER_TOML + '[upstream.body]\ncache_salt = "secret"\n')
    assert without_secrets(config).upstream[0].body == {"cache_salt": "(set)"}
    assert config.upstream[0].body == {"cache_salt": "secret"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[[listener]]\nport = 4747", "two addresses have the port 4747"),
        ("[[listener]]\nport = 1\n" * 2, "two addresses have the port 1"),
        ('[[listener]]\nport = 1\nhost = "gateway.example"', "listener.host is 'gateway.example', which others can"),
        ("[[listener]]\n", "port"),
        ('[[listener]]\nport = 1\nprofile = "azure"', "profile"),
    ],
)
def test_an_address_that_cannot_be_is_refused(tmp_path: Path, text: str, expected: str) -> None:
    """Before anything is opened."""
    assert expected in error_of(tmp_path, text)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.168.1.2", "gateway.example", "127.0.0.1.example"])  # noqa: S104 - what is refused
def test_others_are_let_in_with_a_key_only(tmp_path: Path, host: str) -> None:
    """A gateway without keys serves whoever can reach it."""
    assert "there is no [[key]]: add one" in error_of(tmp_path, "", host=host)
    assert from_toml(tmp_path, KEY_TOML, host=host).server.host == host


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (KEY_TOML * 2, "two [[key]] tables are named 'k': names must differ"),
        (UPSTREAM_TOML.format(name="u") * 3, "two [[upstream]] tables are named 'u': names must differ"),
        (
            KEY_TOML + KEY_TOML.replace('"k"', '"other"'),
            "the [[key]] tables 'k' and 'other' have the same sha256: whose key is it?",
        ),
    ],
)
def test_doubles_are_refused(tmp_path: Path, text: str, expected: str) -> None:
    """Nobody could tell them apart."""
    assert error_of(tmp_path, text) == expected


def test_a_group_has_somebody_to_stand_in_for(tmp_path: Path) -> None:
    """Backups alone are none."""
    spare = UPSTREAM_TOML.format(name="u") + 'group = "g"\nbackup = true\n'
    assert "the group 'g' has only backups" in error_of(tmp_path, spare)
    both = from_toml(tmp_path, spare + UPSTREAM_TOML.format(name="v") + 'group = "g"\n')
    assert [up.backup for up in both.upstream] == [True, False]


def test_the_agents_key_is_not_shown() -> None:
    assert without_secrets(Config(agent=AgentConfig(proxy="http://u:p@h:1"))).agent.proxy == "(set)"
    assert without_secrets(Config(agent=AgentConfig(key="sk-1"))).agent.key == "(set)"
    assert without_secrets(Config()).agent.key is None


def test_a_proxy_that_may_have_a_password_is_not_shown() -> None:
    shown = [without_secrets(Config(sidecar=SidecarConfig(proxy=proxy))).sidecar.proxy for proxy in ("u:p@h", "", None)]
    assert shown == ["(set)", "", None]


def test_a_password_in_the_address_of_a_gateway_is_not_shown() -> None:
    """Such an address is refused later."""
    sidecar = SidecarConfig(gateways=["wss://alice:hunter2@g.example", "wss://h.example/a@b"])
    assert without_secrets(Config(sidecar=sidecar)).sidecar.gateways == ["wss://(set)@g.example", "wss://h.example/a@b"]
