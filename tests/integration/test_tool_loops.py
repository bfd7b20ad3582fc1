"""Whole loops with a tool: the model calls it, the client runs it, the model answers, and the user goes on by the id of
that answer. The clients are the openai SDK, openai-agents and pydantic-ai, as their users call them; the servers behind
the gateway are aimock and llama.cpp's own, through each of their APIs. Two taps keep what went to and from the gateway.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterable, Awaitable, Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import pytest

from segue.config import UpstreamConfig
from segue.engine import find_model
from segue.testing.response_schemas import Json
from tests.integration.providers import Api, gateway
from tests.integration.servers import aimock, llama
from tests.integration.tap import Tap, tapping

if TYPE_CHECKING:
    from openai import AsyncOpenAI
    from openai.types.responses import Response, ResponseFunctionToolCall


APIS: tuple[Api, ...] = get_args(Api)
QUESTIONS = ("How warm is it in Oslo?", "Thanks.")
#: What the tool says; no question has it.
READING = "-17 degrees"
TOOL: Json = {
    "type": "function",
    "name": "weather",
    "description": "Tell the temperature in a city.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string", "enum": ["Oslo"]}},
        "required": ["city"],
        "additionalProperties": False,
    },
    "strict": True,
}
TEMPLATE = Path(__file__).with_name("one_tool.jinja")
#: A small model says what it likes; these hold it to the likeliest words, and to few.
TEMPERATURE = 0.0
MOST_TOKENS = 60


class Session:
    """One session of a client, and what came of it."""

    def __init__(self, model: str) -> None:
        self.model = model
        self.answers: list[str] = []
        self.runs: list[str] = []

    def weather(self, city: Literal["Oslo"]) -> str:
        """Tell the temperature in a city."""
        self.runs.append(city)
        return READING


Client: TypeAlias = "Callable[[Session, AsyncOpenAI], Awaitable[None]]"


# --- the clients -----------------------------------------------------------------------------------------------------


async def openai_sdk(session: Session, client: AsyncOpenAI) -> None:
    """Streams, each continued by hand; the first must be a call."""
    parent: str | None = None
    for question in QUESTIONS:
        asked: list[Any] = [{"role": "user", "content": question}]
        choice = "required" if parent is None else "auto"
        while asked:
            response = await _stream(client, session.model, asked, parent=parent, choice=choice)
            parent, choice = response.id, "auto"
            asked = [_run(session, item) for item in response.output if item.type == "function_call"]
            if not asked:
                session.answers.append(response.output_text)


def _run(session: Session, call: ResponseFunctionToolCall) -> Json:
    reading = session.weather(**json.loads(call.arguments))
    return {"type": "function_call_output", "call_id": call.call_id, "output": reading}


async def _stream(client: AsyncOpenAI, model: str, asked: list[Any], *, parent: str | None, choice: str) -> Response:
    fields: dict[str, Any] = {"model": model, "tools": [TOOL], "tool_choice": choice, "previous_response_id": parent}
    fields |= {"max_output_tokens": MOST_TOKENS, "temperature": TEMPERATURE}
    async with client.responses.stream(input=asked, **fields) as events:
        async for _ in events:
            pass
        whole: Response = await events.get_final_response()
    return whole


async def openai_agents(session: Session, client: AsyncOpenAI) -> None:
    """Streamed runs, each continued by the framework. It asks for a call until it has one."""
    from agents import Agent, ModelSettings, OpenAIResponsesModel, Runner, function_tool, set_tracing_disabled

    set_tracing_disabled(True)  # it would post to the provider's own host
    settings = ModelSettings(tool_choice="required", max_tokens=MOST_TOKENS, temperature=TEMPERATURE)
    agent = Agent(
        name="Forecaster",
        tools=[function_tool(session.weather)],
        model=OpenAIResponsesModel(session.model, client),
        model_settings=settings,
    )
    parent: str | None = None
    for question in QUESTIONS:
        run = Runner.run_streamed(agent, question, auto_previous_response_id=True, previous_response_id=parent)
        async for _ in run.stream_events():
            pass
        parent = run.last_response_id
        agent.model_settings.tool_choice = None
        session.answers.append(run.final_output)


async def pydantic_ai(session: Session, client: AsyncOpenAI) -> None:
    """Streamed runs; it finds the id to continue by in its history. It asks for a call until it has one."""
    from pydantic_ai import Agent, ModelSettings
    from pydantic_ai.capabilities import AbstractCapability
    from pydantic_ai.models.openai import OpenAIResponsesModel, OpenAIResponsesModelSettings
    from pydantic_ai.providers.openai import OpenAIProvider

    model = OpenAIResponsesModel(session.model, provider=OpenAIProvider(openai_client=client))
    settings = OpenAIResponsesModelSettings(
        openai_previous_response_id="auto", max_tokens=MOST_TOKENS, temperature=TEMPERATURE
    )

    class CallsFirst(AbstractCapability[None]):
        """`tool_choice` may not be required in the settings of a run: it would be in every step."""

        def get_model_settings(self) -> Callable[[object], ModelSettings]:
            return lambda _: ModelSettings(tool_choice="auto" if session.runs else "required")

    agent = Agent(model, model_settings=settings, tools=[session.weather], capabilities=[CallsFirst()])
    said: list[Any] = []
    for question in QUESTIONS:
        run = await agent.run(question, message_history=said, event_stream_handler=_listen)
        said = run.all_messages()
        session.answers.append(run.output)


async def _listen(context: object, events: AsyncIterable[object]) -> None:
    """With a handler of events it asks for streams."""
    async for _ in events:
        pass


CLIENTS: tuple[Client, ...] = (openai_sdk, openai_agents, pydantic_ai)


# --- what must come of it --------------------------------------------------------------------------------------------


async def hold(client: Client, api: Api, server: str, *, model_as: str | None = None) -> Session:
    """Hold a session through a gateway before the server at this URL, and check all but the words of the model."""
    from openai import AsyncOpenAI

    async with tapping(server, judged=False) as behind:
        up = UpstreamConfig(name=api, dialect=api, models=[api], base_url=f"{behind.url}/v1", model_as=model_as)
        async with (
            gateway(up) as url,
            tapping(url) as before,
            AsyncOpenAI(base_url=f"{before.url}/v1", api_key="k", max_retries=0) as sdk,
        ):
            session = Session(api)
            await client(session, sdk)
        check(session, before, behind)
    return session


def check(session: Session, before: Tap, behind: Tap) -> None:
    """The tool ran once. Each request of the client has only what is new, and continues by id; each of the gateway's
    tells what the tool said once, from then on. Nothing was refused, and all is counted.
    """
    assert session.runs == ["Oslo"]
    assert len(session.answers) == 2
    assert all(answer.strip() for answer in session.answers)
    assert [one["status"] for one in before.responses] == ["completed"] * 3
    after = {one["previous_response_id"]: one for one in before.responses}
    called = after[None]
    answered = after[called["id"]]
    thanked = after[answered["id"]]
    assert [_kinds(one) for one in (called, answered, thanked)] == [["function_call"], ["message"], ["message"]]
    assert len(before.asked) == 3
    assert {one.get("previous_response_id") for one in before.asked} == {None, called["id"], answered["id"]}
    assert [len(one["input"]) for one in before.asked] == [1, 1, 1]
    # By length, which grows: the next turn may take another connection, while the last one's still tells its end.
    sent = sorted((json.dumps(one) for one in behind.sent()), key=len)
    assert [one.count(READING) for one in sent] == [0, 1, 1 + session.answers[0].count(READING)]
    assert [[question in one for question in QUESTIONS] for one in sent] == [[True, False], [True, False], [True, True]]
    usage = [one["usage"] for one in (called, answered, thanked)]
    assert all(one["input_tokens"] > 0 and one["output_tokens"] > 0 for one in usage)


def _kinds(response: Json) -> list[str]:
    return [item["type"] for item in response["output"] if item["type"] != "reasoning"]


# --- aimock ----------------------------------------------------------------------------------------------------------


COUNTED = {"usage": {"input_tokens": 30, "output_tokens": 7, "prompt_tokens": 30, "completion_tokens": 7}}
FIXTURES: list[Json] = [
    {
        "match": {"userMessage": "How warm", "hasToolResult": False},
        "response": {"toolCalls": [{"id": "call_1", "name": "weather", "arguments": '{"city":"Oslo"}'}], **COUNTED},
    },
    {
        "match": {"toolCallId": "call_1", "toolResultContains": READING},
        "response": {"content": "Very cold.", **COUNTED},
    },
    {"match": {"userMessage": "Thanks"}, "response": {"content": "You are welcome.", **COUNTED}},
]
#: Each client and each API once; `deep` has all pairs.
QUICK = {(openai_sdk, "chat"), (openai_agents, "messages"), (pydantic_ai, "responses")}


@pytest.mark.node
@pytest.mark.parametrize(
    ("client", "api"),
    [
        pytest.param(client, api, marks=[] if (client, api) in QUICK else pytest.mark.deep)
        for client in CLIENTS
        for api in APIS
    ],
)
async def test_a_session_with_aimock(client: Client, api: Api, tmp_path: Path) -> None:
    async with aimock(tmp_path, FIXTURES) as server:
        session = await hold(client, api, server.url)
    assert session.answers == ["Very cold.", "You are welcome."]


# --- llama.cpp -------------------------------------------------------------------------------------------------------


@pytest.mark.deep
@pytest.mark.local_model
@pytest.mark.skipif(find_spec("xllamacpp") is None, reason="llama.cpp's own server is not installed")
@pytest.mark.parametrize("client", CLIENTS)
async def test_a_session_with_llama_cpp(client: Client) -> None:
    """Its grammar makes the call, by the schema of the tool. The template shows the small model sessions like this, so
    that it ends this one.
    """
    model = find_model()
    assert model is not None
    async with llama(model, template=TEMPLATE) as server:
        for api in APIS:
            session = await hold(client, api, server, model_as="smollm2")
            assert READING in session.answers[0]
