"""What every solution is held to: it solves its task, in so many turns and calls, and depends on each answer."""

from __future__ import annotations

from pathlib import Path

from segue.agent.tasks import check_task, make_task, task_prompt
from segue.upstreams.scripted_tasks import Answered, Called, next_answer
from tests.agent_tools import Played, play


def solve(task: str, workspace: Path) -> Played:
    """Solve a task, and check that it is solved."""
    make_task(task, workspace)
    played = play(workspace, task_prompt(task))
    check = check_task(workspace)
    assert check.passed, check.missing
    return played


def assert_every_answer_counts(played: Played) -> None:
    """Whichever answer is an error or missing, the model says so and ends, and the steps after it are never made."""
    for place, entry in enumerate(played.conversation):
        if not isinstance(entry, Answered):
            continue
        before, after = played.conversation[:place], _rest_of_turn(played, place)
        for wrong in ([Answered(entry.call_id, "error: the disk is full")], []):
            answer = next_answer([*before, *wrong, *after])
            assert answer is not None
            assert answer.calls == ()
            assert answer.text.startswith("I stop here, and the task is not done. ")


def _rest_of_turn(played: Played, place: int) -> list[Answered]:
    rest: list[Answered] = []
    for entry in played.conversation[place + 1 :]:
        if isinstance(entry, Called):
            break
        assert isinstance(entry, Answered)
        rest.append(entry)
    return rest
