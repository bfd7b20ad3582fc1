"""The door of Chat Completions, as clients of that API use it: the openai SDK and pydantic-ai hold sessions with a tool
on providers of each API, and everything that is streamed goes through the checker.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp
import msgspec
import pytest

from segue.config import LimitsConfig
from segue.protocol.problems import Problem
from segue.testing.chat_checker import ChatStream, check_chunks, check_completion
from segue.testing.response_schemas import Json
from segue.upstreams.scripted import MODEL, Fail, Refuse, Say, ScriptedTurn, Truncate, call, say
from tests.integration.gateway import Start, key
from tests.integration.gateway import listening as serving_model
from tests.integration.providers import Api, ModelServer, calls, gateway, model_server, says, upstream
from tests.integration.test_llm_comply import MODEL as REASONING
from tests.integration.test_llm_comply import Obliging, run_suite
from tests.upstreams.provider import Play, providing, refuses, streams

if TYPE_CHECKING:
    from openai import AsyncOpenAI

APIS: tuple[Api, ...] = ("chat", "messages", "responses")
QUESTION = "How warm is it in Oslo?"
TOOL: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather in a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk"
    "+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


def user(content: object = QUESTION) -> Json:
    return {"role": "user", "content": content}


class Door:
    """A plain client of one gateway."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def post(self, *messages: Json, **fields: object) -> tuple[int, bytes, Json]:
        """Send a request; return the status, the body and the header lines of the reply."""
        body = {"model": MODEL, "messages": list(messages) or [user()], **fields}
        async with self._session.post("/v1/chat/completions", json=body) as reply:
            return reply.status, await reply.read(), {name.lower(): value for name, value in reply.headers.items()}

    async def complete(self, *messages: Json, **fields: object) -> Json:
        status, body, _ = await self.post(*messages, **fields)
        assert status == 200, body
        completion: Json = json.loads(body)
        check_completion(completion)
        return completion

    async def stream(self, *messages: Json, **fields: object) -> ChatStream:
        status, body, headers = await self.post(*messages, stream=True, **fields)
        assert status == 200, body
        assert headers["content-type"].startswith("text/event-stream")
        options: Any = fields.get("stream_options") or {}
        return check_chunks(body, include_usage=bool(options.get("include_usage")))


@asynccontextmanager
async def door(url: str, secret: str | None = None) -> AsyncIterator[Door]:
    headers = {} if secret is None else {"Authorization": f"Bearer {secret}"}
    async with aiohttp.ClientSession(url, headers=headers) as session:
        yield Door(session)


# --- what is answered ------------------------------------------------------------------------------------------------


async def test_a_completion_and_a_stream_say_the_same(start: Start) -> None:
    running = await start(say("hel", "lo"), say("hel", "lo"))
    async with door(running.url) as client:
        completion = await client.complete()
        stream = await client.stream(stream_options={"include_usage": True})
    message = completion["choices"][0]["message"]
    assert (message["content"], completion["model"]) == ("hello", MODEL)
    assert stream.message == {"content": "hello"}
    assert stream.usage == completion["usage"]
    assert completion["id"] != stream.chunks[0]["id"]
    assert running.metric("segue_turns_total", transport="http", outcome="completed") == 1
    assert running.metric("segue_turns_total", transport="sse", outcome="completed") == 1


async def test_nothing_of_it_is_stored(start: Start) -> None:
    running = await start(say("x"))
    async with door(running.url) as client:
        completion = await client.complete()
        ident = completion["id"].replace("chatcmpl-", "resp_")
        async with aiohttp.ClientSession(running.url) as session:
            assert (await session.get(f"/v1/responses/{ident}")).status == 404
            body = {"model": MODEL, "input": "x", "previous_response_id": ident}
            reply = await session.post("/v1/responses", json=body)
            assert (await reply.json())["error"]["code"] == "previous_response_not_found"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [
        ({"model": "none"}, 404, "model_not_found"),
        ({"n": 2}, 400, "unsupported_parameter"),
        ({"messages": []}, 400, "missing_required_parameter"),
        ({"previous_response_id": f"resp_{'0' * 40}"}, 400, "unsupported_parameter"),
    ],
)
async def test_what_is_refused_has_the_shape_of_openais_errors(
    start: Start, fields: Json, status: int, code: str, stream: bool
) -> None:
    running = await start()
    async with door(running.url) as client:
        found, body, headers = await client.post(stream=stream, **fields)
    error = json.loads(body)["error"]
    assert headers["x-request-id"].startswith("req_")
    assert (found, error["code"]) == (status, code)
    assert {"message", "type", "param", "code"} == error.keys()


