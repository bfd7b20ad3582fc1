"""The openai SDK, openai-agents and pydantic-ai hold sessions with tools through the gateway, on a provider of each
API: as deltas or with everything sent again, the provider is asked the same.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterable, AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from segue.testing.response_schemas import Json
from tests.integration.providers import Api, ModelServer, calls, gateway, model_server, says, upstream

if TYPE_CHECKING:
    from openai import AsyncOpenAI
    from openai.types.responses import Response


APIS: tuple[Api, ...] = ("chat", "messages", "responses")
QUESTION = "Which is warmer, Oslo or Rome?"
DEGREES = {"Oslo": "4 degrees", "Rome": "21 degrees"}
INSTRUCTIONS = "Use the tool."
TOOL = {
    "type": "function",
    "name": "weather",
    "description": "The weather in a city.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    },
    "strict": True,
}


def script(api: Api) -> Iterator[Any]:
    yield calls(api, "call_1", "weather", {"city": "Oslo"}, "Let me see.")
    yield calls(api, "call_2", "weather", {"city": "Rome"})
    yield says(api, "Rome is warmer.")


@asynccontextmanager
async def session(api: Api) -> AsyncIterator[tuple[ModelServer, str]]:
    """A provider that plays the script, and the URL of a gateway in front of it."""
    async with model_server(api, *script(api)) as server, gateway(upstream(server)) as url:
        yield server, f"{url}/v1"


def said_to(server: ModelServer) -> list[list[str]]:
    """What each request said, in the words that are the same in all APIs."""
    return [[word for word in _words(body) if word in KNOWN] for body in server.asked]


KNOWN = {QUESTION, "Let me see.", '{"city": "Oslo"}', "4 degrees", '{"city": "Rome"}', "21 degrees"}


def _words(value: object) -> Iterator[str]:
    """Every text in a request's history, in its order; arguments as JSON of one form."""
    if isinstance(value, str):
        yield json.dumps(json.loads(value)) if value.startswith("{") else value
    elif isinstance(value, list):
        for one in value:
            yield from _words(one)
    elif isinstance(value, dict):
        for name, one in value.items():
            if name == "input" and isinstance(one, dict):
                yield json.dumps(one)
            elif name not in {"tools", "system", "instructions"}:
                yield from _words(one)


FIRST = [QUESTION]
SECOND = [*FIRST, "Let me see.", '{"city": "Oslo"}', "4 degrees"]
THIRD = [*SECOND, '{"city": "Rome"}', "21 degrees"]


def check(server: ModelServer) -> None:
    """The provider saw the whole history in each turn, once, with the tool and the instructions."""
    assert said_to(server) == [FIRST, SECOND, THIRD]
    for body in server.asked:
        assert len(body["tools"]) == 1
        assert INSTRUCTIONS in json.dumps(body)


# --- the openai SDK --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("transport", ["json", "sse", "websocket"])
@pytest.mark.parametrize("chained", [True, False], ids=["deltas", "replay"])
@pytest.mark.parametrize("api", APIS)
async def test_the_openai_sdk_holds_a_session_with_tools(api: Api, transport: str, *, chained: bool) -> None:
    from openai import AsyncOpenAI

    async with session(api) as (server, url), AsyncOpenAI(base_url=url, api_key="x", max_retries=0) as client:
        asked: list[Any] = [{"role": "user", "content": QUESTION}]
        history, parent = list(asked), None
        response: Response | None = None
        while asked:
            request = {
                "model": api,
                "tools": [TOOL],
                "instructions": INSTRUCTIONS,
                "input": asked if chained else history,
            }
            if chained and parent:
                request["previous_response_id"] = parent
            response = await _ask(client, request, transport)
            parent = response.id
            made = [item for item in response.output if item.type == "function_call"]
            asked = [_output(call.call_id, DEGREES[json.loads(call.arguments)["city"]]) for call in made]
            history += [*(item.model_dump(exclude_none=True) for item in response.output), *asked]
    assert response is not None
    assert response.output_text == "Rome is warmer."
    assert response.usage is not None
    assert response.usage.input_tokens > 0
    check(server)


async def _ask(client: AsyncOpenAI, request: dict[str, Any], transport: str) -> Response:
    if transport == "json":
        whole: Response = await client.responses.create(**request)
        return whole
    if transport == "sse":
        events = await client.responses.create(**request, stream=True)
        return _final([event async for event in events])
    async with client.responses.connect() as connection:
        await connection.response.create(**request)
        seen = []
        async for event in connection:
            seen.append(event)
            if event.type == "response.completed":
                break
        return _final(seen)


