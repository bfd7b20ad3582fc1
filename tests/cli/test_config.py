"""`segue config path` and `segue config show`: the user's own file, and where each setting came from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from segue.cli import config
from tests.cli.conftest import Command, own_file


def test_the_path_is_told_whether_the_file_exists_or_not(command: Command, tmp_path: Path) -> None:
    file = tmp_path / "config" / "segue" / "segue.toml"
    assert command("config", "path") == (0, f"{file}\n", "")
    assert json.loads(command("config", "path", "--json")[1]) == {"path": str(file), "is_read": False, "notices": []}
    own_file(tmp_path, "").chmod(0o666)
    status, printed, said = command("config", "path")
    assert (status, printed) == (0, f"{file}\n")
    assert said.startswith(f"segue: {file} is not read, since others can change")
    file.chmod(0o600)
    assert json.loads(command("config", "path", "--json")[1])["is_read"]


def test_a_user_without_a_folder_is_told_to_name_a_file(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "user_config_file", lambda: None)
    status, _, said = command("config", "path")
    assert (status, said) == (2, "segue: this user has no folder for settings; name a file with --config\n")


def test_each_setting_is_shown_with_its_source_and_no_secret(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = '[sidecar]\ngateways = ["wss://g.example", "\\u001b[2J\\u202e"]\nkey = "sk-secret"\n'
    file = own_file(tmp_path, text)
    (tmp_path / "segue.toml").write_text("[sidecar]\nport = 1\n")
    monkeypatch.setenv("SEGUE_SIDECAR_PORT", "4999")
    status, printed, said = command("config", "show")
    assert status == 0
    assert said.startswith("segue: segue.toml in this folder is not read")
    first, *lines = printed.splitlines()
    assert first == f"file: {file}"
    settings = {line.split()[0]: " ".join(line.split()[1:]) for line in lines}
    assert settings["sidecar.port"] == "4999 (environment: SEGUE_SIDECAR_PORT)"
    assert settings["sidecar.key"] == f'"(set)" (file: {file})'
    assert settings["sidecar.cache_dir"] == '"" (default)'
    assert "\x1b" not in printed
    assert "\u202e" not in printed
    assert "sk-secret" not in printed
    told = json.loads(command("config", "show", "--json", "--config", "segue.toml")[1])
    assert told["file"] == "segue.toml"
    port = next(one for one in told["settings"] if one["name"] == "sidecar.port")
    assert (port["value"], port["source"], port["where"]) == (4999, "environment", "SEGUE_SIDECAR_PORT")


def test_without_a_file_everything_is_a_default_or_a_variable(command: Command) -> None:
    assert command("config", "show")[1].startswith("file: none\n")
