"""The failing test: found, mended at its cause, and mended again."""

from __future__ import annotations

from pathlib import Path

import pytest

from segue.upstreams.scripted_tasks import Answered
from tests.agent_tools import Played
from tests.upstreams.scripted_tasks.solutions.playing import assert_every_answer_counts, solve

TASK = "fix-a-failing-test"


@pytest.fixture(name="solved", scope="module")
def solve_it(tmp_path_factory: pytest.TempPathFactory) -> tuple[Played, Path]:
    workspace = tmp_path_factory.mktemp("workspace")
    return solve(TASK, workspace), workspace


def test_it_solves_the_task_in_its_turns_and_depends_on_each_answer(solved: tuple[Played, Path]) -> None:
    played, _ = solved
    assert 10 <= played.turns <= 15
    assert 12 <= played.calls <= 17
    assert_every_answer_counts(played)


def test_the_first_mend_breaks_another_test(solved: tuple[Played, Path]) -> None:
    played, _ = solved
    runs = [entry.text for entry in played.conversation if isinstance(entry, Answered) and "tests, " in entry.text]
    assert ["1 failed" in text for text in runs] == [True, True, False]
    assert "test_its_plan_mirrors_the_plan_of_the_invoice" in runs[1]
