"""The tables of the agent's tasks: what each is about, how the scripted model solves it, and what that sends.

Not here: measuring (`measure_agent_tasks`, `measure_real_agents`), and the marks in the pages (`generate_docs`).
"""

from __future__ import annotations

import msgspec

from segue.agent.tasks.workspaces import TASKS, workspace_files
from segue.upstreams.scripted_tasks import SCRIPTS
from tools import measure_real_agents
from tools.markdown import code, table
from tools.measure_agent_tasks import RESULT, TaskFigures
from tools.measure_real_agents import AgentFigures


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


def bytes_by_arm() -> str:
    """Write what each task sent and received on each arm, as it was measured."""
    measured = msgspec.json.decode(RESULT.read_bytes(), type=list[TaskFigures])
    arms = list(dict.fromkeys(one.arm for one in measured))
    rows = []
    for task in TASKS:
        by_arm = {one.arm: one for one in measured if one.task == task}
        rows.append((code(task), *(_bytes(by_arm[arm]) for arm in arms)))
    return table(("task", *arms), rows)


def _bytes(one: TaskFigures) -> str:
    payload, sent, received = (
        f"{count / 1000:.1f}" for count in (one.payload_bytes, one.sent_bytes, one.received_bytes)
    )
    return f"{payload}; {sent}; {received}"


def real_agents() -> str:
    """Write what came of the task of each real agent, as it was measured."""
    measured = msgspec.json.decode(measure_real_agents.RESULT.read_bytes(), type=list[AgentFigures])
    head = (
        "agent",
        "API",
        "task",
        "requests",
        "twice",
        "failed",
        "seconds",
        "resumed",
        "KB up",
        "on the link",
        "KB down",
        "on the link",
    )
    return table(head, [_real_agent(one) for one in measured])


def _real_agent(one: AgentFigures) -> tuple[str, ...]:
    sizes = (one.sent_bytes, one.link_sent_bytes, one.received_bytes, one.link_received_bytes)
    return (
        f"{one.agent} {one.version}",
        one.api,
        "done" if one.done else "not done",
        str(one.requests),
        str(one.repeated),
        str(one.failed),
        f"{one.time_s:.0f}",
        str(one.resumes),
        *(f"{size / 1000:.1f}" for size in sizes),
    )
