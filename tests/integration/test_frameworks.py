"""Agent frameworks, each a program of its own in its own environment: a session of two turns with a tool comes to its
end, the tool runs once, and the model is told every word once, whether the framework replays or continues by id.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Literal, TypeAlias

import pytest

from segue.testing.response_schemas import Json
from tests.integration.cases import CaseProvider, Said, Step, case_provider, transcript
from tests.integration.providers import Api, gateway, upstream
from tools.frameworks import Environment, wanted

Mode: TypeAlias = Literal["replay", "by-id"]
PROGRAMS = Path(__file__).parents[1] / "frameworks"
ENVIRONMENTS = Path(sys.prefix) / "frameworks"
#: Each program, and the framework whose environment it runs in; the tests' own environment has the rest.
FRAMEWORKS: dict[str, str | None] = {
    "openai_agents": None,
    "pydantic_ai_agent": None,
    "ag2_agent": "ag2",
    "agno_agent": "agno",
    "langchain_agent": "langchain",
    "llama_index_agent": "llama-index",
    "crewai_agent": "crewai",
    "haystack_agent": "haystack",
}
#: None of them may tell its makers of the tests.
NO_TELEMETRY = {
    "CREWAI_DISABLE_TELEMETRY": "true",
    "CREWAI_TRACING_ENABLED": "false",
    "HAYSTACK_TELEMETRY_ENABLED": "False",
    "OTEL_SDK_DISABLED": "true",
}
#: Those that cannot continue a response by its id.
ONLY_REPLAY = frozenset({"ag2_agent"})
#: What CrewAI writes before a question.
WRAPPED = "\nCurrent Task: "
#: How a framework's own account of a conversation differs from what was said.
Habit: TypeAlias = Literal["no words beside a call", "no steps of earlier turns", "says it again", "call before words"]
HABITS: dict[tuple[str, Mode], frozenset[Habit]] = {
    ("agno_agent", "replay"): frozenset({"no words beside a call"}),
    ("crewai_agent", "replay"): frozenset({"no words beside a call", "no steps of earlier turns"}),
    # It continues by id and says all again, but in other words than before: no server could tell that it is the same.
    ("crewai_agent", "by-id"): frozenset({"says it again"}),
    ("haystack_agent", "replay"): frozenset({"call before words"}),
    ("haystack_agent", "by-id"): frozenset({"call before words"}),
}
#: Some frameworks continue by id only where the model is one that reasons.
MODELS: dict[Mode, str] = {"replay": "gpt-4.1", "by-id": "gpt-5"}
SESSION = {
    "session": [
        Step("I look.", (("call_1", {"city": "Oslo"}),)),
        Step("It has 7 degrees."),
        Step("It is, for most of us."),
    ]
}
QUESTIONS = ("How warm is it in Oslo?", "Is that cold?")

pytestmark = pytest.mark.deep


def python_of(framework: str | None) -> str:
    """The interpreter of a framework's environment."""
    if framework is None:
        return sys.executable
    environment = Environment(framework, ENVIRONMENTS)
    failure = environment.failure()
    if failure is not None:
        pytest.skip(f"{framework} cannot be installed here: {failure}")
    if not environment.is_current(wanted()[framework]):
        pytest.skip(f"{framework} is not installed; `make test-all` does that")
    return str(environment.python)


async def run_program(program: str, url: str, mode: Mode, environ: dict[str, str]) -> Json:
    """Run a session. A framework may print what it likes; one line is what came of it."""
    pipe = asyncio.subprocess.PIPE
    python = python_of(FRAMEWORKS[program])
    command = (python, str(PROGRAMS / f"{program}.py"), url, MODELS[mode], mode)
    process = await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=pipe, env=environ)
    printed, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()[-4000:]
    (line,) = (line for line in printed.splitlines() if line.startswith(b'{"answers"'))
    came_of_it: Json = json.loads(line)
    return came_of_it


def check_asked(api: Api, server: CaseProvider, habits: frozenset[Habit]) -> None:
    """Three requests. Each tells all that was said, in order, and nothing twice; but for the client's own habits."""
    first, second, third = (_said(api, body) for body in server.conversations["session"])
    for said in (second, third):
        assert [one[0] for one in said].count("call") <= 1, "the call is told twice"
        assert [one[0] for one in said].count("output") <= 1, "the output is told twice"
    if "says it again" in habits:
        second, third = list(dict.fromkeys(second)), list(dict.fromkeys(third))
    question: Said = ("user", QUESTIONS[0])
    step: list[Said] = [
        ("assistant", "I look."),
        ("call", "call_1", '{"city": "Oslo"}'),
        ("output", "call_1", "Oslo: 7 degrees"),
    ]
    if "call before words" in habits and api != "chat":  # there, one message has the words and the calls apart
        step[:2] = reversed(step[:2])
    words = step[1:] if "no words beside a call" in habits else step
    steps = [] if "no steps of earlier turns" in habits else words
    assert first == [question]
    assert second == [question, *words]
    assert third == [question, *steps, ("assistant", "It has 7 degrees."), ("user", QUESTIONS[1])]


def sessions() -> Iterator[object]:
    """Each program with every API behind the gateway; what it can do differently, it does with one of them."""
    for program in FRAMEWORKS:
        yield pytest.param(program, "replay", "chat", id=f"{program}-replay-chat")
        if program not in ONLY_REPLAY:
            yield pytest.param(program, "by-id", "messages", id=f"{program}-by-id-messages")
            yield pytest.param(program, "by-id", "responses", id=f"{program}-by-id-responses")
        yield pytest.param(program, "replay", "responses", id=f"{program}-replay-responses")


def _said(api: Api, body: Json) -> list[Said]:
    """What was said, without what frameworks add; some repeat their instructions in the middle of a conversation."""
    whole = [tuple(word.removeprefix(WRAPPED) for word in said) for said in transcript(api, body)]
    return [said for said in whole if not said[1].startswith("<system>")]


@pytest.mark.parametrize(("program", "mode", "api"), list(sessions()))
async def test_a_session_with_a_tool_comes_to_its_end(program: str, mode: Mode, api: Api, tmp_path: Path) -> None:
    python_of(FRAMEWORKS[program])  # or the test is skipped
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(case_provider(api, SESSION))
        url = await stack.enter_async_context(gateway(upstream(server, models=["*"])))
        environ = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "OPENAI_API_KEY": "k", **NO_TELEMETRY}
        came_of_it = await run_program(program, url, mode, environ)
        assert came_of_it["runs"] == ["Oslo"]
        first, second = came_of_it["answers"]
        assert first in {"It has 7 degrees.", "I look.It has 7 degrees."}  # agno tells the words of all steps
        assert second == "It is, for most of us."
        check_asked(api, server, HABITS.get((program, mode), frozenset()))
