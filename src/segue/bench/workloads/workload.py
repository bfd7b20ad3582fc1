"""What the arms work on, by name: one of the agent's tasks, or a generated conversation.

    read_workload("fix-a-failing-test")    the real loop with its real tools
    read_workload("article")               "loop-12", "conversation:50": generated, and held without a loop

Not here: doing the work (`segue.bench.arms`).
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from segue.agent.tasks import list_tasks
from segue.bench.workloads.conversations import MOST_TURNS, SHAPES, shape_of


class TaskWorkload(msgspec.Struct, frozen=True):
    """One of the agent's tasks."""

    name: str

    @property
    def earlier(self) -> TaskWorkload:
        """Another task, which the same agent may have done before."""
        tasks = list_tasks()
        return TaskWorkload(tasks[(tasks.index(self.name) + 1) % len(tasks)])


class ConversationWorkload(msgspec.Struct, frozen=True):
    """A generated conversation."""

    name: str
    task: int = 0

    @property
    def earlier(self) -> ConversationWorkload:
        """Another conversation of the same agent: the same instructions and tools, and nothing else."""
        return ConversationWorkload(self.name, self.task + 1)


Workload: TypeAlias = TaskWorkload | ConversationWorkload


class UnknownWorkloadError(ValueError):
    """There is no such workload; the message says which there are."""


def list_workloads() -> tuple[str, ...]:
    """Return the names of the workloads; `conversation:N` stands for many."""
    return (*list_tasks(), *(name for name in SHAPES if name != "conversation"), "conversation:N")


def read_workload(name: str) -> Workload:
    """Return the workload of a name.

    Raises:
        UnknownWorkloadError: there is none.
    """
    if name in list_tasks():
        return TaskWorkload(name)
    if shape_of(name) is not None:
        return ConversationWorkload(name)
    raise UnknownWorkloadError(
        f"there is no workload {name!r}; there are {', '.join(list_workloads())} (N from 2 to {MOST_TURNS})"
    )
