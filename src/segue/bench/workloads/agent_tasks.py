"""The agent's tasks as a workload: the agent solves one through any server, on one of the arms.

The arms differ in how the conversation travels and who keeps it, and in nothing else: the scripted model does the same
work on each of them. Not here: servers, and what is measured.
"""

from __future__ import annotations

import os
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec

from segue.agent.loop import INSTRUCTIONS, AgentLoop
from segue.agent.progress import RunLimits, RunObserver, RunResult
from segue.agent.tasks import task_prompt
from segue.agent.tasks.checking import task_of
from segue.agent.toolbox import Toolbox
from segue.agent.transcript import Transcript
from segue.agent.workspace import Workspace
from segue.client.client import AsyncClient
from segue.client.settings import HistoryMode, TransportMode
from segue.upstreams.scripted import MODEL


class AgentArm(msgspec.Struct, frozen=True):
    """One way to carry a conversation, and to keep it."""

    name: str
    transport: TransportMode
    store: bool
    history: HistoryMode


#: Today's habit first: the whole conversation in each request. Over HTTP nothing continues what was not stored.
AGENT_ARMS = (
    AgentArm("http replay", "http", store=False, history="replay"),
    AgentArm("http id", "http", store=True, history="id"),
    AgentArm("websocket, not stored", "websocket", store=False, history="id"),
    AgentArm("websocket, stored", "websocket", store=True, history="id"),
)

_MOST_TURNS = 30


async def solve_task(
    client: AsyncClient,
    workspace: Path,
    arm: AgentArm,
    *,
    transcript: Path,
    model: str = MODEL,
    observer: RunObserver | None = None,
    **fields: Any,  # noqa: ANN401 - members of the create, as they go on the wire
) -> RunResult:
    """Let the agent work in a workspace that `make_task` made, to the end of its run."""
    tools = Toolbox(Workspace(workspace), environment=_environment(), approval=_allow)
    session = client.session(
        model=model,
        instructions=INSTRUCTIONS,
        tools=tools.definitions(),
        transport=arm.transport,
        store=arm.store,
        history=arm.history,
        **fields,
    )
    async with session:
        with closing(Transcript(transcript, resumes=False)) as written:
            written.write("started")
            limits = RunLimits(turns=_MOST_TURNS)
            loop = AgentLoop(session, tools, transcript=written, limits=limits, observer=observer or RunObserver())
            return await loop.run(task_prompt(task_of(workspace)))


def _environment() -> dict[str, str]:
    """Return the environment of the agent's commands: the same on every machine, with the Python that runs us."""
    path = os.pathsep.join((str(Path(sys.executable).parent), os.defpath))
    return {"PATH": path, "PYTHONDONTWRITEBYTECODE": "1"}


async def _allow(_: str) -> None:
    """Let every command run: they are those of the scripted model."""
