"""The commands as a user calls them: what they print, where, and with which exit status."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from segue import __version__
from segue.cli import demo
from segue.cli.check_config import run_check_config
from segue.cli.demo import run_demo

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


def segue(folder: Path, *arguments: str) -> tuple[int, str, str]:
    """Run a command in `folder`; returns its exit status and what it wrote to stdout and stderr."""
    command = [sys.executable, "-m", "segue", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=60)
    return done.returncode, done.stdout, done.stderr


def test_help_lists_the_commands(tmp_path: Path) -> None:
    """Without importing what the commands need: help has to be there at once."""
    status, printed, _ = segue(tmp_path, "--help")
    assert status == 0
    assert all(name in printed for name in ("serve", "check-config", "demo", "bench", "--install-completion"))
    probe = "import sys, segue.cli.main; print(sorted({'aiohttp', 'cyllama', 'sqlite3', 'msgspec'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_version(tmp_path: Path) -> None:
    """One line, for scripts."""
    assert segue(tmp_path, "--version") == (0, f"{__version__}\n", "")


def test_check_config_says_what_a_file_means(tmp_path: Path) -> None:
    """In the folder's segue.toml, or in the file that is named; as one JSON object for scripts."""
    (tmp_path / "segue.toml").write_text(KEYED)
    status, printed, told = segue(tmp_path, "check-config", "--json")
    assert (status, told) == (0, "")
    said = json.loads(printed)
    assert (said["file"], said["models"]) == ("segue.toml", ["toy", "scripted"])
    assert said["config"]["key"][0]["tenant"] == "alice"
    status, printed, told = segue(tmp_path, "check-config", "--config", "segue.toml")
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


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[server]\nprot = 1\n", "did you mean 'port'?"),
        ("[server]\nport = 'x'\n", "server.port"),
        ("[server]\nhost = '0.0.0.0'\n", "add one"),
        ("[server]\nstore = 'redis://x'\n", "sqlite:///segue.db"),
        ("[server\n", "not valid TOML"),
        (
            "[[upstream]]\nname='a'\ndialect='chat'\nmodels=['m']\nbase_url='http://h'\nbody={input=1,model='x'}\n",
            "body.m",
        ),
        ("[[upstream]]\nname='a'\ndialect='local'\nmodels=['m']\nmodel_file='no.gguf'\n", "upstream 'a'"),
    ],
)
@pytest.mark.parametrize("command", ["check-config", "serve"])
def test_a_bad_configuration_is_explained(command: str, text: str, said: str, tmp_path: Path) -> None:
    """On stderr in one line, with exit status 2, and nothing is started or left behind."""
    (tmp_path / "segue.toml").write_text(text)
    status, printed, told = segue(tmp_path, command)
    assert (status, printed) == (2, "")
    assert told.startswith("segue: ")
    assert said in told
    assert "Traceback" not in told
    assert [path.name for path in tmp_path.iterdir()] == ["segue.toml"]


@pytest.mark.local_model
def test_a_damaged_model_is_explained(tmp_path: Path) -> None:
    """It shows only when the model is loaded, and is told like any other mistake."""
    (tmp_path / "bad.gguf").write_bytes(b"GGUF and nothing good after it")
    (tmp_path / "segue.toml").write_text(
        "[server]\nstore='memory:'\n[[upstream]]\nname='a'\ndialect='local'\nmodels=['m']\nmodel_file='bad.gguf'\n"
    )
    status, printed, told = segue(tmp_path, "serve", "--log", "error")
    assert (status, printed) == (2, "")
    assert "bad.gguf cannot be loaded" in told
    assert "Traceback" not in told


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """Named by the user, so it must exist."""
    status, printed, told = segue(tmp_path, "check-config", "--config", "no.toml")
    assert (status, printed) == (2, "")
    assert "cannot read no.toml" in told


def test_the_demo_without_a_local_model(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """The scripted model answers instead, and that is said; the figures are those of the same conversation twice."""
    monkeypatch.setattr(demo, "why_no_local_model", lambda: "it is not installed here")
    assert run_demo(None, tmp_path / "demo.json") == 0
    printed = capsys.readouterr().out
    assert "No local model: it is not installed here" in printed
    resent, continued = json.loads((tmp_path / "demo.json").read_bytes())["arms"]
    assert [len(arm["turns"]) for arm in (resent, continued)] == [6, 6]
    sent = [turn["bytes_up_payload"] for turn in resent["turns"]]
    assert sent == sorted(sent)
    assert continued["totals"]["bytes_up_wire"] < resent["totals"]["bytes_up_wire"] / 2
    assert f"{continued['totals']['bytes_up_wire']:,} bytes instead of" in printed
