"""The agent's six tools in a few lines, for tests that want its workspaces solved without the agent.

They answer in the same form. Nothing here guards a workspace.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

from segue.upstreams.scripted_tasks import Answered, Called, Said, next_answer

_ENVIRONMENT = {
    "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.defpath)),
    "PYTHONDONTWRITEBYTECODE": "1",
}


def use_tool(workspace: Path, name: str, arguments: str) -> str:
    """Carry out a call and return the answer."""
    values: dict[str, Any] = json.loads(arguments)
    try:
        return _TOOLS[name](workspace, **values)
    except (OSError, ValueError) as error:
        return f"error: {error}"


class Played(NamedTuple):
    """A task as it was played: the last text, and how many turns and calls it took."""

    text: str
    turns: int
    calls: int
    conversation: list[Said | Called | Answered]


def play(
    workspace: Path, prompt: str, changed: Callable[[Called, str], str | None] = lambda _, answer: answer
) -> Played:
    """Let the scripted model solve a task, with these tools; `changed` may put another answer, or none, in place."""
    conversation: list[Said | Called | Answered] = [Said(prompt)]
    for turn in count(1):
        answer = next_answer(conversation)
        assert answer is not None
        calls = [Called(call.call_id, call.name, call.arguments) for call in answer.calls]
        if not calls:
            made = sum(isinstance(entry, Called) for entry in conversation)
            return Played(answer.text, turn, made, conversation)
        conversation += calls
        for call in calls:
            told = changed(call, use_tool(workspace, call.name, call.arguments))
            conversation += [] if told is None else [Answered(call.call_id, told)]
    raise AssertionError


def files_of(workspace: Path) -> dict[str, bytes]:
    """Return all files of a workspace by path."""
    paths = sorted(path for path in workspace.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(workspace).as_posix(): path.read_bytes() for path in paths}


def _list(workspace: Path, path: str, depth: int | None = None) -> str:
    lines: list[str] = []
    for name in files_of(workspace / path):
        *folders, file = name.split("/")
        lines += [f"{folder}/" for folder in folders if f"{folder}/" not in lines]
        lines.append(f"  {file}")
    return "\n".join(lines)


def _read(workspace: Path, path: str, first_line: int | None = None, last_line: int | None = None) -> str:
    lines = (workspace / path).read_text(encoding="utf-8").splitlines(keepends=True)
    if first_line is None and last_line is None:
        return "".join(lines)
    first, last = first_line or 1, min(last_line or len(lines), len(lines))
    return f"[lines {first} to {last} of {len(lines)}]\n" + "".join(lines[first - 1 : last])


def _search(workspace: Path, pattern: str, path: str = ".", *, regex: bool = False) -> str:
    assert not regex
    found = []
    for name, data in files_of(workspace).items():
        if path == "." or name.startswith(f"{path}/"):
            lines = data.decode().splitlines()
            found += [f"{name}:{number}:{line}" for number, line in enumerate(lines, 1) if pattern in line]
    return "\n".join([*found, "(some files searched)"])


def _edit(workspace: Path, path: str, old: str, new: str) -> str:
    text = (workspace / path).read_text(encoding="utf-8")
    if text.count(old) != 1:
        raise ValueError(f"old stands {text.count(old)} times in {path!r}")
    (workspace / path).write_bytes(text.replace(old, new).encode())
    return "replaced 1 place"


def _write(workspace: Path, path: str, text: str) -> str:
    return f"wrote {(workspace / path).write_bytes(text.encode())} bytes"


def _run(workspace: Path, command: str, time_limit_s: int | None = None) -> str:
    program = ("/bin/sh", "-c", command)
    ended = subprocess.run(program, cwd=workspace, env=_ENVIRONMENT, capture_output=True, text=True, check=False)
    return f"[exit status {ended.returncode}]\n{ended.stdout}{ended.stderr}"


_TOOLS: dict[str, Callable[..., str]] = {
    "list": _list,
    "read": _read,
    "search": _search,
    "edit": _edit,
    "write": _write,
    "run": _run,
}
