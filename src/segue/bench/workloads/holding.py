"""Does a workload with a client of the library: the agent works on its task, or a generated conversation is held.

Not here: what is measured of it, and the other arms that do the same.
"""

from __future__ import annotations

import asyncio
from asyncio import sleep
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from segue.agent.tasks import check_task, make_task
from segue.bench.workloads.agent_tasks import AgentArm, solve_task
from segue.bench.workloads.conversations import ConversationTurn, GeneratedConversation, make_conversation
from segue.bench.workloads.workload import ConversationWorkload, TaskWorkload, Workload
from segue.client.client import AsyncClient
from segue.client.session import AsyncSession
from segue.client.stream_events import ClientResponse
from segue.upstreams.scripted import MODEL


class WorkloadError(Exception):
    """The work was not done; the message says why, in one line and without content."""


async def do_work(client: AsyncClient, workload: Workload, arm: AgentArm, *, wait_for_tools: bool = False) -> None:
    """Do the work from its beginning to its end.

    Only real tools take time; those of a generated conversation do if `wait_for_tools` says so.

    Raises:
        WorkloadError: it came to another end.
        ClientError: the client library gave up.
    """
    match workload:
        case TaskWorkload():
            with TemporaryDirectory(prefix="segue-bench-") as folder:
                await _solve(client, workload, arm, Path(folder))
        case ConversationWorkload():
            conversation = make_conversation(workload.name, task=workload.task)
            session = client.session(
                MODEL,
                instructions=conversation.instructions,
                tools=conversation.tools,
                transport=arm.transport,
                store=arm.store,
                history=arm.history,
                lean=False,
            )
            async with session:
                await _hold(session, conversation, wait_for_tools=wait_for_tools)


async def _solve(client: AsyncClient, workload: TaskWorkload, arm: AgentArm, folder: Path) -> None:
    await asyncio.to_thread(make_task, workload.name, folder / "workspace")
    result = await solve_task(client, folder / "workspace", arm, transcript=folder / "transcript.jsonl", lean=False)
    if result.ending != "completed":
        raise WorkloadError(f"the run ended as {result.ending}: {result.reason}")
    check = await asyncio.to_thread(check_task, folder / "workspace")
    if not check.passed:
        raise WorkloadError(f"the task is not done: {len(check.missing)} of its checks fail")


async def _hold(session: AsyncSession, conversation: GeneratedConversation, *, wait_for_tools: bool) -> None:
    items: str | list[dict[str, Any]] = conversation.prompt
    for turn in conversation.turns:
        response = await session.send(items).response()
        _check(response, turn)
        items = [
            {"type": "function_call_output", "call_id": call.call_id, "output": call.result} for call in turn.calls
        ]
        if wait_for_tools:
            await sleep(max((call.seconds for call in turn.calls), default=0.0))


def _check(response: ClientResponse, turn: ConversationTurn) -> None:
    """Make sure that the model said what it says in every other arm."""
    if response.status != "completed":
        raise WorkloadError(f"a response ended as {response.status}")
    called = [(call.call_id, call.name, call.arguments) for call in response.function_calls]
    if called != [(call.call_id, call.name, call.arguments) for call in turn.calls]:
        raise WorkloadError("the model made other calls than it should")
    if response.output_text != turn.text:
        raise WorkloadError("the model said something else than it should")
