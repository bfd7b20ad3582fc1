"""The files that keep a sidecar running are what their managers take."""

from __future__ import annotations

import plistlib
import shlex
import shutil
import subprocess
import sys
from configparser import RawConfigParser
from pathlib import Path

import pytest

from segue.cli.main import app

SERVICES = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "services"
UNIT, AGENT = SERVICES / "segue-sidecar.service", SERVICES / "segue.sidecar.plist"


def is_command(arguments: list[str]) -> bool:
    """Tell whether these arguments behind `segue` are a command with its options."""
    command, bound, _ = app.parse_args(arguments, exit_on_error=False, print_error=False)
    return command.__name__ == "sidecar" and bound.arguments.keys() <= {"log"}


def test_the_unit_starts_a_sidecar_again_unless_its_settings_are_wrong() -> None:
    unit = RawConfigParser()
    unit.optionxform = str  # type: ignore[assignment, method-assign] # names of systemd have capitals
    unit.read_string(UNIT.read_text(encoding="utf-8"))
    program, *arguments = shlex.split(unit["Service"]["ExecStart"])
    assert program == "%h/.local/bin/segue"
    assert is_command(arguments)
    assert unit["Service"]["RestartPreventExitStatus"] == "2", "the exit status of a mistake in the configuration"
    assert unit["Install"]["WantedBy"] == "default.target"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze here")
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    """With a program that is there in place of the user's."""
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text(encoding="utf-8").replace("%h/.local/bin/segue", sys.executable))
    line = ["systemd-analyze", "verify", "--user", str(unit)]
    environ = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path)}
    done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=60, env=environ)
    assert (done.returncode, done.stderr) == (0, "")


def test_launchd_is_given_a_sidecar_that_it_starts_again() -> None:
    agent = plistlib.loads(AGENT.read_bytes())
    assert agent["Label"] == AGENT.stem
    shell, flag, line = agent["ProgramArguments"]
    assert (shell, flag) == ("/bin/sh", "-c")
    _, program, *arguments, log = shlex.split(line)
    assert program == "$HOME/.local/bin/segue"
    assert is_command(arguments)
    assert log == "2>>$HOME/Library/Logs/segue-sidecar.log"
    assert (agent["RunAtLoad"], agent["KeepAlive"], agent["Umask"]) == (True, {"SuccessfulExit": False}, 0o077)
