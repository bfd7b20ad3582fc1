"""The refactoring: seven modules by rules, one of which its search did not find."""

from __future__ import annotations

from pathlib import Path

import pytest

from segue.agent.tasks.workspaces import workspace_files
from tests.agent_tools import Played, files_of
from tests.upstreams.scripted_tasks.solutions.playing import assert_every_answer_counts, solve

TASK = "refactor-an-api-layer"


@pytest.fixture(name="solved", scope="module")
def solve_it(tmp_path_factory: pytest.TempPathFactory) -> tuple[Played, Path]:
    workspace = tmp_path_factory.mktemp("workspace")
    return solve(TASK, workspace), workspace


def test_it_solves_the_task_in_its_turns_and_depends_on_each_answer(solved: tuple[Played, Path]) -> None:
    played, _ = solved
    assert 6 <= played.turns <= 11
    assert 10 <= played.calls <= 20
    assert_every_answer_counts(played)


def test_it_touches_the_modules_of_the_layer_and_nothing_else(solved: tuple[Played, Path]) -> None:
    _, workspace = solved
    before, after = workspace_files(TASK), files_of(workspace)
    assert {name for name in after if after[name] != before.get(name)} == {
        *(f"library/handlers/{name}.py" for name in ("books", "loans", "members", "reports")),
        *(f"library/{name}.py" for name in ("app", "middleware", "responses", "routing")),
    }