@pytest.mark.parametrize("stream", [False, True])
async def test_a_turn_that_fails_before_its_answer_is_an_error_by_its_status(start: Start, stream: bool) -> None:
    """What was refused may be sent again; what may have run is not."""
    limited = ScriptedTurn((Refuse(Problem("rate_limit_exceeded", "Slower.", retry_after_s=7)),))
    running = await start(limited, ScriptedTurn((Fail("bored", "No."),)))
    async with door(running.url) as client:
        status, body, headers = await client.post(stream=stream)
        assert (status, json.loads(body)["error"]["code"], headers["retry-after"]) == (429, "rate_limit_exceeded", "7")
        status, body, headers = await client.post(stream=stream)
        assert (status, json.loads(body)["error"]["code"]) == (424, "upstream_error")


async def test_a_stream_that_breaks_ends_in_an_error(start: Start) -> None:
    running = await start(ScriptedTurn((Say(("hel",)), Fail("server_error", "It broke."))))
    async with door(running.url) as client:
        stream = await client.stream()
    assert stream.message == {"content": "hel"}
    assert stream.error is not None
    assert (stream.error["code"], stream.error["message"]) == ("server_error", "It broke.")


async def test_an_answer_that_was_cut_says_so(start: Start) -> None:
    cut = ScriptedTurn((Say(("hel",)), Truncate()))
    running = await start(cut, cut)
    async with door(running.url) as client:
        assert (await client.stream()).finish_reason == "length"
        assert (await client.complete())["choices"][0]["finish_reason"] == "length"


async def test_a_limit_is_told_in_header_lines() -> None:
    limited = msgspec.structs.replace(key("alice"), limits=LimitsConfig(requests_per_minute=1))
    async with (
        model_server("chat", says("chat", "x")) as server,
        gateway(upstream(server), keys=[limited]) as url,
        door(url, "sk-alice") as client,
    ):
        assert (await client.post(model="chat"))[0] == 200
        status, body, headers = await client.post(model="chat")
    assert (status, json.loads(body)["error"]["code"]) == (429, "rate_limit_exceeded")
    assert headers["x-ratelimit-remaining-requests"] == "0"


# --- clients ---------------------------------------------------------------------------------------------------------


def script(api: Api) -> Sequence[Any]:
    return (calls(api, "call_1", "weather", {"city": "Oslo"}, "Let me see."), says(api, "4 degrees."))


async def _session(client: AsyncOpenAI, model: str, *, streamed: bool) -> list[Any]:
    """One question, a call of the tool, and its answer."""
    messages: list[Any] = [{"role": "system", "content": "Be brief."}, user()]
    while messages[-1]["role"] != "assistant" or messages[-1].get("tool_calls"):
        if streamed:
            async with client.chat.completions.stream(model=model, messages=messages, tools=[TOOL]) as events:
                completion: Any = await events.get_final_completion()
        else:
            completion = await client.chat.completions.create(model=model, messages=messages, tools=[TOOL])
        message = completion.choices[0].message
        messages.append({name: value for name, value in message.model_dump().items() if value is not None})
        messages[-1].pop("parsed", None)
        for made in message.tool_calls or ():
            assert json.loads(made.function.arguments) == {"city": "Oslo"}
            messages.append({"role": "tool", "tool_call_id": made.id, "content": "4"})
        if message.tool_calls:
            messages[-2]["tool_calls"] = [
                {
                    "id": one.id,
                    "type": "function",
                    "function": {"name": one.function.name, "arguments": one.function.arguments},
                }
                for one in message.tool_calls
            ]
    return messages


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("api", APIS)
async def test_the_openai_sdk_holds_a_session_with_a_tool(api: Api, streamed: bool) -> None:
    from openai import AsyncOpenAI

    async with (
        model_server(api, *script(api)) as server,
        gateway(upstream(server)) as url,
        AsyncOpenAI(base_url=f"{url}/v1", api_key="x", max_retries=0) as client,
    ):
        messages = await _session(client, api, streamed=streamed)
    assert messages[-1]["content"] == "4 degrees."
    assert len(server.asked) == 2
    _check_asked(api, server)


