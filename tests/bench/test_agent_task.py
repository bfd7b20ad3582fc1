"""The task of a metered agent: where it works, what it is told, and what is said of the outcome."""

from __future__ import annotations

import aiohttp
import pytest

from segue.agent.tasks import TaskFolderError, task_prompt
from segue.bench.agent_task import TaskOutcome, agent_task

TASK = "mend-a-failing-build"


async def test_an_agent_that_does_nothing_has_not_done_it() -> None:
    async with agent_task(TASK) as task:
        assert (task.folder / "build.py").is_file()
        assert task.command(["agent", "-p", "Do: {prompt}", "{}"]) == ["agent", "-p", f"Do: {task_prompt(TASK)}", "{}"]
        async with aiohttp.ClientSession() as client:
            for _ in range(2):
                async with client.post(f"{task.url}/v1/messages", json={"messages": []}) as reply:
                    assert reply.status == 200
        outcome = task.outcome()
    assert not task.folder.exists()
    assert (outcome.done, outcome.requests, outcome.repeated) == (False, 2, 1)
    assert outcome.sentence.startswith("mend-a-failing-build: not done (")
    assert outcome.sentence.endswith("; the provider was asked 2 times, 1 of them a second time")
    assert [one.value for one in outcome.figures] == [0, 2, 1]


def test_a_task_that_is_done_is_said_to_be() -> None:
    outcome = TaskOutcome(task=TASK, missing=(), requests=12, repeated=0)
    assert outcome.sentence == "mend-a-failing-build: done; the provider was asked 12 times, none of them twice"
    assert [one.value for one in outcome.figures] == [1, 12, 0]


async def test_a_task_that_is_not_there_is_refused() -> None:
    with pytest.raises(TaskFolderError, match="there is no task"):
        async with agent_task("nothing"):
            pass
