"""The build: four errors, each of which hides the next."""

from __future__ import annotations

from pathlib import Path

import pytest

from segue.upstreams.scripted_tasks import Answered
from tests.agent_tools import Played
from tests.upstreams.scripted_tasks.solutions.playing import assert_every_answer_counts, solve

TASK = "mend-a-failing-build"


@pytest.fixture(name="solved", scope="module")
def solve_it(tmp_path_factory: pytest.TempPathFactory) -> tuple[Played, Path]:
    workspace = tmp_path_factory.mktemp("workspace")
    return solve(TASK, workspace), workspace


def test_it_solves_the_task_in_its_turns_and_depends_on_each_answer(solved: tuple[Played, Path]) -> None:
    played, _ = solved
    assert 8 <= played.turns <= 12
    assert_every_answer_counts(played)


def test_each_build_shows_the_next_error(solved: tuple[Played, Path]) -> None:
    played, _ = solved
    builds = [
        entry.text for entry in played.conversation if isinstance(entry, Answered) and "[exit status" in entry.text
    ]
    errors = [text.splitlines()[1].split(": ")[1].split(":")[0] for text in builds[:-1]]
    assert errors == ["sitegen/markup.py", "sitegen/pages.py", "content/code.txt", "templates/page.html"]
    assert builds[-1] == "[exit status 0]\nbuilt 5 pages\n"
