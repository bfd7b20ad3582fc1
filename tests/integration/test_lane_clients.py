"""The two clients that know lanes: the openai SDK's WebSocket session, blocking and asynchronous, and pydantic-ai,
which sends the runs of several agents over one socket at the same time.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence
from typing import TYPE_CHECKING, Any

import pytest

from segue.protocol.events import Ended, OutputWriter
from segue.protocol.responses import usage
from segue.testing.protocol_checker import Json, parse_json
from segue.upstreams.interface import Batch, UpstreamRequest
from segue.upstreams.scripted import MODEL, Say, ScriptedTurn, Wait, call, say
from tests.integration.gateway import Start, listening
from tests.integration.tap import tapping

if TYPE_CHECKING:
    from openai.lib.responses_websocket import ResponsesWebSocketLimits


UNKNOWN = f"resp_{'0' * 40}"


def limits() -> ResponsesWebSocketLimits:
    from openai.lib.responses_websocket import ResponsesWebSocketLimits

    return ResponsesWebSocketLimits(
        max_lanes=8, max_events_per_lane=64, max_events=256, max_bytes_per_lane=1 << 20, max_bytes=1 << 22
    )


def create(news: object, **fields: object) -> Any:  # noqa: ANN401 - the SDK's many types of one JSON object
    return {"type": "response.create", "model": MODEL, "input": news, "store": False, **fields}


async def test_the_sessions_lanes_run_at_the_same_time_and_fork(start: Start) -> None:
    """The turn in the lane `slow` is held until the two others have ended."""
    from openai import AsyncOpenAI
    from openai.lib.responses_websocket import AsyncResponsesWebSocketSession

    more = asyncio.Event()
    gateway = await start(say("root"), ScriptedTurn((Say(("slow",)), Wait(more))), say("fork"), say("main"))
    tap = await gateway.tap()
    client = AsyncOpenAI(base_url=f"{tap.url}/v1", api_key="x")
    async with (
        client,
        client.responses.connect() as connection,
        AsyncResponsesWebSocketSession(connection, limits=limits()) as session,
    ):
        main, fork, slow = (session.lane(name) for name in ("main", "fork", "slow"))
        await main.send(create("1"))
        root = await main.get_final_response()
        await slow.send(create("2", previous_response_id=root.id))
        while (await slow.recv()).type != "response.output_text.delta":
            pass
        await fork.send(create("3", previous_response_id=root.id))
        assert (await fork.get_final_response()).output_text == "fork"
        await main.send(create("4", previous_response_id=root.id))
        assert (await main.get_final_response()).output_text == "main"
        more.set()
        assert (await slow.get_final_response()).output_text == "slow"
    assert [len(items) for items in gateway.seen()] == [1, 3, 3, 3]


async def test_an_error_reaches_the_lane_of_its_request_and_no_other(start: Start) -> None:
    from openai import AsyncOpenAI
    from openai.lib.responses_websocket import AsyncResponsesWebSocketSession, ResponsesWebSocketError

    gateway = await start(say("fine"))
    tap = await gateway.tap()
    client = AsyncOpenAI(base_url=f"{tap.url}/v1", api_key="x")
    async with (
        client,
        client.responses.connect() as connection,
        AsyncResponsesWebSocketSession(connection, limits=limits()) as session,
    ):
        good, bad = session.lane("good"), session.lane("bad")
        await bad.send(create("1", previous_response_id=UNKNOWN))
        await good.send(create("2"))
        with pytest.raises(ResponsesWebSocketError) as caught:
            await bad.get_final_response()
        assert caught.value.event.to_dict()["stream_id"] == "bad"
        assert (await good.get_final_response()).output_text == "fine"


async def test_the_blocking_session_works_too(start: Start) -> None:
    from openai import OpenAI
    from openai.lib.responses_websocket import ResponsesWebSocketSession

    gateway = await start(call("call_1", "look"), say("right"), say("left"))
    tap = await gateway.tap()

    def hold() -> list[str]:
        with (
            OpenAI(base_url=f"{tap.url}/v1", api_key="x") as client,
            client.responses.connect() as connection,
            ResponsesWebSocketSession(connection, limits=limits()) as session,
        ):
            left, right = session.lane("left"), session.lane("right")
            left.send(create("1"))
            root = left.get_final_response(timeout=20)
            output = [{"type": "function_call_output", "call_id": "call_1", "output": "seen"}]
            said = []
            for lane in (right, left):
                lane.send(create(output, previous_response_id=root.id))
                said.append(lane.get_final_response(timeout=20).output_text)
            return said

    assert await asyncio.to_thread(hold) == ["right", "left"]
    assert [len(items) for items in gateway.seen()] == [1, 3, 3]


# ---------------------------------------------------------------------------------------------------------- pydantic-ai


class Forecaster:
    """A model that asks the tool for the city of the last message, and then tells what it said. It answers so many
    turns together or none, so that runs that were sent one after the other would wait for ever.
    """

    models: Sequence[str] = (MODEL,)

    def __init__(self, together: int) -> None:
        self.seen: list[list[Json]] = []
        self._together = asyncio.Barrier(together)

    async def start(self) -> None:
        """Nothing to do."""

    async def aclose(self) -> None:
        """Nothing to release."""

    async def stream(self, request: UpstreamRequest) -> AsyncGenerator[Batch, None]:
        """Answer when as many turns run as are to run together."""
        items = [parse_json(item.decode()) for item in request.history.items()]
        self.seen.append(items)
        yield []
        await self._together.wait()
        writer, last = OutputWriter(request.response_id), items[-1]
        if last.get("type") == "function_call_output":
            events = [*writer.text(f"It has {last['output']}."), *writer.end_item()]
        else:
            city = last["content"] if isinstance(last["content"], str) else last["content"][0]["text"]
            events = writer.call(f"call_{city}", "weather", json.dumps({"city": city}))
        yield [*events, Ended("completed", usage(1, 1))]


def city_of(items: list[Json]) -> str:
    first = items[0]["content"]
    return str(first if isinstance(first, str) else first[0]["text"])


async def test_the_runs_of_several_agents_share_a_socket() -> None:
    """Three runs of two turns each, in lanes: each continues its own, and sends only what is new."""
    from openai import AsyncOpenAI
    from pydantic_ai import Agent
    from pydantic_ai.models.openai import OpenAIResponsesModel, OpenAIResponsesModelSettings
    from pydantic_ai.profiles.openai import OpenAIModelProfile
    from pydantic_ai.providers.openai import OpenAIProvider

    degrees = {"Oslo": "4 degrees", "Rome": "21 degrees", "Cairo": "30 degrees"}
    model = Forecaster(together=len(degrees))
    async with (
        listening(model) as (gateway, url),
        tapping(url) as tap,
        AsyncOpenAI(base_url=f"{tap.url}/v1", api_key="x", max_retries=0) as client,
    ):
        responses = OpenAIResponsesModel(
            MODEL,
            provider=OpenAIProvider(openai_client=client),
            profile=OpenAIModelProfile(openai_responses_supports_websocket_stream_id=True),
            settings=OpenAIResponsesModelSettings(openai_transport="websocket", openai_store=False),
        )
        agent = Agent(responses, output_type=str)

        @agent.tool_plain
        def weather(city: str) -> str:
            return degrees[city]

        async with agent:
            results = await asyncio.gather(*(agent.run(city) for city in degrees))
            assert gateway.services.drain.connections == 1
        assert [result.output for result in results] == [f"It has {told}." for told in degrees.values()]
    lanes = {asked.get("stream_id", "") for asked in tap.asked}
    assert len(lanes) == len(degrees)
    assert sorted(len(asked["input"]) for asked in tap.asked) == [1] * 6
    second = [items for items in model.seen if len(items) > 1]
    assert {city_of(items): items[-1]["output"] for items in second} == degrees
    assert {len(items) for items in second} == {3}


async def test_an_agent_on_one_socket_goes_on_with_an_earlier_run() -> None:
    from openai import AsyncOpenAI
    from pydantic_ai import Agent
    from pydantic_ai.models.openai import OpenAIResponsesModel, OpenAIResponsesModelSettings
    from pydantic_ai.providers.openai import OpenAIProvider

    model = Forecaster(together=1)
    async with (
        listening(model) as (gateway, url),
        tapping(url) as tap,
        AsyncOpenAI(base_url=f"{tap.url}/v1", api_key="x", max_retries=0) as client,
    ):
        responses = OpenAIResponsesModel(
            MODEL,
            provider=OpenAIProvider(openai_client=client),
            settings=OpenAIResponsesModelSettings(openai_transport="websocket", openai_store=False),
        )
        agent = Agent(responses)

        @agent.tool_plain
        def weather(city: str) -> str:
            return f"rain in {city}"

        async with agent:
            first = await agent.run("Oslo")
            second = await agent.run("Rome", message_history=first.all_messages())
        assert second.output == "It has rain in Rome."
        registry = gateway.services.metrics.registry
        assert registry.get_sample_value("segue_continuation_hits_total", {"level": "connection"}) == 3
    assert [len(asked["input"]) for asked in tap.asked] == [1] * 4
    assert [len(items) for items in model.seen] == [1, 3, 5, 7]