def _check_asked(api: Api, server: ModelServer) -> None:
    """The second request has everything that was said, in the words of the API."""
    said = json.dumps(server.asked[1])
    for word in (QUESTION, "Let me see.", "Oslo", "call_1"):
        assert word in said
    if api == "chat":
        assert [message["role"] for message in server.asked[1]["messages"]] == ["system", "user", "assistant", "tool"]


async def test_the_blocking_sdk_lists_models_and_completes(start: Start) -> None:
    from openai import NotFoundError, OpenAI

    running = await start(say("one", " two"), call("a", "weather", '{"city":"Oslo"}'))

    def use() -> None:
        with OpenAI(base_url=f"{running.url}/v1", api_key="x", max_retries=0) as client:
            assert [model.id for model in client.models.list()] == [MODEL]
            assert client.models.retrieve(MODEL).id == MODEL
            with pytest.raises(NotFoundError):
                client.models.retrieve("none")
            pieces = client.chat.completions.create(
                model=MODEL, messages=[{"role": "user", "content": "x"}], stream=True
            )
            assert "".join(piece.choices[0].delta.content or "" for piece in pieces) == "one two"
            made = client.chat.completions.create(
                model=MODEL,
                messages=[{"role": "user", "content": "x"}],
                tools=[TOOL],
                logprobs=True,
            )
            assert made.choices[0].finish_reason == "tool_calls"

    await asyncio.to_thread(use)


async def test_the_sdk_raises_an_error_where_a_stream_breaks(start: Start) -> None:
    from openai import APIError, AsyncOpenAI

    running = await start(ScriptedTurn((Say(("hel",)), Fail("server_error", "It broke."))))
    async with AsyncOpenAI(base_url=f"{running.url}/v1", api_key="x", max_retries=0) as client:
        pieces = await client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": "x"}], stream=True
        )
        with pytest.raises(APIError, match="It broke"):
            async for _ in pieces:
                pass


@pytest.mark.parametrize(
    "api", [pytest.param("chat", marks=pytest.mark.deep), "messages", pytest.param("responses", marks=pytest.mark.deep)]
)
async def test_pydantic_ai_holds_a_session_with_a_tool(api: Api) -> None:
    from openai import AsyncOpenAI
    from pydantic_ai import Agent
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    async with (
        model_server(api, *script(api)) as server,
        gateway(upstream(server)) as url,
        AsyncOpenAI(base_url=f"{url}/v1", api_key="x", max_retries=0) as client,
    ):
        agent = Agent(OpenAIChatModel(api, provider=OpenAIProvider(openai_client=client)))

        @agent.tool_plain
        def weather(city: str) -> str:
            """The weather in a city."""
            assert city == "Oslo"
            return "4"

        said = (await agent.run(QUESTION, event_stream_handler=_listen)).output
    assert said == "4 degrees."
    assert len(server.asked) == 2


async def _listen(_: object, events: Any) -> None:  # noqa: ANN401 - the framework's own events
    async for _event in events:
        pass


@pytest.mark.deep
async def test_anthropics_sdk_lists_models_page_by_page(start: Start) -> None:
    from anthropic import AsyncAnthropic, NotFoundError

    running = await start()
    async with AsyncAnthropic(base_url=running.url, api_key="x", max_retries=0) as client:
        assert [model.id async for model in client.models.list(limit=1)] == [MODEL]
        assert (await client.models.retrieve(MODEL)).display_name == MODEL
        with pytest.raises(NotFoundError) as refused:
            await client.models.retrieve("none")
    body: Any = refused.value.body
    assert body["type"] == "error"
    assert body["error"]["type"] == "not_found_error"


