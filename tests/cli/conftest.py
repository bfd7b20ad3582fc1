"""A command in this process, as a shell would run it: what it printed, and its exit status."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import pytest

from segue.cli.main import main
from tests.heard_tunnels import heard_tunnels
from tests.sidecar.ssh_machines import box

__all__ = ["box", "heard_tunnels"]

Command: TypeAlias = Callable[..., tuple[int, str, str]]


def own_file(folder: Path, text: str) -> Path:
    """Write the user's own configuration file, which is where `XDG_CONFIG_HOME=FOLDER/config` says."""
    file = folder / "config" / "segue" / "segue.toml"
    file.parent.mkdir(parents=True)
    file.write_text(text)
    for place, mode in ((file, 0o644), (file.parent, 0o755), (file.parent.parent, 0o755)):  # whatever the umask
        place.chmod(mode)
    return file


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Command]:
    """Run a command in `tmp_path`; returns its exit status and what it wrote to stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEGUE_SIDECAR_CACHE", "false")  # nothing goes into the user's cache directory
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))  # nothing comes from the user's own file
    root = logging.getLogger()
    handlers, level, disabled = root.handlers[:], root.level, logging.root.manager.disable

    def run(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert isinstance(ended.value.code, int)
        printed = capsys.readouterr()
        return ended.value.code, printed.out, printed.err

    yield run
    root.handlers[:] = handlers  # a command sets up the log of its process
    root.setLevel(level)
    logging.disable(disabled)
