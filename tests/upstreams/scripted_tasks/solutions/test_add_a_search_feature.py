"""The search: a module, a command, tests and a line of the README."""

from __future__ import annotations

from pathlib import Path

from segue.upstreams.scripted_tasks import Answered
from tests.upstreams.scripted_tasks.solutions.playing import assert_every_answer_counts, solve

TASK = "add-a-search-feature"


def test_it_solves_the_task_in_its_turns_and_depends_on_each_answer(tmp_path: Path) -> None:
    played = solve(TASK, tmp_path)
    assert 5 <= played.turns <= 15
    assert_every_answer_counts(played)


def test_its_own_test_finds_its_mistake(tmp_path: Path) -> None:
    played = solve(TASK, tmp_path)
    runs = [entry.text for entry in played.conversation if isinstance(entry, Answered) and "tests, " in entry.text]
    assert ["1 failed" in text for text in runs] == [True, False]
    assert "python3 -m notes search WORD" in (tmp_path / "README.md").read_text(encoding="utf-8")