async def test_clients_of_anthropics_api_list_models_as_that_does(start: Start) -> None:
    running = await start()
    headers = {"anthropic-version": "2023-06-01", "x-api-key": "x"}
    async with aiohttp.ClientSession(running.url, headers=headers) as session:
        page = await (await session.get("/v1/models?limit=1")).json()
        assert ([model["id"] for model in page["data"]], page["has_more"]) == ([MODEL], False)
        for path, status, kind in (
            ("/v1/models/none", 404, "not_found_error"),
            ("/v1/models?limit=0", 400, "invalid_request_error"),
        ):
            reply = await session.get(path)
            body = await reply.json()
            assert (reply.status, body["type"], body["error"]["type"]) == (status, "error", kind)


async def test_everything_in_llm_complys_suite_passes() -> None:
    async with serving_model(Obliging(), model=REASONING) as (_, url):
        report = await run_suite(url, "openai-chat")
    results = {result["id"]: result for result in report["results"]}
    assert {name: result for name, result in results.items() if result["status"] != "passed"} == {}
    # This model does not say how many of its tokens are reasoning.
    assert {name for name, result in results.items() if result.get("warnings")} == {"chat-reasoning-summary"}
    assert len(results) == 9


# --- what the upstream is sent ---------------------------------------------------------------------------------------


async def test_a_body_passes_to_an_upstream_of_this_api_as_it_is() -> None:
    reply = b'{"id":"x","object":"chat.completion.chunk","created":7,"model":"big","mood":1,"choices":[%b]}'
    chunks = [
        reply % b'{"index":0,"delta":{"role":"assistant","content":"x","extra_content":{"a":1}},"finish_reason":null}',
        reply % b'{"index":0,"delta":{},"finish_reason":"stop"}',
        b"[DONE]",
    ]
    body = (
        b'{ "model":"small", "messages":[{"role":"user","name":"bob","content":"\\u00e9"}],\n"top_k": 1e1,"stream":%b }'
    )
    play: Play = streams(*(b"data: %b\n\n" % chunk for chunk in chunks))
    async with providing(play) as provider:
        config = upstream(ModelServer("chat", []), "small", base_url=f"{provider.url}/v1", model_as="big")
        async with gateway(config) as url, aiohttp.ClientSession(url) as session:
            for stream in (b"true", b"false"):
                async with session.post("/v1/chat/completions", data=body % stream) as answer:
                    assert answer.status == 200, await answer.text()
                    got = await answer.text()
                    assert '"extra_content":{"a":1}' in got
                    assert '"mood":1' in got
                    assert '"model":"small"' in got
    wanted = (
        b'{ "model":"big", "messages":[{"role":"user","name":"bob","content":"\\u00e9"}],\n"top_k": 1e1,"stream":true'
    )
    assert [request.body for request in provider.got] == [wanted + b' ,"stream_options":{"include_usage":true}}'] * 2


