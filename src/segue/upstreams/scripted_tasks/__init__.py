"""The scripted model's solutions of the agent's tasks: a pure function from a conversation to the next answer.

    answer = next_answer(conversation)      None where no task's marker stands in the first user message

It solves the tasks of `segue.agent.tasks` with the tools of the agent, the same way each time, so that every transport
and every way to continue does identical work. What it does next it takes from what the tools have told it: a wrong or
missing tool answer makes it say so and end without success. Not here: tokens, events, providers' dialects.
"""

from __future__ import annotations

from segue.upstreams.scripted_tasks.conversation import Answered, Called, Conversation, Said, read_items
from segue.upstreams.scripted_tasks.player import CALL_PREFIX, SCRIPTS, CallWriter, TaskAnswer, next_answer
from segue.upstreams.scripted_tasks.steps import MARKER, PlannedCall

__all__ = [
    "CALL_PREFIX",
    "MARKER",
    "SCRIPTS",
    "Answered",
    "CallWriter",
    "Called",
    "Conversation",
    "PlannedCall",
    "Said",
    "TaskAnswer",
    "next_answer",
    "read_items",
]
