"""The tasks are solved with the agent's own tools: what they answer is what the scripted model reads."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from segue.agent.tasks import TASKS, check_task, make_task, task_prompt
from segue.agent.toolbox import Toolbox
from segue.agent.workspace import Workspace
from segue.upstreams.scripted_tasks import Answered, Called, Said, next_answer

ENVIRONMENT = {
    "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.defpath)),
    "PYTHONDONTWRITEBYTECODE": "1",
}


async def allow(_: str) -> None:
    return None


@pytest.mark.parametrize("task", TASKS)
async def test_the_tools_answer_in_the_form_that_the_scripted_model_reads(task: str, tmp_path: Path) -> None:
    make_task(task, tmp_path)
    tools = Toolbox(Workspace(tmp_path), environment=ENVIRONMENT, approval=allow)
    conversation: list[Said | Called | Answered] = [Said(task_prompt(task))]
    while (answer := next_answer(conversation)) and answer.calls:
        conversation += [Called(call.call_id, call.name, call.arguments) for call in answer.calls]
        for call in answer.calls:
            conversation.append(Answered(call.call_id, (await tools.call(call.name, call.arguments)).text))
    assert answer is not None
    assert check_task(tmp_path).passed, answer.text
