"""openai-agents and pydantic-ai with the socket cut in the middle of an answer: on a session they finish, alone they do
not. The gateway is the same, and the model runs each turn of the finished run once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeAlias

import msgspec
import pytest

from segue.client import AsyncClient
from segue.client.adapters.openai_sdk import openai_client
from segue.testing.link import EmulatedLink, linked
from segue.upstreams.scripted import MODEL, CallTool, Say, ScriptedTurn, ScriptedUpstream, Wait, say
from tests.integration.gateway import listening

QUESTION = "Which is warmer, Oslo or Rome?"
ANSWER = "Rome is warmer."

#: Runs the agent, given the address of the server, and returns its last words.
AgentRun: TypeAlias = Callable[[str], Awaitable[str]]


def weather(city: str) -> str:
    """The weather in a city."""
    return {"Oslo": "4 degrees", "Rome": "21 degrees"}[city]


async def openai_agents_alone(base_url: str) -> str:
    """Over its own WebSocket, continuing by id."""
    from openai import AsyncOpenAI

    async with AsyncOpenAI(base_url=base_url, api_key="x", max_retries=0) as sdk:
        return await _openai_agents(sdk, alone=True)


async def openai_agents_on_sessions(base_url: str) -> str:
    async with AsyncClient(base_url) as client, openai_client(client) as sdk:
        return await _openai_agents(sdk, alone=False)


async def _openai_agents(sdk: object, *, alone: bool) -> str:
    from agents import Agent, OpenAIProvider, RunConfig, Runner, function_tool, set_tracing_disabled
    from openai import AsyncOpenAI

    assert isinstance(sdk, AsyncOpenAI)
    set_tracing_disabled(True)  # it would post to the provider's own host
    agent = Agent(name="Forecaster", instructions="Use the tool.", tools=[function_tool(weather)], model=MODEL)
    models = OpenAIProvider(openai_client=sdk, use_responses_websocket=alone)
    try:
        config = RunConfig(model_provider=models)
        result = await Runner.run(agent, QUESTION, run_config=config, auto_previous_response_id=alone)
    finally:
        await models.aclose()
    return str(result.final_output)


async def pydantic_ai_alone(base_url: str) -> str:
    """Over its own WebSocket, continuing by id."""
    from pydantic_ai.models.openai import OpenAIResponsesModelSettings
    from pydantic_ai.profiles.openai import OpenAIModelProfile
    from pydantic_ai.providers.openai import OpenAIProvider

    profile = OpenAIModelProfile(openai_responses_supports_websocket=True)
    settings = OpenAIResponsesModelSettings(openai_transport="websocket")
    return await _pydantic_ai(OpenAIProvider(base_url=base_url, api_key="x"), profile=profile, settings=settings)


async def pydantic_ai_on_sessions(base_url: str) -> str:
    from pydantic_ai.providers.openai import OpenAIProvider

    async with AsyncClient(base_url) as client, openai_client(client) as sdk:
        return await _pydantic_ai(OpenAIProvider(openai_client=sdk))


async def _pydantic_ai(provider: object, **options: object) -> str:
    from pydantic_ai import Agent
    from pydantic_ai.models.openai import OpenAIResponsesModel

    model = OpenAIResponsesModel(MODEL, provider=provider, **options)  # type: ignore[arg-type]  # imported late, in each run
    agent = Agent(model, instructions="Use the tool.", tools=[weather])
    return str((await agent.run(QUESTION)).output)


class Scene:
    """A gateway behind a link that is cut in the middle of the model's second answer."""

    def __init__(self) -> None:
        self.link: EmulatedLink | None = None
        self.begun: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.go_on = asyncio.Event()
        second = (Say(("And ",)), Wait(self.go_on), Say(("now.",)), CallTool("call_2", "weather", '{"city":"Rome"}'))
        self.upstream = ScriptedUpstream(
            (
                ScriptedTurn((Say(("Let me see.",)), CallTool("call_1", "weather", '{"city":"Oslo"}'))),
                ScriptedTurn(second, check=self._begin),
                say("Rome ", "is warmer."),
            )
        )

    async def play(self, run: AgentRun) -> str:
        """Run the agent through the cut."""
        async with listening(self.upstream) as (_, url):
            host, _, port = url.removeprefix("http://").partition(":")
            async with linked(host, int(port)) as self.link, asyncio.TaskGroup() as group:
                group.create_task(self._cut())
                return await run(f"{self.link.url}/v1")

    def _begin(self, _: object) -> None:
        assert self.link is not None
        self.begun.set_result(self.link.down_bytes)

    async def _cut(self) -> None:
        before = await self.begun
        assert self.link is not None
        await self.link.arrived(down_bytes=before + 1)  # the second answer has begun to arrive
        self.link.cut()
        self.go_on.set()


@pytest.mark.parametrize("run", [openai_agents_on_sessions, pydantic_ai_on_sessions])
async def test_a_framework_on_sessions_finishes(run: AgentRun) -> None:
    scene = Scene()
    assert await scene.play(run) == ANSWER
    scene.upstream.assert_done()
    assert scene.upstream.started == 3
    seen = [msgspec.json.decode(item) for item in scene.upstream.requests[-1].history.items()]
    assert [item["output"] for item in seen if "output" in item] == ["4 degrees", "21 degrees"]


@pytest.mark.parametrize("run", [openai_agents_alone, pydantic_ai_alone])
async def test_the_framework_alone_does_not(run: AgentRun) -> None:
    scene = Scene()
    with pytest.raises(ExceptionGroup) as caught:
        await scene.play(run)
    assert caught.group_contains(Exception, match=r"(?i)clos|connection|reset|disconnect")
    assert scene.upstream.started == 2
