"""The search: a module, a command, tests and a line of the README."""

from __future__ import annotations

from pathlib import Path

import pytest

from segue.upstreams.scripted_tasks import Answered
from tests.agent_tools import Played
from tests.upstreams.scripted_tasks.solutions.playing import assert_every_answer_counts, solve

TASK = "add-a-search-feature"


@pytest.fixture(name="solved", scope="module")
def solve_it(tmp_path_factory: pytest.TempPathFactory) -> tuple[Played, Path]:
    workspace = tmp_path_factory.mktemp("workspace")
    return solve(TASK, workspace), workspace


def test_it_solves_the_task_in_its_turns_and_depends_on_each_answer(solved: tuple[Played, Path]) -> None:
    played, _ = solved
    assert 5 <= played.turns <= 15
    assert_every_answer_counts(played)


def test_its_own_test_finds_its_mistake(solved: tuple[Played, Path]) -> None:
    played, workspace = solved
    runs = [entry.text for entry in played.conversation if isinstance(entry, Answered) and "tests, " in entry.text]
    assert ["1 failed" in text for text in runs] == [True, False]
    assert "python3 -m notes search WORD" in (workspace / "README.md").read_text(encoding="utf-8")
