"""The door of the Messages API, as clients of that API use it: llm-comply's suite, and Anthropic's own SDK with its
streams, its threads and its tool runner, in front of providers of each API.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from segue.testing.response_schemas import Json
from tests.integration.gateway import listening
from tests.integration.providers import Api, ModelServer, calls, gateway, model_server, says, upstream
from tests.integration.test_llm_comply import MODEL, Obliging, run_suite

if TYPE_CHECKING:
    from anthropic import AsyncAnthropic

APIS: tuple[Api, ...] = ("chat", "messages", "responses")
QUESTION = "How warm is it in Oslo?"


@asynccontextmanager
async def client_of(url: str) -> AsyncIterator[AsyncAnthropic]:
    import anthropic

    async with anthropic.AsyncAnthropic(base_url=url, api_key="x", max_retries=0) as client:
        yield client


@asynccontextmanager
async def door(api: Api, *turns: Any) -> AsyncIterator[tuple[AsyncAnthropic, ModelServer]]:  # noqa: ANN401 - see `providers.Turn`
    """A client of a gateway in front of one provider."""
    async with model_server(api, *turns) as server, gateway(upstream(server)) as url, client_of(url) as client:
        yield client, server


def said(body: Json) -> list[str]:
    """The texts of a conversation, as a provider of any API was sent it."""
    whole = json.dumps(body.get("messages") or body.get("input"))
    return [word for word in ("Oslo", "Let me look.", "21 degrees", "Warm.", "And now?") if word in whole]


async def test_everything_in_the_suite_passes() -> None:
    """But for one test that asks for a model of Anthropic's by its name."""
    async with listening(Obliging(), model=MODEL) as (_, url):
        report = await run_suite(url, "anthropic")
    results = {result["id"]: result["status"] for result in report["results"]}
    assert set(results.values()) == {"passed", "skipped"}
    assert [name for name, status in results.items() if status == "skipped"] == ["anth-thinking-display"]


async def weather(city: str) -> str:
    """The weather in a city.

    Args:
        city: Its name.
    """
    return f"21 degrees in {city}"


@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize("streamed", [True, False])
async def test_the_tool_runner_of_the_sdk_threads_a_whole_session(api: Api, streamed: bool) -> None:
    """It does so by default, towards any base URL; the provider reads the whole conversation each time."""
    from anthropic import beta_async_tool

    turns = (calls(api, "toolu_1", "weather", {"city": "Oslo"}, "Let me look."), says(api, "Warm."))
    async with door(api, *turns) as (client, server):
        runner: Any = client.beta.messages.tool_runner(
            model=api,
            max_tokens=64,
            tools=[beta_async_tool(weather)],
            messages=[{"role": "user", "content": QUESTION}],
            stream=streamed,
        )
        async for message in runner:
            if streamed:
                async for _ in message:
                    pass
        last = await runner.until_done()
        assert last.content[0].text == "Warm."
        assert [said(body) for body in server.asked] == [["Oslo"], ["Oslo", "Let me look.", "21 degrees"]]
        assert all("thread" not in body for body in server.asked)


@pytest.mark.parametrize("api", APIS)
async def test_a_thread_of_the_sdk_is_understood(api: Api) -> None:
    """And what it loses is told in a way that it recovers from."""
    async with door(api, says(api, "Warm.")) as (client, server):
        thread: Any = client.beta.messages.thread(model=api, max_tokens=64, system="Be brief.")
        for text in (QUESTION, "And now?"):
            message = await thread.send({"role": "user", "content": text})
            assert message.content[0].text == "Warm."
        assert [said(body) for body in server.asked] == [["Oslo"], ["Oslo", "Warm.", "And now?"]]
        assert all("Be brief." in json.dumps(body) for body in server.asked)


async def test_a_plain_stream_of_the_sdk_is_understood() -> None:
    async with door("chat", calls("chat", "call_1", "weather", {"city": "Oslo"}, "Let me look.")) as (client, _):
        async with client.messages.stream(
            model="chat", max_tokens=64, messages=[{"role": "user", "content": QUESTION}]
        ) as stream:
            text = "".join([piece async for piece in stream.text_stream])
            message = await stream.get_final_message()
        assert text == "Let me look."
        assert message.stop_reason == "tool_use"
        block: Any = message.content[1]
        assert (block.type, block.name, block.input) == ("tool_use", "weather", {"city": "Oslo"})


async def test_errors_are_those_that_the_sdk_knows() -> None:
    import anthropic

    async with door("chat", says("chat", "x")) as (client, _):
        with pytest.raises(anthropic.NotFoundError) as caught:
            await client.messages.create(model="none", max_tokens=1, messages=[{"role": "user", "content": "x"}])
        assert caught.value.request_id
        with pytest.raises(anthropic.BadRequestError):
            await client.messages.create(model="chat", max_tokens=1, messages=[])


async def test_a_thread_goes_from_one_upstream_to_another_and_back() -> None:
    """Each reads all that was said, in its own API."""
    async with (
        model_server("messages", says("messages", "Warm.")) as first,
        model_server(
            "chat", calls("chat", "call_1", "weather", {"city": "Oslo"}), says("chat", "21 degrees")
        ) as second,
        gateway(upstream(first), upstream(second)) as url,
        client_of(url) as client,
    ):
        thread: Json = {"type": "create"}
        tool = {"name": "weather", "input_schema": {"type": "object", "properties": {}}}
        result = {"type": "tool_result", "tool_use_id": "call_1", "content": "21"}
        for model, said_now in (
            ("messages", QUESTION),
            ("chat", "And now?"),
            ("messages", [result]),
            ("chat", "And now?"),
        ):
            asked: Any = {"role": "user", "content": said_now}
            message = await client.beta.messages.create(
                model=model,
                max_tokens=64,
                messages=[asked],
                extra_body={"thread": thread, "tools": [tool], "system": "S"},
            )
            thread = {"type": "continue", "previous_message_id": message.id}
        assert [message["role"] for message in first.asked[-1]["messages"]] == ["user", "assistant"] * 2 + ["user"]
        assert first.asked[-1]["messages"][-1]["content"][0]["tool_use_id"] == "call_1"
        roles = [message["role"] for message in second.asked[-1]["messages"]]
        assert roles == ["system", "user", "assistant", "user", "assistant", "tool", "assistant", "user"]
