"""The command line as a user calls it: what it prints, where, and with which exit status."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import segue.cli.check_config
from segue import __version__
from tests.cli.conftest import Command

#: Prints which of the large packages the command line imports by itself.
PROBE = """
import sys
before = set(sys.modules)
import segue.cli.main
print(sorted({"aiohttp", "cyllama", "sqlite3", "msgspec"} & (set(sys.modules) - before)))
"""


def test_help_lists_the_commands(command: Command) -> None:
    """Without importing what the commands need: help has to be there at once."""
    status, printed, _ = command("--help")
    assert status == 0
    assert all(name in printed for name in ("serve", "check-config", "demo", "bench", "--install-completion"))
    done = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_version_is_one_line() -> None:
    """As a process of its own: this is how `python -m segue` starts."""
    done = subprocess.run([sys.executable, "-m", "segue", "--version"], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == (f"{__version__}\n", "")


def test_ctrl_c_has_the_status_that_shells_know(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(segue.cli.check_config, "run_check_config", interrupted)
    assert command("check-config") == (130, "", "")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[server]\nprot = 1\n", "did you mean port?"),
        ("[server]\nport = 'x'\n", "[server] port"),
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
@pytest.mark.parametrize("verb", ["check-config", "serve"])
def test_a_bad_configuration_is_explained(verb: str, text: str, said: str, command: Command, tmp_path: Path) -> None:
    """On stderr in one line, with exit status 2, and nothing is started or left behind."""
    (tmp_path / "segue.toml").write_text(text)
    status, printed, told = command(verb)
    assert (status, printed) == (2, "")
    assert told.startswith("segue: ")
    assert said in told
    assert "Traceback" not in told
    assert [path.name for path in tmp_path.iterdir()] == ["segue.toml"]


@pytest.mark.local_model
def test_a_damaged_model_is_explained(command: Command, tmp_path: Path) -> None:
    """It shows only when the model is loaded, and is told like any other mistake."""
    (tmp_path / "bad.gguf").write_bytes(b"GGUF and nothing good after it")
    (tmp_path / "segue.toml").write_text(
        "[server]\nstore='memory:'\n[[upstream]]\nname='a'\ndialect='local'\nmodels=['m']\nmodel_file='bad.gguf'\n"
    )
    status, printed, told = command("serve", "--log", "error")
    assert (status, printed) == (2, "")
    assert "bad.gguf cannot be loaded" in told
    assert "Traceback" not in told
