"""The workspaces of the tasks: which there are, and how one is made. The same bytes on every machine.

Not here: the check of a workspace (`checking`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

#: The tasks, and what each is about.
TASKS: Mapping[str, str] = {
    "fix-a-failing-test": "find why one test fails, and mend the cause; the first mend breaks another test",
    "add-a-search-feature": "add a search to a program: a module, a command, tests and a line of the README",
    "refactor-an-api-layer": "give the handlers of a service one way to answer, over seven modules",
    "mend-a-failing-build": "mend a build that stops at the first of several errors",
}

_FOLDER = Path(__file__).parent
#: What Python files end in while they are data; see the package.
_TEMPLATE_SUFFIX = ".py-tpl"


class TaskFolderError(ValueError):
    """The workspace cannot be made, or is none; the message says why."""


def list_tasks() -> tuple[str, ...]:
    """Return the names of the tasks."""
    return tuple(TASKS)


def make_task(name: str, folder: Path) -> None:
    """Make the workspace of a task in a new or empty folder.

    Raises:
        TaskFolderError: there is no such task, or the folder is no empty one.
    """
    files = workspace_files(name)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise TaskFolderError(f"{folder} is not empty; name a new folder")
    write_files(files, folder)


def task_prompt(name: str) -> str:
    """Return what the user asks: the text of TASK.md, whose last line is the task's marker.

    Raises:
        TaskFolderError: there is no such task.
    """
    return workspace_files(name)["TASK.md"].decode()


def workspace_files(name: str) -> dict[str, bytes]:
    """Return the files of a task's workspace by path.

    Raises:
        TaskFolderError: there is no such task.
    """
    return _files_below(_task_folder(name) / "workspace")


def check_files(name: str) -> dict[str, bytes]:
    """Return the tests of a task that the agent does not see.

    Raises:
        TaskFolderError: there is no such task.
    """
    return _files_below(_task_folder(name) / "check")


def write_files(files: Mapping[str, bytes], folder: Path) -> None:
    """Write files below a folder, byte for byte."""
    for path, data in files.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)


def _task_folder(name: str) -> Path:
    if name not in TASKS:
        raise TaskFolderError(f"there is no task {name!r}; the tasks are {', '.join(TASKS)}")
    return _FOLDER / name


def _files_below(folder: Path) -> dict[str, bytes]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {_name_in_workspace(path.relative_to(folder)): path.read_bytes() for path in paths}


def _name_in_workspace(path: Path) -> str:
    return (path.with_suffix(".py") if path.suffix == _TEMPLATE_SUFFIX else path).as_posix()
