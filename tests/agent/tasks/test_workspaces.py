"""The workspaces of the tasks: made byte for byte, and only where nothing is yet."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from segue.agent.tasks.workspaces import (
    TASKS,
    TaskFolderError,
    check_files,
    list_tasks,
    make_task,
    task_prompt,
    workspace_files,
)
from segue.upstreams.scripted_tasks import MARKER, SCRIPTS
from tests.agent_tools import files_of

#: A change of a workspace changes what is measured with it, so it is made on purpose: here too.
DIGESTS = {
    "fix-a-failing-test": "50825c226e55f593",
    "add-a-search-feature": "3b643597d3c06645",
    "refactor-an-api-layer": "74111d3f6d0c49da",
    "mend-a-failing-build": "fdd39f50c24a883b",
}


def digest(files: dict[str, bytes]) -> str:
    hashed = hashlib.sha256()
    for name, data in sorted(files.items()):
        hashed.update(b"%b\0%d\0%b" % (name.encode(), len(data), data))
    return hashed.hexdigest()[:16]


@pytest.mark.parametrize("task", TASKS)
def test_a_workspace_is_the_same_on_every_machine(task: str, tmp_path: Path) -> None:
    make_task(task, tmp_path / "new" / "workspace")
    made = files_of(tmp_path / "new" / "workspace")
    assert made == workspace_files(task)
    assert digest(made) == DIGESTS[task]


@pytest.mark.parametrize("task", TASKS)
def test_its_files_are_plain_text_with_plain_line_ends(task: str) -> None:
    for name, data in (workspace_files(task) | check_files(task)).items():
        assert data.decode().endswith("\n"), name
        assert b"\r" not in data, name
        assert not name.endswith("-tpl")


def test_each_folder_beside_the_module_is_a_task_that_the_scripted_model_solves() -> None:
    folder = Path(__file__).parents[3] / "src" / "segue" / "agent" / "tasks"
    there = {path.name for path in folder.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert there == set(list_tasks()) == set(SCRIPTS)


@pytest.mark.parametrize("task", TASKS)
def test_the_prompt_ends_with_the_marker(task: str, tmp_path: Path) -> None:
    make_task(task, tmp_path)
    assert task_prompt(task) == (tmp_path / "TASK.md").read_text(encoding="utf-8")
    assert task_prompt(task).splitlines()[-1] == f"{MARKER}{task}"


def test_what_is_there_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(TaskFolderError, match="is not empty"):
        make_task("fix-a-failing-test", tmp_path)
    with pytest.raises(TaskFolderError, match="is not empty"):
        make_task("fix-a-failing-test", tmp_path / "mine.txt")
    assert files_of(tmp_path) == {"mine.txt": b"mine"}


def test_an_unknown_task_is_refused_with_the_names_of_the_others(tmp_path: Path) -> None:
    for attempt in (lambda: make_task("../tasks", tmp_path), lambda: task_prompt("x"), lambda: check_files("x")):
        with pytest.raises(TaskFolderError, match="the tasks are fix-a-failing-test, "):
            attempt()
