"""A machine to ssh to that is none: the program `ssh` is a script, and so is the `segue` of the far side."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

#: Runs what it is given as the far side's shell does, with the far side's programs alone, and notes its process.
_SSH = """#!/bin/sh
echo "$$ $*" >>"{folder}/started"
{before}
for script; do :; done
PATH="{folder}/far:/bin:/usr/bin" HOME="{folder}/home" exec sh -c "$script"
"""

READY = "printf '\\nsegue-ssh READY 1 0.1.0\\n'"
ECHO = f"{READY}; exec cat"


class SshDouble:
    """What stands for `ssh` and for the machine that it leads to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.near, self._far = folder / "near", folder / "far"
        for place in (self.near, self._far, folder / "home"):
            place.mkdir()
        self.answer()

    def answer(self, before: str = "") -> None:
        """Set what `ssh` does before anything runs on the far side, such as to ask, or to fail."""
        _write(self.near / "ssh", _SSH.format(folder=self.folder, before=before))

    def install(self, body: str, *, name: str = "segue", interpreter: str = "/bin/sh") -> None:
        """Install a program on the far side."""
        _write(self._far / name, f"#!{interpreter}\n{body}\n")

    @property
    def processes(self) -> list[int]:
        """Every `ssh` that was started."""
        return [int(line.partition(" ")[0]) for line in self._started()]

    @property
    def arguments(self) -> list[str]:
        """What each was started with."""
        return [line.partition(" ")[2] for line in self._started()]

    def newest(self, host: str = "box") -> int:
        """Return the process of the newest `ssh` to a host."""
        return [pid for pid, line in zip(self.processes, self.arguments, strict=True) if f" -- {host} " in line][-1]

    def cut(self, host: str = "box") -> None:
        """Kill the newest `ssh` to a host, with all that it runs here."""
        os.killpg(self.newest(host), signal.SIGKILL)

    def running(self) -> list[int]:
        """Every `ssh` that has not ended."""
        return [pid for pid in self.processes if _runs(pid)]

    def _started(self) -> list[str]:
        file = self.folder / "started"
        return file.read_text().splitlines() if file.exists() else []


def _write(file: Path, text: str) -> None:
    made = file.with_suffix(".new")
    made.write_text(text)
    made.chmod(0o755)
    made.replace(file)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture
def box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SshDouble:
    """A machine that every `ssh` of this test leads to."""
    double = SshDouble(tmp_path)
    monkeypatch.setenv("PATH", f"{double.near}:{os.environ['PATH']}")
    return double
