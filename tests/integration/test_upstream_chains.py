"""Chains that are long, and chains that change the provider: what each provider is sent, to the last item."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import AsyncExitStack
from itertools import pairwise
from typing import Any, get_args

import pytest

from segue.config import UpstreamConfig
from segue.testing.response_schemas import Json
from tests.integration.clients import Http, Socket
from tests.integration.providers import Api, ModelServer, Turn, calls, gateway, message, model_server, says, upstream
from tests.upstreams.provider import Exchange, providing

APIS: tuple[Api, ...] = get_args(Api)
PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNk+A8AAQUBAScY42YAAAAASUVORK5CYII="
)
TOOL = {
    "type": "function",
    "name": "look",
    "description": "Look somewhere.",
    "parameters": {"type": "object", "properties": {"where": {"type": "string"}}, "required": ["where"]},
    "strict": False,
}


THINKING = {"type": "thinking", "thinking": "The picture is red.", "signature": "signed-by-messages"}
REDACTED = {"type": "redacted_thinking", "data": "sealed-by-messages"}
REASONING = {
    "type": "reasoning",
    "id": "rs_1",
    "summary": [{"type": "summary_text", "text": "It was red."}],
    "encrypted_content": "sealed-by-responses",
}


def texts_of(value: object) -> Iterator[str]:
    """Every text of a conversation, in its order, whatever the API."""
    if isinstance(value, list):
        for one in value:
            yield from texts_of(one)
    elif isinstance(value, dict):
        said = value.get("text") if "text" in value else value.get("content")
        if isinstance(said, str):
            yield said
        else:
            yield from texts_of(said)


def conversation_of(body: Json) -> list[Any]:
    turns: list[Any] = body["messages"] if "messages" in body else body["input"]
    return turns


@pytest.mark.parametrize(
    ("through", "count"), [("websocket", 120), ("http", 60), pytest.param("websocket", 600, marks=pytest.mark.deep)]
)
@pytest.mark.parametrize("api", APIS)
async def test_after_many_turns_the_provider_still_sees_every_item(api: Api, through: str, count: int) -> None:
    """The client sends one question each time; the last request holds them all, and all the answers, once."""
    asyncio.get_running_loop().set_debug(False)  # it makes ten thousands of frames slow
    turns = (says(api, f"answer {number}") for number in range(count))
    async with model_server(api, *turns) as server, gateway(upstream(server)) as url, AsyncExitStack() as stack:
        socket, http = await stack.enter_async_context(Socket(url)), await stack.enter_async_context(Http(url))
        parent: str | None = None
        for number in range(count):
            fields = {"model": api, "input": f"question {number}", "previous_response_id": parent}
            if through == "websocket":
                response = (await socket.ask(**fields, store=False)).response
            else:
                response = (await http.create(**fields)).body
            assert response is not None
            assert response["status"] == "completed"
            parent = response["id"]
    assert len(server.asked) == count
    said = [text for number in range(count) for text in (f"question {number}", f"answer {number}")][:-1]
    assert [list(texts_of(conversation_of(body))) for body in (server.asked[0], server.asked[-1])] == [said[:1], said]
    assert all(body["model"] == api for body in server.asked)


@pytest.mark.parametrize("api", APIS)
async def test_what_was_sent_before_is_sent_again_byte_for_byte(api: Api) -> None:
    """A provider finds what it has read before by its bytes: each request begins as the one before it did, up to the
    last item that one held.
    """
    turns = [calls(api, f"call_{number}", "look", {"where": f"place {number}"}, "Well…") for number in range(8)]
    async with model_server(api, *turns) as server, gateway(upstream(server)) as url, Socket(url) as socket:
        parent, asked = None, [{"role": "user", "content": "Look around."}]
        for number in range(8):
            fields = {"tools": [TOOL], "instructions": "Be exact.", "previous_response_id": parent, "store": False}
            response = (await socket.ask(model=api, input=asked, **fields)).response
            assert response is not None
            parent = response["id"]
            asked = [{"type": "function_call_output", "call_id": f"call_{number}", "output": "Nothing “here”."}]
    bare = [_without_markers(raw) for raw in server.raw]
    for before, after in pairwise(bare):
        items = _conversation_bytes(before)
        assert after[: len(items)] == items


def _without_markers(raw: bytes) -> bytes:
    """A request without its cache markers, which move on with the conversation."""
    return raw.replace(b',"cache_control":{"type":"ephemeral"}', b"")


def _conversation_bytes(raw: bytes) -> bytes:
    """The beginning of a request up to the last item of its conversation."""
    end = max(raw.rfind(mark) for mark in (b"Nothing", b"Look around."))
    return raw[:end]


# --- delta ≡ replay --------------------------------------------------------------------------------------------------


def thoughtful(api: Api) -> list[Turn]:
    """Turns of a model that thinks before it calls, in the words of its API."""
    look = calls(api, "call_1", "look", {"where": "picture"}, "Let me look.")
    match api:
        case "chat":
            return [look, calls(api, "call_2", "look", {"where": "frame"}), says(api, "It is red.")]
        case "messages":
            return [
                [THINKING, REDACTED, *look],
                calls(api, "call_2", "look", {"where": "frame"}),
                says(api, "It is red."),
            ]
        case "responses":
            return [[REASONING, *look], calls(api, "call_2", "look", {"where": "frame"}), says(api, "It is red.")]


@pytest.mark.parametrize("api", APIS)
async def test_a_provider_is_asked_the_same_whether_the_client_sends_what_is_new_or_everything(api: Api) -> None:
    """With an image, reasoning and tools, and whatever came back to the client sent again by it."""
    news = [picture("What colour is this?"), output("call_1", "red"), output("call_2", "gold"), picture("And this?")]
    asked: list[list[Json]] = []
    for deltas in (True, False):
        async with model_server(api, *thoughtful(api)) as server, gateway(upstream(server)) as url:
            await converse(url, [(api, items) for items in news], deltas=deltas)
        asked.append(server.asked)
    assert asked[0] == asked[1]


# --- settings of an upstream -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("limit", "expected"), [(None, 77), (55, 55)])
async def test_messages_is_told_how_long_an_answer_may_be(limit: int | None, expected: int) -> None:
    """It must be; where the request says nothing, the configuration does."""
    limits = {} if limit is None else {"max_output_tokens": limit}
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(model_server("messages", says("messages", "Hi.")))
        url = await stack.enter_async_context(gateway(upstream(server, max_tokens=77)))
        client = await stack.enter_async_context(Http(url))
        await client.create(model="messages", input="Hello.", **limits)
    assert server.asked[0]["max_tokens"] == expected


@pytest.mark.parametrize("api", APIS)
async def test_a_field_that_nobody_here_knows_goes_on_or_is_named(api: Api) -> None:
    """The provider's API decides; the response says what did not reach it."""
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(model_server(api, says(api, "Hi.")))
        url = await stack.enter_async_context(gateway(upstream(server)))
        client = await stack.enter_async_context(Http(url))
        fields = {"user": "u-1", "prompt_cache_retention": "24h", "field_of_tomorrow": {"a": [1.50]}}
        response = (await client.create(model=api, input="Hello.", **fields)).body
    (asked,) = server.asked
    sent = {name: asked[name] for name in fields if name in asked}
    named = {warning.split("'")[1] for warning in response.get("warnings", ())}
    match api:
        case "responses":
            assert (sent, named) == (fields, set())
        case "chat":
            assert (sent, named) == ({"user": "u-1"}, {"prompt_cache_retention", "field_of_tomorrow"})
        case "messages":
            assert asked["metadata"] == {"user_id": "u-1"}
            assert (sent, named) == ({}, {"prompt_cache_retention", "field_of_tomorrow"})


