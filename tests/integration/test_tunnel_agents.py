"""Real agents through the sidecar and the gateway, over a link that is cut five times: they finish, and the provider
gets each request once and to the byte as without any of it.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from segue.http.heads import Line, end_to_end
from segue.testing.link import EmulatedLink
from segue.testing.provider import (
    ACCEPTED,
    Answer,
    ReceivedRequest,
    Script,
    SocketAnswer,
    SocketMessage,
    answer_with,
)
from segue.testing.replies import Api, ProviderReply, ReplyContext, make_reply
from tests.faults.gateways import until
from tests.faults.tunnels import Way, tunnelled

if TYPE_CHECKING:
    from agents import Agent, RunConfig
    from anthropic.types import MessageParam, ToolParam, ToolResultBlockParam
    from openai.types.chat import ChatCompletionMessageParam


TURNS = 7
LISTINGS = [f"total {number}\n" + "drwxr-xr-x  src tests docs\n" * (number * 7) for number in range(TURNS)]

#: Where the link breaks, one after the other: bytes up or down since the last break.
CUTS: tuple[tuple[int | None, int | None], ...] = ((None, 700), (90, None), (None, 40), (400, None), (None, 500))

Run = Callable[[str], Coroutine[None, None, str]]


def replies(api: Api, outputs: list[Any]) -> list[ProviderReply]:
    return [
        make_reply(
            api, output, ReplyContext(request={"model": "m"}, identity=f"id{turn}", created_at=1, seed=f"{turn}")
        )
        for turn, output in enumerate(outputs)
    ]


def again_and_again(said: list[ProviderReply], *, streamed: bool) -> Script:
    """Answer every run alike: the first request of each with the first reply, and so on."""

    def script(request: ReceivedRequest) -> Answer:
        return answer_with(said[request.number % len(said)], streamed=streamed)

    return script


def end_to_end_of(request: ReceivedRequest) -> tuple[bytes, bytes, tuple[Line, ...], bytes | None]:
    return request.method, request.target, end_to_end(request.lines), request.body


async def five_cuts(link: EmulatedLink) -> None:
    for up_bytes, down_bytes in CUTS:
        await link.cut_after(up_bytes=up_bytes, down_bytes=down_bytes).wait()


async def compare(way: Way, run: Run) -> None:
    """Run an agent straight at the provider, then through everything with cuts, and compare what the provider got."""
    said = await run(way.provider.url)
    straight = [end_to_end_of(request) for request in way.provider.requests]
    assert len(straight) == TURNS
    cutting = asyncio.create_task(five_cuts(way.link))
    async with asyncio.timeout(60):
        assert await run(way.sidecar.sidecar.url) == said
    await asyncio.wait_for(cutting, 5)
    assert [end_to_end_of(request) for request in way.provider.requests[TURNS:]] == straight
    assert len(way.link.connections) > len(CUTS)
    assert (await way.sidecar.stats())["base_hits"] >= TURNS - 4


# --- over HTTP -------------------------------------------------------------------------------------------------------


def thinking_and_calls() -> list[Any]:
    calls = [
        [
            {"type": "thinking", "thinking": f"Look {turn}.", "signature": "c2ln" * 40},
            {"type": "text", "text": f"Step {turn}: let me look."},
            {"type": "tool_use", "id": f"toolu_{turn}", "name": "ls", "input": {"path": f"/{turn}"}},
        ]
        for turn in range(TURNS - 1)
    ]
    return [*calls, [{"type": "text", "text": "It is done."}]]


async def with_anthropic(url: str) -> str:
    from anthropic import AsyncAnthropic

    tool: ToolParam = {"name": "ls", "input_schema": {"type": "object", "properties": {"path": {"type": "string"}}}}
    messages: list[MessageParam] = [{"role": "user", "content": "Find out why the tests fail."}]
    async with AsyncAnthropic(base_url=url, api_key="k", max_retries=0) as client:
        while True:
            async with client.messages.stream(
                model="m", max_tokens=1000, tools=[tool], messages=messages, system="Be careful."
            ) as stream:
                message = await stream.get_final_message()
            calls = [block for block in message.content if block.type == "tool_use"]
            if not calls:
                return "".join(block.text for block in message.content if block.type == "text")
            results: list[ToolResultBlockParam] = [
                {"type": "tool_result", "tool_use_id": call.id, "content": LISTINGS[int(call.id[6:])]} for call in calls
            ]
            messages += [{"role": "assistant", "content": message.content}, {"role": "user", "content": results}]


async def test_the_anthropic_sdk_finishes_a_tool_loop_over_five_cuts() -> None:
    async with tunnelled(again_and_again(replies("messages", thinking_and_calls()), streamed=True)) as way:
        await compare(way, with_anthropic)


def chat_calls() -> list[Any]:
    calls = [
        {
            "role": "assistant",
            "content": f"Step {turn}.",
            "tool_calls": [
                {"id": f"call_{turn}", "type": "function", "function": {"name": "ls", "arguments": f'{{"p":{turn}}}'}}
            ],
        }
        for turn in range(TURNS - 1)
    ]
    return [*calls, {"role": "assistant", "content": "It is done."}]


async def with_openai_chat(url: str) -> str:
    from openai import AsyncOpenAI
    from openai.types.chat import ChatCompletionMessageFunctionToolCall

    messages: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Find out why the tests fail."}]
    async with AsyncOpenAI(base_url=f"{url}/v1", api_key="k", max_retries=0) as client:
        while True:
            completion = await client.chat.completions.create(model="m", messages=messages)
            message = completion.choices[0].message
            if not message.tool_calls:
                return message.content or ""
            messages.append(message.model_dump(exclude_none=True))  # type: ignore[arg-type]  # as the SDK's docs show
            for call in message.tool_calls:
                assert isinstance(call, ChatCompletionMessageFunctionToolCall)
                output = LISTINGS[json.loads(call.function.arguments)["p"]]
                messages.append({"role": "tool", "tool_call_id": call.id, "content": output})


async def test_the_openai_sdk_finishes_a_tool_loop_that_is_not_streamed_over_five_cuts() -> None:
    async with tunnelled(again_and_again(replies("chat", chat_calls()), streamed=False)) as way:
        await compare(way, with_openai_chat)


def items() -> list[Any]:
    calls = [
        [
            {
                "id": f"rs_{turn}",
                "type": "reasoning",
                "summary": [{"type": "summary_text", "text": f"Look {turn}."}],
                "encrypted_content": "ZW5j" * 50,
            },
            {
                "id": f"fc_{turn}",
                "type": "function_call",
                "status": "completed",
                "call_id": f"call_{turn}",
                "name": "ls",
                "arguments": f'{{"number":{turn}}}',
            },
        ]
        for turn in range(TURNS - 1)
    ]
    text = {"type": "output_text", "text": "It is done.", "annotations": []}
    message = {"id": "msg_1", "type": "message", "status": "completed", "role": "assistant", "content": [text]}
    return [*calls, [message]]


def engineer() -> Agent[Any]:
    from agents import Agent, function_tool

    @function_tool
    def ls(number: int) -> str:
        """List a folder."""
        return LISTINGS[number]

    return Agent(name="Engineer", instructions="Find the cause first.", tools=[ls], model="m")


@asynccontextmanager
async def agents_provider(url: str, *, websocket: bool) -> AsyncIterator[RunConfig]:
    from agents import OpenAIProvider, RunConfig, set_tracing_disabled
    from openai import AsyncOpenAI

    set_tracing_disabled(True)
    async with AsyncOpenAI(base_url=f"{url}/v1", api_key="k", max_retries=0) as client:
        models = OpenAIProvider(openai_client=client, use_responses_websocket=websocket)
        try:
            yield RunConfig(model_provider=models)
        finally:
            await models.aclose()


async def with_openai_agents(url: str) -> str:
    from agents import Runner

    async with agents_provider(url, websocket=False) as config:
        streamed = Runner.run_streamed(engineer(), "Why do the tests fail?", run_config=config, max_turns=20)
        async for _ in streamed.stream_events():
            pass
        return str(streamed.final_output)


async def test_openai_agents_finishes_a_streamed_run_over_five_cuts() -> None:
    async with tunnelled(again_and_again(replies("responses", items()), streamed=True)) as way:
        await compare(way, with_openai_agents)


# --- over a WebSocket ------------------------------------------------------------------------------------------------


def in_turn(said: list[ProviderReply]) -> Callable[[SocketMessage], SocketAnswer]:
    def script(message: SocketMessage) -> SocketAnswer:
        return SocketAnswer(messages=said[message.number % len(said)].messages)

    return script


async def openai_agents_over_a_socket(url: str) -> str:
    from agents import Runner

    async with agents_provider(url, websocket=True) as config:
        result = await Runner.run(
            engineer(), "Why do the tests fail?", run_config=config, max_turns=20, auto_previous_response_id=True
        )
        return str(result.final_output)


async def pydantic_ai_over_a_socket(url: str) -> str:
    from openai import AsyncOpenAI
    from pydantic_ai import Agent as PydanticAgent
    from pydantic_ai.models.openai import OpenAIResponsesModel, OpenAIResponsesModelSettings
    from pydantic_ai.profiles.openai import OpenAIModelProfile
    from pydantic_ai.providers.openai import OpenAIProvider as PydanticProvider

    client = AsyncOpenAI(base_url=f"{url}/v1", api_key="k", max_retries=0)
    model = OpenAIResponsesModel(
        "m",
        provider=PydanticProvider(openai_client=client),
        profile=OpenAIModelProfile(openai_responses_supports_websocket=True),
        settings=OpenAIResponsesModelSettings(openai_transport="websocket"),
    )
    agent = PydanticAgent(model, instructions="Find the cause first.")

    @agent.tool_plain(name="ls")
    def list_folder(number: int) -> str:
        """List a folder."""
        return LISTINGS[number]

    async with agent:
        result = await agent.run("Why do the tests fail?")
    await client.close()
    return result.output


@pytest.mark.parametrize("run", [openai_agents_over_a_socket, pydantic_ai_over_a_socket])
async def test_a_websocket_session_goes_on_over_cuts_both_ways(run: Run) -> None:
    said = replies("responses", items())
    async with tunnelled(lambda _: ACCEPTED, message_script=in_turn(said)) as way:
        words = await run(way.provider.url)
        straight = [(message.data, message.text) for message in way.provider.messages]
        assert len(straight) == TURNS
        cutting = asyncio.create_task(five_cuts(way.link))
        async with asyncio.timeout(60):
            assert await run(way.sidecar.sidecar.url) == words
        await asyncio.wait_for(cutting, 5)
        assert [(message.data, message.text) for message in way.provider.messages[TURNS:]] == straight
        first, second = way.provider.requests
        assert end_to_end(first.lines, "websocket") == end_to_end(second.lines, "websocket")


@pytest.mark.parametrize("status", [401, 426, 500])
async def test_a_refused_upgrade_comes_back_as_the_provider_said_it(status: int) -> None:
    body = json.dumps({"error": {"message": "no", "code": "nope"}}).encode()
    refusal = Answer(status=status, reason=b"No", lines=(Line(b"X-Why", b"policy"),), pieces=(body,), framing="length")
    async with tunnelled(lambda _: refusal) as way:
        with pytest.raises(InvalidStatus) as refused:
            async with connect(way.sidecar.sidecar.url.replace("http", "ws") + "/v1/responses", proxy=None):
                pass
    response = refused.value.response
    assert (response.status_code, response.body, response.headers["X-Why"]) == (status, body, "policy")


async def test_the_end_of_a_websocket_passes_in_both_directions() -> None:
    def script(message: SocketMessage) -> SocketAnswer:
        return SocketAnswer(messages=(message.data,), close_code=4001, close_reason="enough")

    async with tunnelled(lambda _: ACCEPTED, message_script=script) as way:
        async with connect(way.sidecar.sidecar.url.replace("http", "ws") + "/v1/responses", proxy=None) as socket:
            await socket.send("hello")
            assert await socket.recv() == "hello"
            await asyncio.wait_for(socket.wait_closed(), 20)
        assert (socket.close_code, socket.close_reason) == (4001, "enough")


def saying(*items: str) -> str:
    """A message as Codex sends it: with its tools, and what is new."""
    tools = [{"type": "function", "name": f"tool {number}", "description": "what it does " * 9} for number in range(40)]
    made = {"type": "response.create", "input": [{"type": "message", "text": item} for item in items], "tools": tools}
    return json.dumps(made, separators=(",", ":"))


@pytest.mark.parametrize("restarted", [False, True])
async def test_a_resumed_conversation_is_sent_against_an_earlier_socket_over_cuts(*, restarted: bool) -> None:
    """It comes in the second message, as Codex sends it with gpt-5.5, and another one in the midst of the stream."""
    said = [hashlib.sha512(b"%d" % number).hexdigest() * 4 for number in range(40)]
    first, second = [saying("begin"), saying(*said[:20])], [saying("begin"), saying(*said[20:])]
    resumed = [saying("begin again"), saying(*said[:20], "go on"), saying("and on"), saying(*said[20:], "go on")]
    async with tunnelled(lambda _: ACCEPTED, message_script=lambda _: SocketAnswer(messages=(b"done",))) as way:
        url = way.sidecar.sidecar.url.replace("http", "ws") + "/v1/responses"
        for earlier in (first, second):
            await say(url, earlier, way.link)
            await until(lambda: way.node.gateway is not None and not way.node.gateway.tunnel.exchanges)
            while (await way.sidecar.stats())["active"]:  # it keeps the base first
                pass
        if restarted:
            await way.node.stop()
            await way.node.start()
        before = await way.sidecar.stats()
        await say(url, resumed, way.link, cut_at=(300, 90, 60, 150))
        after = await way.sidecar.stats()
        assert [message.data.decode() for message in way.provider.messages] == first + second + resumed
    assert after["base_misses"] - before["base_misses"] == restarted
    if not restarted:
        assert after["base_hits"] - before["base_hits"] == 3
        assert after["tunnel_bytes_up"] - before["tunnel_bytes_up"] < 6000
    assert after["resumes"] > before["resumes"]


async def say(url: str, messages: list[str], link: EmulatedLink, cut_at: Sequence[int] = ()) -> None:
    """Say something on a new WebSocket, message by message; the link is cut within those for which there is a place."""
    async with connect(url, proxy=None) as socket, asyncio.timeout(60):
        for message, place in zip_longest(messages, cut_at):
            if place is not None:
                link.cut_after(up_bytes=place)
            await socket.send(message)
            assert await socket.recv() == "done"
