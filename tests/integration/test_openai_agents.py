"""openai-agents as a client: a run of several model turns with a tool, over each of its transports, once with deltas
and once with the full history each time. However it travels, the model sees the same.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import pytest

from segue.testing.protocol_checker import Json
from segue.upstreams.scripted import MODEL, CallTool, Fail, Say, ScriptedTurn, call, say
from tests.integration.gateway import Start

if TYPE_CHECKING:
    from agents import Agent, RunConfig


Transport: TypeAlias = Literal["json", "sse", "websocket"]

SCRIPT = (
    ScriptedTurn((Say(("Let me see.",)), CallTool("call_1", "weather", '{"city":"Oslo"}'))),
    call("call_2", "weather", '{"city":"Rome"}'),
    say("Rome ", "is warmer."),
)
QUESTION = "Which is warmer, Oslo or Rome?"


@pytest.fixture(autouse=True)
def no_tracing() -> None:
    """Tracing would post to the provider's own host."""
    from agents import set_tracing_disabled

    set_tracing_disabled(True)


def forecaster() -> Agent[Any]:
    from agents import Agent, function_tool

    @function_tool
    def weather(city: str) -> str:
        """The weather in a city."""
        return {"Oslo": "4 degrees", "Rome": "21 degrees"}[city]

    return Agent(name="Forecaster", instructions="Use the tool.", tools=[weather], model=MODEL)


@asynccontextmanager
async def provider(url: str, transport: Transport) -> AsyncIterator[RunConfig]:
    """Settings of a run that lead to the gateway; a WebSocket is kept open from run to run."""
    from agents import OpenAIProvider, RunConfig
    from openai import AsyncOpenAI

    async with AsyncOpenAI(base_url=f"{url}/v1", api_key="x", max_retries=0) as client:
        models = OpenAIProvider(openai_client=client, use_responses_websocket=transport == "websocket")
        try:
            yield RunConfig(model_provider=models)
        finally:
            await models.aclose()


async def run(config: RunConfig, transport: Transport, *, chained: bool = False, parent: str | None = None) -> str:
    """Ask the agent the question, and return its last words."""
    from agents import Runner

    options: dict[str, Any] = {
        "run_config": config,
        "auto_previous_response_id": chained,
        "previous_response_id": parent,
    }
    if transport == "sse":
        streamed = Runner.run_streamed(forecaster(), QUESTION, **options)
        async for _ in streamed.stream_events():
            pass
        return str(streamed.final_output)
    result = await Runner.run(forecaster(), QUESTION, **options)
    return str(result.final_output)


def output(call_id: str, text: str) -> Json:
    return {"type": "function_call_output", "call_id": call_id, "output": text}


@pytest.mark.parametrize("chained", [True, False])
@pytest.mark.parametrize("transport", ["json", "sse", "websocket"])
async def test_a_run_with_a_tool_shows_the_model_the_same_history(
    start: Start, transport: Transport, chained: bool
) -> None:
    gateway = await start(*SCRIPT)
    tap = await gateway.tap()
    async with provider(tap.url, transport) as config:
        said = await run(config, transport, chained=chained)
    assert said == "Rome is warmer."
    tap.judge()
    assert [len(asked["input"]) for asked in tap.asked] == ([1, 1, 1] if chained else [1, 4, 6])
    first, second, _ = (response["output"] for response in tap.responses)
    question = [{"role": "user", "content": QUESTION}]
    after_first = [*question, *first, output("call_1", "4 degrees")]
    assert gateway.seen() == [question, after_first, [*after_first, *second, output("call_2", "21 degrees")]]
    assert [request.settings.instructions_text for request in gateway.upstream.requests] == ["Use the tool."] * 3
    assert [len(request.settings.tools) for request in gateway.upstream.requests] == [1] * 3


async def test_a_later_run_continues_an_earlier_one_on_the_same_socket(start: Start) -> None:
    from agents import responses_websocket_session

    gateway = await start(*SCRIPT, say("You are welcome."))
    tap = await gateway.tap()
    async with responses_websocket_session(api_key="x", base_url=f"{tap.url}/v1") as session:
        first = await session.run(forecaster(), QUESTION, auto_previous_response_id=True)
        second = await session.run(forecaster(), "Thanks.", previous_response_id=first.last_response_id)
    assert second.final_output == "You are welcome."
    assert [len(items) for items in gateway.seen()] == [1, 4, 6, 8]
    hits = {level: gateway.metric("segue_continuation_hits_total", level=level) for level in ("connection", "process")}
    assert hits == {"connection": 3, "process": 0}


async def test_a_failed_turn_is_an_exception_and_the_next_run_works(start: Start) -> None:
    from agents import ModelBehaviorError

    gateway = await start(ScriptedTurn((Say(("Le",)), Fail("server_error", "Broken."))), say("Again."))
    tap = await gateway.tap()
    async with provider(tap.url, "websocket") as config:
        with pytest.raises(ModelBehaviorError):
            await run(config, "websocket")
        assert await run(config, "websocket") == "Again."


async def test_an_unknown_parent_is_an_exception_that_names_the_code(start: Start) -> None:
    from agents.models.openai_responses import ResponsesWebSocketError

    tap = await (await start()).tap()
    async with provider(tap.url, "websocket") as config:
        with pytest.raises(ResponsesWebSocketError, match="previous_response_not_found"):
            await run(config, "websocket", parent=f"resp_{'0' * 40}")