@pytest.mark.parametrize("returned", [True, False])
async def test_chat_gets_its_reasoning_back_if_it_takes_it(*, returned: bool) -> None:
    """In the field it came in."""

    async def thinks(exchange: Exchange) -> None:
        await exchange.head()
        for delta in ({"reasoning_content": "Hm."}, {"content": "Hi."}):
            await exchange.chunk(_chunk(delta))
        await exchange.chunk(_chunk({}, "stop"))
        await exchange.end()

    async with providing(thinks) as provider:
        base_url = f"{provider.url}/v1"
        up = UpstreamConfig(name="m", dialect="chat", models=["m"], base_url=base_url, return_reasoning=returned)
        async with gateway(up) as url, Http(url) as client:
            first = await client.create(model="m", input="Hello.")
            await client.create(model="m", input="Again.", previous_response_id=first.body["id"])
    reply = next(said for said in provider.got[1].json["messages"] if said["role"] == "assistant")
    assert reply == {"role": "assistant", "content": "Hi."} | ({"reasoning_content": "Hm."} if returned else {})


def _chunk(delta: Json, finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return b"data: %b\n\n" % json.dumps({"id": "1", "object": "chat.completion.chunk", "choices": [choice]}).encode()


# --- one chain, three providers --------------------------------------------------------------------------------------


def picture(question: str) -> list[Json]:
    parts = [{"type": "input_text", "text": question}, {"type": "input_image", "image_url": PIXEL, "detail": "auto"}]
    return [{"type": "message", "role": "user", "content": parts}]


def output(call_id: str, text: str) -> list[Json]:
    return [{"type": "function_call_output", "call_id": call_id, "output": text}]


async def converse(url: str, turns: list[tuple[str, list[Json]]], *, deltas: bool) -> list[Json]:
    """Hold a conversation, each turn with the model given; return the responses."""
    responses: list[Json] = []
    history: list[Json] = []
    async with Socket(url) as socket:
        for model, news in turns:
            history += news
            fields: dict[str, Any] = {"model": model, "tools": [TOOL], "reasoning": {"effort": "low"}, "store": False}
            fields["include"] = ["reasoning.encrypted_content"]
            fields["input"] = news if deltas else history
            if deltas and responses:
                fields["previous_response_id"] = responses[-1]["id"]
            response = (await socket.ask(**fields)).response
            assert response is not None
            assert response["status"] == "completed", response["error"]
            responses.append(response)
            history += response["output"]
    return responses


@pytest.mark.parametrize("deltas", [True, False], ids=["deltas", "replay"])
async def test_a_chain_goes_from_messages_over_chat_to_responses_and_back(*, deltas: bool) -> None:
    """With an image, reasoning of two kinds, and tools; nothing is lost that the next provider can be told."""
    look = calls("messages", "call_1", "look", {"where": "picture"}, "Let me look.")
    async with AsyncExitStack() as stack:

        async def serve(api: Api, *turns: Turn) -> ModelServer:
            return await stack.enter_async_context(model_server(api, *turns))

        servers = {
            "messages": await serve("messages", [THINKING, REDACTED, *look], says("messages", "It is red, I said.")),
            "chat": await serve("chat", calls("chat", "call_2", "look", {"where": "frame"}, "It is red.")),
            "responses": await serve("responses", [REASONING, message("msg_7", "The frame is gold.")]),
        }
        ups: list[UpstreamConfig] = [upstream(server) for server in servers.values()]
        url = await stack.enter_async_context(gateway(*ups))
        turns = [
            ("messages", picture("What colour is this?")),
            ("chat", output("call_1", "red")),
            ("responses", output("call_2", "gold")),
            ("messages", [{"role": "user", "content": "And the picture?"}]),
        ]
        responses = await converse(url, turns, deltas=deltas)
    assert [item["type"] for item in responses[0]["output"]][-2:] == ["message", "function_call"]
    asked = {name: [conversation_of(body) for body in server.asked] for name, server in servers.items()}
    check_chat(asked["chat"][0])
    check_responses(asked["responses"][0])
    check_messages(asked["messages"][0], asked["messages"][1])


def check_chat(messages: list[Json]) -> None:
    """Chat is told the picture, the words, the call and its output; sealed reasoning is not its business."""
    user, assistant, tool = (said for said in messages if said["role"] not in {"system", "developer"})
    assert user["content"] == [
        {"type": "text", "text": "What colour is this?"},
        {"type": "image_url", "image_url": {"url": PIXEL, "detail": "auto"}},
    ]
    assert "Let me look." in json.dumps(assistant["content"])
    (call,) = assistant["tool_calls"]
    assert (call["id"], call["function"]["name"]) == ("call_1", "look")
    assert json.loads(call["function"]["arguments"]) == {"where": "picture"}
    assert (tool["role"], tool["tool_call_id"], "red" in json.dumps(tool["content"])) == ("tool", "call_1", True)
    assert "sealed" not in json.dumps(messages)
    assert "signed" not in json.dumps(messages)


def check_responses(items: list[Json]) -> None:
    """Responses is told all of it, as items."""
    kinds = [item.get("type", "message") for item in items if item.get("type") != "reasoning"]
    assert kinds == ["message", "message", "function_call", "function_call_output", "message", "function_call",
                     "function_call_output"]  # fmt: skip
    assert PIXEL in json.dumps(items[0])
    assert "sealed-by-messages" not in json.dumps(items)


def check_messages(first: list[Json], last: list[Json]) -> None:
    """Messages gets its own reasoning back as it was, with its signature, and everything that came since."""
    assert _plain(last[: len(first)]) == _plain(first)
    image = first[0]["content"][1]
    assert image["source"] == {"type": "base64", "media_type": "image/png", "data": PIXEL.partition(",")[2]}
    assert [block["type"] for block in last[1]["content"]] == ["thinking", "redacted_thinking", "text", "tool_use"]
    assert [_plain(block) for block in last[1]["content"][:2]] == [THINKING, REDACTED]
    assert [said["role"] for said in last] == ["user", "assistant", "user", "assistant", "user", "assistant", "user"]
    told = json.dumps(last)
    for word in ("red", "It is red.", "frame", "gold", "The frame is gold.", "And the picture?"):
        assert word in told
    assert "sealed-by-responses" not in told


def _plain(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    """A value without its cache markers."""
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items() if name != "cache_control"}
    return [_plain(one) for one in value] if isinstance(value, list) else value
