"""The agent works with servers that are not segue's, and says so where nobody can tell what became of a turn."""

from __future__ import annotations

import asyncio
import os
import shutil
from contextlib import closing
from pathlib import Path

import pytest

from segue.agent.loop import INSTRUCTIONS, AgentLoop
from segue.agent.progress import RunLimits, RunObserver, RunResult
from segue.agent.toolbox import Toolbox
from segue.agent.transcript import Transcript
from segue.agent.workspace import Workspace
from segue.client import AsyncClient
from segue.testing.response_events import called, said
from segue.testing.responses_faults import HoldAt
from segue.testing.responses_rules import OPEN_RESPONSES, OPENAI, ServerRules, playing
from segue.testing.responses_server import responding
from tests.client.transports.streams import until

COMMAND = '{"command": "echo once >> log"}'


class Process:
    """What one process of the agent does in a folder; `copied` is what another finds after this one was killed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "work").mkdir(parents=True, exist_ok=True)

    async def run(self, client: AsyncClient, *, resumes: bool = False, store: bool = False) -> RunResult:
        tools = Toolbox(
            Workspace(self.folder / "work"), environment={"PATH": os.defpath}, approval=lambda _: asyncio.sleep(0)
        )
        with closing(Transcript(self.folder / "t.jsonl", resumes=resumes)) as transcript:
            if resumes:
                session = client.load(transcript.session_path)
            else:
                transcript.write("started")
                session = client.session("m", instructions=INSTRUCTIONS, tools=tools.definitions(), store=store)
            async with session:
                loop = AgentLoop(session, tools, transcript=transcript, limits=RunLimits(), observer=RunObserver())
                return await loop.run("Go.")

    def copied(self, folder: Path) -> Process:
        unfinished = shutil.ignore_patterns(".*.session.json.*")  # which may be renamed meanwhile
        shutil.copytree(self.folder, folder, ignore=unfinished)
        return Process(folder)


@pytest.mark.parametrize("store", [False, True])
@pytest.mark.parametrize("rules", [OPENAI, OPEN_RESPONSES])
async def test_it_works_with_other_servers(tmp_path: Path, rules: ServerRules, *, store: bool) -> None:
    """Whatever such a server keeps, the model runs once for each turn, and sees the whole conversation."""
    model = playing([called("run", COMMAND, call_id="call_1")], [said("Done.")])
    async with responding(rules, model=model) as server, AsyncClient(server.base_url) as client:
        result = await Process(tmp_path).run(client, store=store)
        assert (result.ending, result.text, len(result.turns)) == ("completed", "Done.", 2)
        assert [[item["type"] for item in execution.history] for execution in server.executions] == [
            ["message"],
            ["message", "function_call", "function_call_output"],
        ]


async def test_what_nobody_can_tell_is_said_once_and_then_sent_again(tmp_path: Path) -> None:
    """The process was killed in its second turn: its tool does not run again, the turn does when the user insists."""
    gate = asyncio.Event()
    model = playing([called("run", COMMAND, call_id="call_1")], [said("Done.")])
    async with responding(OPENAI, model=model) as server:
        server.plan(None, HoldAt(events=1, gate=gate))
        killed = Process(tmp_path / "killed")
        async with AsyncClient(server.base_url) as client:
            running = asyncio.create_task(killed.run(client))
            await until(lambda: len(server.executions) == 2)
            later = killed.copied(tmp_path / "later")
            running.cancel()
            await asyncio.wait((running,))
        gate.set()
        results = []
        for _ in range(2):
            async with AsyncClient(server.base_url) as client:
                results.append(await later.run(client, resumes=True))
    assert [(result.ending, result.text) for result in results] == [("failed", ""), ("completed", "Done.")]
    assert (tmp_path / "later" / "work" / "log").read_text() == "once\n"
