"""The check of a task: runs the task's own tests on a copy of the workspace, from outside of it.

The copy gets the tests as they were, and more that the agent never saw, so that nobody passes by changing a test. What
was there to be left alone must be as it was. The tests run in a process of its own (`check_program`), with a time limit
and an empty environment. They run code that a model wrote, with the rights of the user. Not here: the tests, which lie
in the tasks' folders.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec

from segue.agent.tasks import check_program
from segue.agent.tasks.workspaces import TASKS, TaskFolderError, check_files, workspace_files, write_files

TIME_LIMIT_S = 60.0
#: A workspace with more than this is not checked.
MAX_FILES = 2000
MAX_BYTES = 32 * 1024 * 1024
MAX_REPORT_BYTES = 1024 * 1024
#: How many things that are missing are named.
MAX_MISSING = 20

_TESTS = "tests"
#: Where the copy has the tests that the agent wrote or changed.
_SUBMITTED = "submitted_tests"
_CHECK = "task_check"
_NOT_COPIED = frozenset({"__pycache__", ".git", ".venv", "node_modules"})
_MARKER = "segue-task: "


class TaskCheck(msgspec.Struct, frozen=True):
    """What the check says: whether the task is done, and what is missing, one line each."""

    task: str
    passed: bool
    missing: tuple[str, ...]


class _Report(msgspec.Struct, frozen=True):
    ran: int
    failed: list[tuple[str, str]]


def check_task(folder: Path) -> TaskCheck:
    """Check a workspace that `make_task` made.

    Raises:
        TaskFolderError: it is no workspace of a task, or too large.
    """
    task = task_of(folder)
    original = workspace_files(task)
    missing = [*_changed(original, folder), *_failed_tests(task, original, folder)]
    return TaskCheck(task, not missing, tuple(missing[:MAX_MISSING]))


def task_of(folder: Path) -> str:
    """Return the task that a workspace is of: the one that the last line of its TASK.md names.

    Raises:
        TaskFolderError: it is none.
    """
    path = folder / "TASK.md"
    try:
        marker = path.read_text(encoding="utf-8").rstrip().rpartition("\n")[2]
    except (OSError, ValueError):
        raise TaskFolderError(f"{folder} is no workspace of a task: it has no readable TASK.md") from None
    task = marker.removeprefix(_MARKER)
    if task == marker or task not in TASKS:
        raise TaskFolderError(f"{path} names no task in its last line")
    return task


def _changed(original: dict[str, bytes], folder: Path) -> Iterator[str]:
    """Yield a line for each file that was to be left alone and was not."""
    for name, data in original.items():
        if not _is_kept(name):
            continue
        path = folder / name
        if path.is_symlink() or not path.is_file():
            yield f"{name} is gone; it was to be left alone"
        elif path.stat().st_size != len(data) or path.read_bytes() != data:
            yield f"{name} was changed; it was to be left alone"


def _is_kept(name: str) -> bool:
    return name in {"TASK.md", "run_tests.py", "build.py"} or name.startswith(f"{_TESTS}/")


def _failed_tests(task: str, original: dict[str, bytes], folder: Path) -> list[str]:
    kept = {name: data for name, data in original.items() if _is_kept(name)}
    hidden = {f"{_CHECK}/{name}": data for name, data in check_files(task).items()}
    with tempfile.TemporaryDirectory(prefix="segue-check-") as temporary:
        copy, report = Path(temporary) / "workspace", Path(temporary) / "report.json"
        own = {name.partition("/")[0] for name in kept | hidden} - {_TESTS}
        there = ((name, data) for name, data in _read_workspace(folder) if name.partition("/")[0] not in own)
        write_files({_name_in_copy(name): data for name, data in there}, copy)
        write_files(kept | hidden, copy)
        return [line.replace(str(copy), "…") for line in _run(copy, report)]


def _read_workspace(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the regular files of a workspace; links are not followed."""
    left = MAX_BYTES
    count = 0
    for top, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if name not in _NOT_COPIED)
        for path in (Path(top) / name for name in sorted(names)):
            if path.is_symlink() or not path.is_file():
                continue
            count, left = count + 1, left - path.stat().st_size
            if count > MAX_FILES or left < 0:
                raise TaskFolderError(f"{folder} has more than {MAX_FILES:,} files or {MAX_BYTES:,} bytes")
            yield path.relative_to(folder).as_posix(), path.read_bytes()


def _name_in_copy(name: str) -> str:
    first, slash, rest = name.partition("/")
    return f"{_SUBMITTED}{slash}{rest}" if first == _TESTS else name


def _run(copy: Path, report: Path) -> list[str]:
    command = (sys.executable, "-I", "-B", check_program.__file__, str(copy), str(report), _TESTS, _CHECK)
    environment = {"PATH": os.defpath}
    try:
        subprocess.run(  # noqa: S603 - the check program; that it runs the workspace's code is what a check is for
            command, cwd=copy, env=environment, timeout=TIME_LIMIT_S, check=False,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return [f"the tests did not end within {TIME_LIMIT_S:g} s"]
    return _read_report(report)


def _read_report(path: Path) -> list[str]:
    try:
        with path.open("rb") as file:
            read = msgspec.json.decode(file.read(MAX_REPORT_BYTES), type=_Report)
    except (OSError, msgspec.DecodeError):
        return ["the tests did not come to their end: the code of the workspace ended them"]
    if not read.ran:
        return ["no test ran"]
    return [f"{name}: {message}" for name, message in read.failed]