def _final(events: list[Any]) -> Response:
    response: Response = next(event.response for event in events if event.type == "response.completed")
    return response


def _output(call_id: str, text: str) -> Json:
    return {"type": "function_call_output", "call_id": call_id, "output": text}


# --- openai-agents ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("transport", ["json", "sse", "websocket"])
@pytest.mark.parametrize("chained", [True, False], ids=["deltas", "replay"])
@pytest.mark.parametrize("api", APIS)
async def test_openai_agents_holds_a_session_with_tools(api: Api, transport: str, *, chained: bool) -> None:
    from agents import Agent, OpenAIProvider, RunConfig, Runner, function_tool, set_tracing_disabled
    from openai import AsyncOpenAI

    set_tracing_disabled(True)  # it would post to the provider's own host

    @function_tool
    def weather(city: str) -> str:
        """The weather in a city."""
        return DEGREES[city]

    agent = Agent(name="Forecaster", instructions=INSTRUCTIONS, tools=[weather], model=api)
    async with session(api) as (server, url), AsyncOpenAI(base_url=url, api_key="x", max_retries=0) as client:
        models = OpenAIProvider(openai_client=client, use_responses_websocket=transport == "websocket")
        options: dict[str, Any] = {
            "run_config": RunConfig(model_provider=models),
            "auto_previous_response_id": chained,
        }
        try:
            if transport == "sse":
                streamed = Runner.run_streamed(agent, QUESTION, **options)
                async for _ in streamed.stream_events():
                    pass
                said = str(streamed.final_output)
            else:
                said = str((await Runner.run(agent, QUESTION, **options)).final_output)
        finally:
            await models.aclose()
    assert said == "Rome is warmer."
    check(server)


@pytest.mark.deep
@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("api", APIS)
async def test_openai_agents_holds_the_same_session_in_chat_completions(api: Api, *, streamed: bool) -> None:
    from agents import Agent, OpenAIChatCompletionsModel, Runner, function_tool, set_tracing_disabled
    from openai import AsyncOpenAI

    set_tracing_disabled(True)

    @function_tool
    def weather(city: str) -> str:
        """The weather in a city."""
        return DEGREES[city]

    async with session(api) as (server, url), AsyncOpenAI(base_url=url, api_key="x", max_retries=0) as client:
        model = OpenAIChatCompletionsModel(model=api, openai_client=client)
        agent = Agent(name="Forecaster", instructions=INSTRUCTIONS, tools=[weather], model=model)
        if streamed:
            run = Runner.run_streamed(agent, QUESTION)
            async for _ in run.stream_events():
                pass
            said = str(run.final_output)
        else:
            said = str((await Runner.run(agent, QUESTION)).final_output)
    assert said == "Rome is warmer."
    check(server)


# --- pydantic-ai -----------------------------------------------------------------------------------------------------


async def _listen(context: object, events: AsyncIterable[object]) -> None:
    async for _ in events:
        pass


@pytest.mark.parametrize("streamed", [False, True], ids=["json", "sse"])
@pytest.mark.parametrize("chained", [True, False], ids=["deltas", "replay"])
@pytest.mark.parametrize("api", APIS)
async def test_pydantic_ai_holds_a_session_with_tools(api: Api, *, chained: bool, streamed: bool) -> None:
    from openai import AsyncOpenAI
    from pydantic_ai import Agent as PydanticAgent
    from pydantic_ai.models.openai import OpenAIResponsesModel, OpenAIResponsesModelSettings
    from pydantic_ai.providers.openai import OpenAIProvider as PydanticProvider

    async with session(api) as (server, url), AsyncOpenAI(base_url=url, api_key="x", max_retries=0) as client:
        model = OpenAIResponsesModel(api, provider=PydanticProvider(openai_client=client))
        settings = OpenAIResponsesModelSettings(openai_previous_response_id="auto") if chained else None
        agent = PydanticAgent(model, instructions=INSTRUCTIONS, model_settings=settings)

        @agent.tool_plain
        def weather(city: str) -> str:
            """The weather in a city."""
            return DEGREES[city]

        # With a handler of events it asks for streams; `run_stream` would take the first words for the answer.
        said = (await agent.run(QUESTION, event_stream_handler=_listen if streamed else None)).output
    assert said == "Rome is warmer."
    check(server)
