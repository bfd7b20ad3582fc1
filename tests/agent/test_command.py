"""A command runs only when it is approved, and its end is told to the model."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from segue.agent.command import RunArguments, run_command
from segue.agent.workspace import ToolError, Workspace


class Asked:
    """Approves or refuses, and remembers what it was asked."""

    def __init__(self, answer: str | None = None) -> None:
        self.answer = answer
        self.commands: list[str] = []

    async def __call__(self, command: str) -> str | None:
        self.commands.append(command)
        return self.answer


async def run(folder: Path, arguments: RunArguments, asked: Asked) -> str:
    environment = {"PATH": os.environ["PATH"]}
    return await run_command(Workspace(folder), arguments, environment=environment, approval=asked)


async def test_the_end_of_a_command_is_told(tmp_path: Path) -> None:
    asked = Asked()
    assert await run(tmp_path, RunArguments("echo hello; exit 2"), asked) == "exit status: 2\nhello\n"
    assert await run(tmp_path, RunArguments("kill -15 $$"), asked) == "ended by signal: 15\n"
    assert await run(tmp_path, RunArguments("echo a; sleep 99", 1), asked) == "killed after 1 s\na\n"
    assert asked.commands == ["echo hello; exit 2", "kill -15 $$", "echo a; sleep 99"]


async def test_what_is_refused_does_not_run(tmp_path: Path) -> None:
    with pytest.raises(ToolError, match="the command was not run: the user said no"):
        await run(tmp_path, RunArguments("touch made"), Asked("the user said no"))
    assert not (tmp_path / "made").exists()


async def test_a_command_that_cannot_be_one(tmp_path: Path) -> None:
    with pytest.raises(ToolError, match="could not be started: embedded null byte"):
        await run(tmp_path, RunArguments("a\0b"), Asked())
    with pytest.raises(ToolError, match=r"could not be started: .*Argument list too long"):
        await run(tmp_path, RunArguments("true " + "x" * 3_000_000), Asked())
