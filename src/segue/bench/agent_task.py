"""A task for a real agent that `segue bench run` runs: a workspace, a provider that plays the model, and the outcome.

The provider stands in for every provider that the gateway's built-in routes lead to. So an agent solves the task with
its own tools, without an account, and it is known what a provider got: each request once, or some twice. Not here: the
tasks (`segue.agent.tasks`), the provider (`segue.testing.agent_provider`), and the run (`segue.cli.bench_run`).
"""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from segue.agent.tasks import check_task, make_task, task_prompt
from segue.bench.reports.report import Figure, figure
from segue.testing.agent_provider import AgentTaskProvider
from segue.testing.provider import provided

#: What stands in the command where the agent is told what to do.
PROMPT = "{prompt}"


class TaskOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a task. `requests`: how often the model was asked; `repeated`: how many came in once more."""

    task: str
    missing: tuple[str, ...]
    requests: int
    repeated: int

    @property
    def done(self) -> bool:
        """Whether the workspace passed its check."""
        return not self.missing

    @property
    def figures(self) -> list[Figure]:
        """The outcome as figures of a report."""
        return [
            figure("task done", [int(self.done)], ""),
            figure("requests to the model at the provider", [self.requests], ""),
            figure("requests that came to the provider again", [self.repeated], ""),
        ]

    @property
    def sentence(self) -> str:
        """The outcome in words."""
        done = "done" if self.done else f"not done ({self.missing[0]})"
        again = "none of them twice" if not self.repeated else f"{self.repeated} of them a second time"
        return f"{self.task}: {done}; the provider was asked {self.requests} times, {again}"


class AgentTask:
    """A task while its agent works. `folder`: where; `url`: the provider."""

    def __init__(self, name: str, folder: Path, *, url: str, model: AgentTaskProvider) -> None:
        self.name = name
        self.folder = folder
        self.url = url
        self._model = model

    def command(self, command: Sequence[str]) -> list[str]:
        """Return the command with what is to be done in it."""
        return [argument.replace(PROMPT, task_prompt(self.name)) for argument in command]

    def outcome(self) -> TaskOutcome:
        """Check what was done."""
        return TaskOutcome(
            task=self.name,
            missing=check_task(self.folder).missing,
            requests=self._model.requests,
            repeated=self._model.repeated,
        )


@asynccontextmanager
async def agent_task(name: str) -> AsyncIterator[AgentTask]:
    """Make a task's workspace, and run its provider, around a block.

    Raises:
        TaskFolderError: there is no such task.
    """
    with tempfile.TemporaryDirectory(prefix="segue-task-", ignore_cleanup_errors=True) as temporary:
        folder = Path(temporary) / name
        make_task(name, folder)
        model = AgentTaskProvider(str(folder))
        async with provided(model.answer, model.answer_message) as provider:
            yield AgentTask(name, folder, url=provider.url, model=model)
