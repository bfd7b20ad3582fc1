"""`segue check-config` says what a configuration means, or what is wrong with it, and starts nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from segue.cli.check_config import run_check_config
from tests.cli.conftest import Command, own_file

KEYED = """
[server]
port = 0
store = "memory:"

[[upstream]]
name = "toy"
dialect = "scripted"
models = ["toy-*", "toy"]

[[key]]
name = "alice"
tenant = "alice"
sha256 = "2bd806c97f0e00af1a1fc3328fa763a9269723c8db8fac4f93af71db186d6e90"
"""


def test_check_config_says_what_a_file_means(command: Command, tmp_path: Path) -> None:
    """In the folder's segue.toml, or in the file that is named; as one JSON object for scripts."""
    (tmp_path / "segue.toml").write_text(KEYED)
    status, printed, told = command("check-config", "--json")
    assert (status, told) == (0, "")
    said = json.loads(printed)
    assert (said["file"], said["models"]) == ("segue.toml", ["toy", "scripted"])
    assert said["config"]["key"][0]["tenant"] == "alice"
    status, printed, told = command("check-config", "--config", "segue.toml")
    assert (status, told) == (0, "")
    assert "ok" in printed
    assert "toy-*" in printed


def test_check_config_says_how_conversations_are_kept_together(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """At a server with slots, and behind a router."""
    at = "dialect='chat'\nmodels=['m']\nbase_url='http://127.0.0.1:9/v1'\n"
    file = tmp_path / "segue.toml"
    file.write_text(
        f"[[upstream]]\nname='a'\n{at}slots=4\n[[upstream]]\nname='b'\n{at}affinity_header='X-Session-ID'\n"
    )
    assert run_check_config(file, as_json=False) == 0
    printed = capsys.readouterr().out
    assert "upstream a: chat at http://127.0.0.1:9/v1 with no key, models m, conversations kept in 4 slots\n" in printed
    assert "with no key, models m, conversations named in X-Session-ID\n" in printed


def test_check_config_says_what_is_reached_over_websockets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "segue.toml"
    at = "dialect='responses'\ntransport='websocket'\nmodels=['m']\nbase_url='http://127.0.0.1:9/v1'\n"
    file.write_text(f"[[upstream]]\nname='a'\n{at}\n[[upstream]]\nname='b'\n{at}key_env='PATH'\n")
    assert run_check_config(file, as_json=False) == 0
    printed = capsys.readouterr().out
    assert "upstream a: responses over WebSockets at http://127.0.0.1:9/v1 with no key, models m\n" in printed
    assert "upstream b: responses over WebSockets at http://127.0.0.1:9/v1 with the key in PATH, models m\n" in printed


def test_what_users_wrote_is_printed_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An address with brackets keeps its host, and a name with them ends nothing."""
    file = tmp_path / "segue.toml"
    file.write_text(
        "[[upstream]]\nname='[/a]'\ndialect='chat'\nmodels=['[m]']\nbase_url='http://[fd00::1]:8080/v1'\n"
        "[[route]]\nmount='/m'\ntarget='https://[fd00::2]/v1'\n"
        + KEYED[KEYED.index("[[key]]") :].replace('"alice"', '"[/x]"')
    )
    assert run_check_config(file, as_json=False) == 0
    printed = capsys.readouterr().out
    for text in (
        "upstream [/a]: chat at http://[fd00::1]:8080/v1 with",
        "models [m]",
        "https://[fd00::2]/v1",
        "key [/x]",
    ):
        assert text in printed


def test_check_config_says_who_shares_turns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And whom an upstream is for."""
    one = "[[upstream]]\ndialect='scripted'\nmodels=['m']\n"
    file = tmp_path / "segue.toml"
    file.write_text(
        f"{one}name='a'\ngroup='g'\nweight=3\n{one}name='b'\ngroup='g'\nbackup=true\ntenants=['ann', 'b*']\n"
    )
    assert run_check_config(file, as_json=False) == 0
    printed = capsys.readouterr().out
    assert "upstream a: scripted, models m, weight 3 of the group g\n" in printed
    assert "upstream b: scripted, models m, backup of the group g, for ann, b* only\n" in printed


def test_check_config_shows_listeners_routes_keys_and_whose_key_a_provider_gets(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("A_KEY", "very-secret")
    at = "dialect='chat'\nmodels=['m']\nbase_url='http://127.0.0.1:9/v1'\n"
    (tmp_path / "segue.toml").write_text(
        f"{KEYED}\n[[listener]]\nport = 4750\nprofile = 'openai'\n"
        f"[[upstream]]\nname = 'a'\n{at}key_env = 'A_KEY'\n[[upstream]]\nname = 'b'\n{at}pass_key = true\n"
        "[[route]]\npath = '/v1/messages'\ntarget = 'self'\n"
    )
    status, printed, told = command("check-config")
    assert (status, told) == (0, "")
    for line in (
        "listener 127.0.0.1:4750: profile openai\n",
        "upstream a: chat at http://127.0.0.1:9/v1 with the key in A_KEY, models m\n",
        "upstream b: chat at http://127.0.0.1:9/v1 with the client's own key, models m\n",
        "route /v1/messages to self, path kept\n",
        "route /anthropic to https://api.anthropic.com\n",
        "key alice: tenant alice\n",
    ):
        assert line in printed
    assert "very-secret" not in printed


def test_it_says_whose_server_each_provider_is(command: Command, tmp_path: Path) -> None:
    """Named, or known by its host; nothing is said of a server that nothing is known about."""
    at = "dialect='chat'\nmodels=['m']\n"
    (tmp_path / "segue.toml").write_text(
        f"[server]\nstore='memory:'\n[[upstream]]\nname='a'\n{at}base_url='https://api.mistral.ai/v1'\n"
        f"[[upstream]]\nname='b'\n{at}base_url='http://127.0.0.1:9/v1'\nprovider='vllm'\n"
        f"[[upstream]]\nname='c'\n{at}base_url='http://127.0.0.1:9/v1'\n"
        f"[[upstream]]\nname='d'\ndialect='scripted'\nmodels=['x']\n"
    )
    status, printed, told = command("check-config")
    assert (status, told) == (0, "")
    for line in (
        "upstream a: chat at https://api.mistral.ai/v1 with no key, provider mistral, models m\n",
        "upstream b: chat at http://127.0.0.1:9/v1 with no key, provider vllm, models m\n",
        "upstream c: chat at http://127.0.0.1:9/v1 with no key, models m\n",
        "upstream d: scripted, models x\n",
    ):
        assert line in printed
    _, printed, _ = command("check-config", "--json")
    assert json.loads(printed)["providers"] == {"a": "mistral", "b": "vllm"}


def test_without_keys_it_says_who_is_served(command: Command) -> None:
    status, printed, _ = command("check-config")
    assert status == 0
    assert "ok  defaults and environment\n" in printed
    assert "no keys: your own user is one tenant, and nobody else is served\n" in printed


def test_it_names_those_who_are_served(command: Command, tmp_path: Path) -> None:
    (tmp_path / "segue.toml").write_text('[server]\naccess = "anyone"\n')
    assert "no keys: everybody on this machine is one tenant" in command("check-config")[1]
    tls = '[server]\ntls_cert = "c"\ntls_key = "k"\ntls_client_ca = "a"\n'
    row = f'[[certificate]]\nname = "[b]"\ntenant = "t"\nsha256 = "{"0" * 64}"\n'
    (tmp_path / "segue.toml").write_text(tls + row)
    printed = command("check-config")[1]
    assert "certificate [b]: tenant t\n" in printed
    assert "no keys" not in printed


def test_a_file_that_is_not_there(command: Command, tmp_path: Path) -> None:
    """Named by the user, so it must exist."""
    status, printed, told = command("check-config", "--config", "no.toml")
    assert (status, printed) == (2, "")
    assert "cannot read no.toml" in told


def test_check_config_does_not_print_the_key(command: Command, tmp_path: Path) -> None:
    (tmp_path / "segue.toml").write_text('[sidecar]\nkey = "very secret"\n')
    status, printed, told = command("check-config", "--json", "--config", "segue.toml")
    assert (status, json.loads(printed)["config"]["sidecar"]["key"]) == (0, "(set)")
    assert "very secret" not in printed + told


def test_the_sidecars_settings_are_those_that_the_sidecar_would_read(command: Command, tmp_path: Path) -> None:
    """Of the user's own file, while the gateway's are those of this folder."""
    (tmp_path / "segue.toml").write_text('[server]\nport = 4001\n[sidecar]\ngateways = ["wss://evil"]\n')
    own = own_file(tmp_path, '[server]\nport = 4002\n[sidecar]\ngateways = ["wss://mine"]\ncafile = "ca.pem"\n')
    status, printed, told = command("check-config", "--json")
    said = json.loads(printed)
    assert (status, told) == (0, "")
    assert (said["file"], said["sidecar_file"]) == ("segue.toml", str(own))
    assert said["config"]["server"]["port"] == 4001
    assert (said["config"]["sidecar"]["gateways"], said["config"]["sidecar"]["cafile"]) == (
        ["wss://mine"],
        str(own.parent / "ca.pem"),
    )
    assert f"settings of segue sidecar and segue run: {own}, segue.toml in this folder" in command("check-config")[1]
    said = json.loads(command("check-config", "--json", "--config", "segue.toml")[1])
    assert (said["sidecar_file"], said["config"]["sidecar"]["gateways"]) == ("segue.toml", ["wss://evil"])
