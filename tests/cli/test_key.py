"""`segue key`: a key is shown once, the file gets its digest, and nothing but what `serve` can read is written."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from pathlib import Path

import pytest

from segue.cli.key import PREFIX
from segue.cli.main import app
from segue.config import ConfigError, load


def run(*words: str) -> None:
    assert app(list(words), result_action="return_value") == 0


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_key_is_printed_alone_and_only_its_digest_is_kept(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("key", "new", "alice", "--expires", "2999-01-01", "--model", "gpt-*", "--model", "small", "--route", "/openai")
    out, err = capsys.readouterr()
    secret = out.removesuffix("\n")
    assert secret.startswith(PREFIX)
    assert len(secret) > 40
    assert secret not in err
    file = folder / "segue.toml"
    assert secret not in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    (key,) = load(file, {}).key
    assert key.sha256 == hashlib.sha256(secret.encode()).hexdigest()
    assert (key.name, key.tenant, key.models, key.routes) == ("alice", "alice", ["gpt-*", "small"], ["/openai"])
    assert key.expires_at is not None
    assert list(folder.iterdir()) == [file]


def test_keys_are_listed_and_revoked(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = folder / "team.toml"
    file.write_text("[server]\nport = 4748  # ours\n")
    file.chmod(0o640)
    for name in ("alice", "[bold]bob"):
        run("key", "new", name, "--tenant", "team", "--config", str(file), "--json")
    made = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [one["name"] for one in made] == ["alice", "[bold]bob"]
    run("key", "list", "-c", str(file))
    out = capsys.readouterr().out
    assert "[bold]bob" in out
    assert "never" in out
    run("key", "list", "-c", str(file), "--json")
    listed = json.loads(capsys.readouterr().out)
    assert [{name: one[name] for name in listed[0]} for one in made] == listed
    for name in ("alice", "[bold]bob"):
        run("key", "revoke", name, "-c", str(file))
    assert file.read_text().startswith("[server]\nport = 4748  # ours\n")
    assert load(file, {}).key == []
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    run("key", "list", "-c", str(file))
    assert "has no keys" in capsys.readouterr().out.replace("\n", " ")


def test_the_file_stays_with_its_owner(folder: Path) -> None:
    """root adds a key to the file of the service's user, which must still be able to read it."""
    file = folder / "segue.toml"
    file.write_text("")
    owner = (65534, 65534) if os.geteuid() == 0 else (os.geteuid(), os.getgroups()[-1])
    os.chown(file, *owner)
    run("key", "new", "alice")
    assert (file.stat().st_uid, file.stat().st_gid) == owner


def test_an_expired_key_is_shown_as_over(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = f'[[key]]\nname = "a"\ntenant = "a"\nsha256 = "{"0" * 64}"\nexpires_at = 2020-01-01T00:00:00Z\n'
    (folder / "segue.toml").write_text(table)
    run("key", "list")
    assert "(over)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["list"], "there is no segue.toml: name the gateway's file with --config"),
        (["revoke", "x"], "there is no segue.toml: name the gateway's file with --config"),
        (["new", ""], "segue.toml was not changed: segue.toml: [[key]] number 1 name: must not be empty"),
        (["new", "x", "--expires", "soon"], "'soon' is no time"),
        (["new", "x", "-c", "none/segue.toml"], "cannot write none/segue.toml: no such file or directory"),
    ],
)
@pytest.mark.usefixtures("folder")
def test_what_cannot_be_done_is_told(words: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        app(["key", *words], result_action="return_value")
    assert str(caught.value).startswith(message)
    assert not Path("segue.toml").exists()


def test_a_file_that_serve_would_refuse_is_not_written(folder: Path) -> None:
    run("key", "new", "alice")
    before = (folder / "segue.toml").read_text()
    with pytest.raises(ConfigError, match=r"segue\.toml was not changed: two \[\[key\]\] tables are named 'alice'"):
        app(["key", "new", "alice"], result_action="return_value")
    assert (folder / "segue.toml").read_text() == before
    assert len(list(folder.iterdir())) == 1


def test_a_file_that_is_no_text_is_not_touched(folder: Path) -> None:
    (folder / "segue.toml").write_bytes(b"\xff")
    with pytest.raises(ConfigError, match=r"cannot read segue\.toml"):
        app(["key", "revoke", "x"], result_action="return_value")
