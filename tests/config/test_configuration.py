"""The checks over several tables, and what of a configuration may be shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from segue.config import AgentConfig, Config, ConfigError, ServerConfig, SidecarConfig, without_secrets
from segue.config.configuration import check
from tests.config.tables import KEY_TOML, PROVIDER_TOML, SHA, UPSTREAM_TOML, error_of, from_toml


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
        ('[tunnel]\naddress = "https://me:secret@gw.example"', "tunnel.address holds a user or a password"),
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


TLS = '[server]\ntls_cert = "c"\ntls_key = "k"\n'
CLIENTS = f'{TLS}tls_client_ca = "a"\n'
CERTIFICATE = '[[certificate]]\nname = "c"\ntenant = "t"\n'
NAMED = f'{CERTIFICATE}san = "DNS:build.example"\n'


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('[server]\ntls_client_ca = "a"\n', "tls_client_ca needs TLS: set tls_cert and tls_key"),
        (TLS + 'tls_client_auth = "required"\n', "without tls_client_ca, no client certificate is asked for"),
        (TLS + NAMED, "without tls_client_ca, no client certificate is asked for"),
        (CLIENTS + CERTIFICATE, "[[certificate]] 'c': write one of sha256, subject and san"),
        (CLIENTS + NAMED + f'sha256 = "{SHA}"\n', "[[certificate]] 'c': write one of sha256, subject and san"),
        (
            CLIENTS + CERTIFICATE + 'sha256 = "00:11"\n',
            "[[certificate]] 'c' sha256: must be the SHA-256 of a certificate",
        ),
        (
            CLIENTS + CERTIFICATE + 'san = "build.example"\n',
            "[[certificate]] 'c' san: must be a name with its kind before it",
        ),
        (CLIENTS + NAMED * 2, "two [[certificate]] tables are named 'c'"),
        (CLIENTS + NAMED + KEY_TOML.replace('"k"', '"c"'), "a [[key]] and a [[certificate]] are named 'c'"),
        (CLIENTS + NAMED + "[certificate.limits]\nstored_bytes = 1\n", "[[certificate]] 'c': limits.stored_responses"),
        ('[sidecar]\nclient_cert = "c"\n', "sidecar: client_cert and client_key belong together"),
    ],
)
def test_certificates_that_cannot_be_meant_are_refused(tmp_path: Path, text: str, expected: str) -> None:
    assert expected in error_of(tmp_path, text)


def test_certificates_are_enough_to_let_others_in(tmp_path: Path) -> None:
    attributes = '{commonName = "build"}'
    text = f'{CLIENTS}host = "0.0.0.0"\n{CERTIFICATE}subject = {attributes}\n{KEY_TOML}'
    config = from_toml(tmp_path, text)
    assert [one.name for one in config.callers] == ["k", "c"]
    assert config.certificate[0].subject == {"commonName": "build"}
    environ = {"SEGUE_CERTIFICATE_0_SUBJECT": '{"commonName": "other"}', "SEGUE_CERTIFICATE_0_NAME": "c"}
    environ["SEGUE_CERTIFICATE_0_TENANT"] = "t"
    assert from_toml(tmp_path, CLIENTS, environ).certificate[0].subject == {"commonName": "other"}


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


def test_the_sidecars_token_is_not_shown() -> None:
    assert without_secrets(Config(sidecar=SidecarConfig(token="t" * 16))).sidecar.token == "(set)"


def test_a_proxy_that_may_have_a_password_is_not_shown() -> None:
    shown = [without_secrets(Config(sidecar=SidecarConfig(proxy=proxy))).sidecar.proxy for proxy in ("u:p@h", "", None)]
    assert shown == ["(set)", "", None]


def test_a_password_in_the_address_of_a_gateway_is_not_shown() -> None:
    """Such an address is refused later."""
    sidecar = SidecarConfig(gateways=["wss://alice:hunter2@g.example", "wss://h.example/a@b"])
    assert without_secrets(Config(sidecar=sidecar)).sidecar.gateways == ["wss://(set)@g.example", "wss://h.example/a@b"]


@pytest.mark.parametrize("url", ["redis://user:s@cret@h/0", "unix://:s@cret@/run/r"])
def test_the_password_of_what_gateways_share_is_not_shown(url: str) -> None:
    shown = without_secrets(Config(server=ServerConfig(live=url)))
    assert "cret" not in shown.server.live
    assert shown.server.live.startswith(url.partition("://")[0])


@pytest.mark.parametrize("store", ["memory:", "sqlite:///segue.db"])
def test_several_gateways_need_a_store_that_they_share(store: str) -> None:
    with pytest.raises(ConfigError, match="one that they share"):
        check(Config(server=ServerConfig(live="redis://h", store=store)))
    check(Config(server=ServerConfig(live="redis://h", store="postgresql://h/segue")))
    check(Config(server=ServerConfig(live="memory:", store=store)))
