"""The failing test: found, mended at its cause, and mended again."""

from __future__ import annotations

from pathlib import Path

from segue.upstreams.scripted_tasks import Answered
from tests.upstreams.scripted_tasks.solutions.playing import assert_every_answer_counts, solve

TASK = "fix-a-failing-test"


def test_it_solves_the_task_in_its_turns_and_depends_on_each_answer(tmp_path: Path) -> None:
    played = solve(TASK, tmp_path)
    assert 10 <= played.turns <= 15
    assert 12 <= played.calls <= 17
    assert_every_answer_counts(played)


def test_the_first_mend_breaks_another_test(tmp_path: Path) -> None:
    played = solve(TASK, tmp_path)
    runs = [entry.text for entry in played.conversation if isinstance(entry, Answered) and "tests, " in entry.text]
    assert ["1 failed" in text for text in runs] == [True, True, False]
    assert "test_its_plan_mirrors_the_plan_of_the_invoice" in runs[1]
