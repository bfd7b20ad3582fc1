"""A command whose reader goes away ends without a word, and with the status that shells know."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import segue.cli.check_config
from segue.cli.closed_pipe import PIPE_CLOSED_STATUS, is_pipe_closed
from tests.cli.conftest import Command


@pytest.mark.parametrize("line", [("bench", "links"), ("config", "show"), ("--help",)], ids=" ".join)
def test_a_reader_that_goes_away_ends_a_command_quietly(line: tuple[str, ...], tmp_path: Path) -> None:
    """As `segue … | head` does, in whatever way a command prints: with the status of a program that SIGPIPE ends."""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as out:
        program = [sys.executable, "-m", "segue", *line]
        done = subprocess.run(program, stdout=out, stderr=subprocess.PIPE, cwd=tmp_path, check=False)
    assert (done.returncode, done.stderr) == (PIPE_CLOSED_STATUS, b"")


def test_another_exit_is_not_taken_for_that(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def ended(*_: object, **__: object) -> int:
        raise SystemExit(3)

    monkeypatch.setattr(segue.cli.check_config, "run_check_config", ended)
    assert command("check-config") == (3, "", "")


def test_what_a_closed_pipe_looks_like() -> None:
    """Rich raises an exit of its own while it handles the error."""
    by_rich = SystemExit(1)
    by_rich.__context__ = BrokenPipeError()
    assert is_pipe_closed(by_rich)
    assert is_pipe_closed(BrokenPipeError())
    assert not is_pipe_closed(SystemExit(1))


def test_output_that_has_no_file_is_let_be(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> int:
        raise BrokenPipeError

    monkeypatch.setattr(segue.cli.check_config, "run_check_config", broken)
    assert command("check-config") == (PIPE_CLOSED_STATUS, "", "")
