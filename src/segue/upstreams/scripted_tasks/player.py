"""Reads a conversation along the solution of its task and gives the next answer. Pure.

It keeps nothing between two answers: it goes through the steps from the first one, checks that the conversation holds
the calls which each step makes, and takes from their answers what the next steps need. Not here: the solutions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

import msgspec

from segue.upstreams.scripted_tasks.conversation import Answered, Called, Conversation, Said
from segue.upstreams.scripted_tasks.solutions import (
    add_a_search_feature,
    fix_a_failing_test,
    mend_a_failing_build,
    refactor_an_api_layer,
)
from segue.upstreams.scripted_tasks.steps import (
    MARKER,
    Found,
    PlannedCall,
    StuckError,
    TaskScript,
    TaskStep,
    fill,
    learn,
    render,
)

#: The solutions by task.
SCRIPTS: Mapping[str, TaskScript] = {
    module.SCRIPT.task: module.SCRIPT
    for module in (fix_a_failing_test, add_a_search_feature, refactor_an_api_layer, mend_a_failing_build)
}

#: What the id of each call begins with. Chat Completions takes ids of at most 40 characters.
CALL_PREFIX = "call_task_"

_STUCK = "I stop here, and the task is not done. "


#: Writes a call of the tasks' own tools as a call of the tools that an agent has.
CallWriter: TypeAlias = Callable[[PlannedCall], PlannedCall]


class TaskAnswer(msgspec.Struct, frozen=True):
    """The next answer: some text, then calls to make at once. Without calls, the model has ended."""

    text: str
    calls: tuple[PlannedCall, ...] = ()


def next_answer(conversation: Conversation, *, write: CallWriter | None = None) -> TaskAnswer | None:
    """Return the next answer; None if the first user message carries no marker of a task.

    `write`: how the agent's tools are called; None: it has the tasks' own.
    """
    script = _script_of(conversation)
    if script is None:
        return None
    try:
        return _play(script, conversation, write or _as_planned)
    except StuckError as stuck:
        return TaskAnswer(f"{_STUCK}{stuck}")


def _script_of(conversation: Conversation) -> TaskScript | None:
    first = next((entry.text for entry in conversation if isinstance(entry, Said)), "")
    for line in first.splitlines():
        task = line.strip()
        if task.startswith(MARKER):
            return SCRIPTS.get(task.removeprefix(MARKER))
    return None


def _as_planned(call: PlannedCall) -> PlannedCall:
    return call


def _play(script: TaskScript, conversation: Conversation, write: CallWriter) -> TaskAnswer:
    made = [entry for entry in conversation if isinstance(entry, Called)]
    answers = {entry.call_id: entry.text for entry in conversation if isinstance(entry, Answered)}
    found: Found = {}
    for number, step in enumerate(script.steps, 1):
        planned = tuple(map(write, _plan(script.task, number, step, found)))
        if not made or not planned:
            return TaskAnswer(fill(step.say, found), planned)
        _take(step, planned, made[: len(planned)], answers, found)
        del made[: len(planned)]
    raise AssertionError(f"{script.task} has no last step")


def _plan(task: str, number: int, step: TaskStep, found: Found) -> tuple[PlannedCall, ...]:
    calls = enumerate(step.calls, 1)
    turn = f"{CALL_PREFIX}{task.replace('-', '_')}_{number:02}"
    return tuple(render(call, f"{turn}_{place}", found) for place, call in calls)


def _take(
    step: TaskStep,
    planned: tuple[PlannedCall, ...],
    made: list[Called],
    answers: Mapping[str, str],
    found: Found,
) -> None:
    """Check that these calls were made, and learn from their answers."""
    if len(made) < len(planned):
        raise StuckError(f"I made {len(planned)} calls at once, and the conversation holds {len(made)} of them.")
    for scripted, wanted, call in zip(step.calls, planned, made, strict=True):
        if call.name != wanted.name or not _is_same_json(call.arguments, wanted.arguments):
            raise StuckError(f"The conversation holds a call of the tool {call.name[:64]} that I did not make.")
        answer = answers.get(call.call_id)
        if answer is None:
            raise StuckError(f"My call of the tool {call.name} has no answer.")
        learn(scripted, answer, found)


def _is_same_json(one: str, other: str) -> bool:
    try:
        return bool(msgspec.json.decode(one) == msgspec.json.decode(other))
    except msgspec.DecodeError:
        return False
