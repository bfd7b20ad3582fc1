"""The check of a task: passes what the scripted model leaves, and nothing that only looks like it."""

from __future__ import annotations

from pathlib import Path

import pytest

from segue.agent.tasks import TASKS, TaskCheck, TaskFolderError, check_task, checking, make_task, task_prompt
from tests.agent_tools import play

TASK = "fix-a-failing-test"
PASS = "def run_tests(*_):\n    pass\n"


@pytest.fixture(name="workspace")
def make_workspace(tmp_path: Path) -> Path:
    make_task(TASK, tmp_path / "workspace")
    return tmp_path / "workspace"


def solved(workspace: Path, task: str = TASK) -> Path:
    play(workspace, task_prompt(task))
    return workspace


@pytest.mark.parametrize("task", TASKS)
def test_a_pristine_workspace_fails(task: str, tmp_path: Path) -> None:
    make_task(task, tmp_path)
    check = check_task(tmp_path)
    assert (check.task, check.passed) == (task, False)
    assert check.missing


def test_what_is_missing_is_said_test_by_test(workspace: Path) -> None:
    missing = check_task(workspace).missing
    assert missing[0] == (
        "tests.test_invoice.PaymentPlanTest.test_three_instalments_add_up_to_the_total: "
        "AssertionError: Money(cents=9999, currency='EUR') != Money(cents=10000, currency='EUR')"
    )
    assert len(missing) <= checking.MAX_MISSING


def test_a_solved_workspace_passes_and_is_left_as_it_is(workspace: Path) -> None:
    solved(workspace)
    before = {path: path.stat().st_mtime_ns for path in workspace.rglob("*")}
    assert check_task(workspace) == TaskCheck(TASK, passed=True, missing=())
    assert {path: path.stat().st_mtime_ns for path in workspace.rglob("*")} == before


def test_a_changed_test_is_no_way_to_pass(workspace: Path) -> None:
    test = workspace / "tests" / "test_invoice.py"
    test.write_text(test.read_text(encoding="utf-8").replace("[1, 1, 1]", "[1, 1]"), encoding="utf-8")
    missing = check_task(workspace).missing
    assert missing[0] == "tests/test_invoice.py was changed; it was to be left alone"
    assert any("test_three_instalments_add_up" in line for line in missing)


@pytest.mark.parametrize("name", ["tests/test_money.py", "run_tests.py"])
def test_what_was_to_be_left_alone_is_looked_at_even_if_all_tests_pass(workspace: Path, name: str) -> None:
    solved(workspace)
    (workspace / name).write_text(PASS, encoding="utf-8")
    assert check_task(workspace).missing == (f"{name} was changed; it was to be left alone",)
    (workspace / name).unlink()
    assert check_task(workspace).missing == (f"{name} is gone; it was to be left alone",)


def test_code_that_ends_the_tests_early_does_not_pass(workspace: Path) -> None:
    (workspace / "billing" / "__init__.py").write_text("import os\nos._exit(0)\n", encoding="utf-8")
    assert check_task(workspace).missing == (
        "the tests did not come to their end: the code of the workspace ended them",
    )


def test_code_that_never_ends_is_stopped(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checking, "TIME_LIMIT_S", 0.5)
    (workspace / "billing" / "__init__.py").write_text("while True:\n    pass\n", encoding="utf-8")
    assert check_task(workspace).missing == ("the tests did not end within 0.5 s",)


def test_a_workspace_that_does_not_import_says_so(workspace: Path) -> None:
    (workspace / "billing" / "money.py").unlink()
    assert any("No module named 'billing.money'" in line for line in check_task(workspace).missing)


def test_files_in_the_way_of_the_check_are_no_way_to_pass(workspace: Path) -> None:
    """A file named like a folder of the check, links, and folders in place of files."""
    solved(workspace)
    (workspace / "task_check").write_text("x", encoding="utf-8")
    (workspace / "link").symlink_to("/etc")
    assert check_task(workspace).passed
    (workspace / "run_tests.py").unlink()
    (workspace / "run_tests.py").mkdir()
    (workspace / "run_tests.py" / "x.py").write_text("x", encoding="utf-8")
    assert check_task(workspace).missing == ("run_tests.py is gone; it was to be left alone",)


def test_tests_that_are_a_file_are_gone(workspace: Path) -> None:
    solved(workspace)
    for path in (workspace / "tests").iterdir():
        path.unlink()
    (workspace / "tests").rmdir()
    (workspace / "tests").write_text("x", encoding="utf-8")
    assert set(check_task(workspace).missing) == {
        f"tests/{name}.py is gone; it was to be left alone"
        for name in ("__init__", "test_discounts", "test_invoice", "test_money", "test_schedule")
    }


def test_a_workspace_that_is_too_large_is_not_copied(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checking, "MAX_BYTES", 10_000)
    with pytest.raises(TaskFolderError, match="more than"):
        check_task(workspace)
    monkeypatch.undo()
    monkeypatch.setattr(checking, "MAX_FILES", 3)
    with pytest.raises(TaskFolderError, match="more than"):
        check_task(workspace)


def test_a_folder_that_is_no_workspace_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TaskFolderError, match="no readable TASK"):
        check_task(tmp_path)
    for text in ("nothing", "segue-task: nothing", ""):
        (tmp_path / "TASK.md").write_text(text, encoding="utf-8")
        with pytest.raises(TaskFolderError, match="names no task"):
            check_task(tmp_path)


def test_the_task_cannot_be_swapped_for_another_one(workspace: Path) -> None:
    (workspace / "TASK.md").write_text(task_prompt("mend-a-failing-build"), encoding="utf-8")
    check = check_task(workspace)
    assert (check.task, check.passed) == ("mend-a-failing-build", False)
    assert check.missing[0] == "build.py is gone; it was to be left alone"