def sse_of(text: str) -> bytes:
    """A whole stream of a provider."""
    choice = {"index": 0, "delta": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    chunk = {"id": "x", "object": "chat.completion.chunk", "created": 7, "model": "m", "choices": [choice]}
    return b"data: %b\n\ndata: [DONE]\n\n" % json.dumps(chunk).encode()


async def test_an_upstream_that_refuses_the_question_for_the_usage_is_asked_without_it() -> None:
    complains = refuses(400, {"error": {"message": "Unknown field stream_options", "param": "stream_options"}})
    async with providing(complains, streams(sse_of("x"))) as provider:
        config = upstream(ModelServer("chat", []), "m", base_url=f"{provider.url}/v1")
        async with gateway(config) as url, door(url) as client:
            assert (await client.complete(model="m"))["choices"][0]["message"]["content"] == "x"
    assert ["stream_options" in request.json for request in provider.got] == [True, False]


async def test_a_body_passes_to_the_upstream_that_stands_in_for_another() -> None:
    body = b'{"model":"m", "top_k":1e1, "messages":[{"role":"user","content":"x"}]}'
    async with providing(refuses(503)) as broken, providing(streams(sse_of("x"))) as other:
        servers = [
            upstream(ModelServer("chat", []), name, models=["m"], base_url=f"{server.url}/v1", group="g")
            for name, server in (("one", broken), ("two", other))
        ]
        async with gateway(*servers) as url, aiohttp.ClientSession(url) as session:
            for _ in range(2):  # whichever has the conversation
                reply = await session.post("/v1/chat/completions", data=body)
                assert (reply.status, (await reply.json())["choices"][0]["message"]["content"]) == (200, "x")
    assert len(other.got) == 2
    assert {request.body[: len(body) - 1] for request in (*broken.got, *other.got)} == {body[:-1]}


async def test_a_body_is_translated_where_not_all_upstreams_of_a_group_speak_the_api() -> None:
    async with model_server("messages", says("messages", "x")) as server, providing(refuses(503)) as broken:
        one = upstream(ModelServer("chat", []), "one", models=["m"], base_url=f"{broken.url}/v1", group="g")
        two = upstream(server, "two", models=["m"], group="g")
        async with gateway(one, two) as url, door(url) as client:
            assert (await client.complete(model="m"))["choices"][0]["message"]["content"] == "x"


async def test_an_error_of_the_upstream_has_the_one_shape() -> None:
    long = {"error": {"message": "maximum context length is 8 tokens", "code": "context_length_exceeded"}}
    async with providing(refuses(400, long)) as provider:
        config = upstream(ModelServer("chat", []), "m", base_url=f"{provider.url}/v1")
        async with gateway(config) as url, door(url) as client:
            for stream in (False, True):
                status, body, _ = await client.post(model="m", stream=stream)
                assert (status, json.loads(body)["error"]["code"]) == (400, "context_length_exceeded")


@pytest.mark.parametrize("api", ["messages", "responses"])
async def test_settings_and_images_reach_an_upstream_of_another_api(api: Api) -> None:
    parts = [{"type": "text", "text": "see"}, {"type": "image_url", "image_url": {"url": PIXEL}}]
    schema = {
        "type": "object",
        "properties": {"a": {"type": "string"}},
        "required": ["a"],
        "additionalProperties": False,
    }
    fields: Json = {
        "max_completion_tokens": 99,
        "temperature": 0.5,
        "tools": [TOOL],
        "tool_choice": "required",
        "parallel_tool_calls": False,
        "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": schema, "strict": True}},
    }
    async with model_server(api, says(api, "x")) as server, gateway(upstream(server)) as url, door(url) as client:
        await client.complete(user(parts), model=api, **fields)
    (body,) = server.asked
    if api == "messages":
        assert body["max_tokens"] == 99
        assert body["tool_choice"] == {"type": "any", "disable_parallel_tool_use": True}
        assert body["messages"][0]["content"][1]["source"]["media_type"] == "image/png"
        assert body["output_config"]["format"]["type"] == "json_schema"
    else:
        assert body["max_output_tokens"] == 99
        assert (body["tool_choice"], body["parallel_tool_calls"], body["store"]) == ("required", False, False)
        assert body["tools"][0]["strict"] is False
        assert body["input"][0]["content"][1] == {"type": "input_image", "image_url": PIXEL}
        assert body["text"]["format"]["schema"] == schema


@pytest.mark.parametrize("streamed", [False, True])
async def test_thoughts_go_back_to_the_model_that_had_them(streamed: bool) -> None:
    """With its signature, and before the call that they led to."""
    thought = {"type": "thinking", "thinking": "hm", "signature": "c2ln"}
    turns = ([thought, *calls("messages", "call_1", "weather", {"city": "Oslo"})], says("messages", "4 degrees."))
    async with model_server("messages", *turns) as server, gateway(upstream(server)) as url, door(url) as client:
        asked: Json = {"model": "messages", "tools": [TOOL], "reasoning_effort": "low", "max_tokens": 9000}
        if streamed:
            stream = await client.stream(user(), **asked)
            message: Json = {"role": "assistant", "content": None, **stream.message}
            message["reasoning_details"] = [
                detail for one in stream.chunks for detail in one["choices"][0]["delta"].get("reasoning_details", ())
            ]
        else:
            message = (await client.complete(user(), **asked))["choices"][0]["message"]
        assert message["reasoning_content"] == "hm"
        output = {"role": "tool", "tool_call_id": "call_1", "content": "4"}
        await client.complete(user(), message, output, **asked)
    said = server.asked[1]["messages"][1]["content"]
    assert said[0] == thought
    assert said[1]["type"] == "tool_use"
