"""The table of the agent's tasks: what each is about, and how the scripted model solves it.

Not here: the marks in the pages (`generate_docs`).
"""

from __future__ import annotations

from segue.agent.tasks.workspaces import TASKS, workspace_files
from segue.upstreams.scripted_tasks import SCRIPTS
from tools.markdown import code, table


def tasks() -> str:
    """Write what each task is about, its files, and the turns and calls of its solution."""
    rows = []
    for name, about in TASKS.items():
        files, steps = workspace_files(name), SCRIPTS[name].steps
        size = sum(map(len, files.values()))
        calls = sum(len(step.calls) for step in steps)
        most = max(len(step.calls) for step in steps)
        rows.append((code(name), about, f"{len(files)}, {size / 1000:.1f} KB", str(len(steps)), f"{calls}, ≤ {most}"))
    return table(("task", "what is to be done", "files", "turns", "tool calls, at once"), rows)
