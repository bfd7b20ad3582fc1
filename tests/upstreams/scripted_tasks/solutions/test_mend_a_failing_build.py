"""The build: four errors, each of which hides the next."""

from __future__ import annotations

from pathlib import Path

from segue.upstreams.scripted_tasks import Answered
from tests.upstreams.scripted_tasks.solutions.playing import assert_every_answer_counts, solve

TASK = "mend-a-failing-build"


def test_it_solves_the_task_in_its_turns_and_depends_on_each_answer(tmp_path: Path) -> None:
    played = solve(TASK, tmp_path)
    assert 8 <= played.turns <= 12
    assert_every_answer_counts(played)


def test_each_build_shows_the_next_error(tmp_path: Path) -> None:
    played = solve(TASK, tmp_path)
    builds = [
        entry.text for entry in played.conversation if isinstance(entry, Answered) and "[exit status" in entry.text
    ]
    errors = [text.splitlines()[1].split(": ")[1].split(":")[0] for text in builds[:-1]]
    assert errors == ["sitegen/markup.py", "sitegen/pages.py", "content/code.txt", "templates/page.html"]
    assert builds[-1] == "[exit status 0]\nbuilt 5 pages\n"
