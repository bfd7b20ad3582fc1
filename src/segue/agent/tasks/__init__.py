"""Four tasks for the agent: small projects with something to do in each, and a check of what was done.

A task is a folder beside this module: `workspace/` holds the files that the agent gets, TASK.md among them; `check/`
holds the tests that it does not see. Python files end in `.py-tpl` there, as in Django's project templates: they are
data, some of them broken on purpose, and no tool should compile or judge them. Not here: the agent, and the scripted
model that solves the tasks (`segue.upstreams.scripted_tasks`).
"""

from __future__ import annotations

from segue.agent.tasks.checking import TaskCheck, check_task
from segue.agent.tasks.workspaces import TASKS, TaskFolderError, list_tasks, make_task, task_prompt

__all__ = ["TASKS", "TaskCheck", "TaskFolderError", "check_task", "list_tasks", "make_task", "task_prompt"]
