"""Providers that refuse what every request has here and need not have: over each transport, no turn is lost."""

from __future__ import annotations

import json
from typing import Any

import aiohttp
import pytest

from segue.config import UpstreamConfig
from segue.testing.protocol_checker import Json
from segue.testing.replies import ReplyContext, make_reply
from tests.integration.clients import Http, Socket
from tests.integration.providers import Api, Turn, gateway, says
from tests.upstreams.provider import Exchange, providing

HELLO = "Hello there."
SUPPORTS = {"gpt-4o": False, "o4-mini": True}
ENCRYPTED = "reasoning.encrypted_content"

#: What each provider does not take, how it says so, and what of the request is left.
REFUSALS: dict[str, tuple[Api, int, str, Json]] = {
    "openai-reasoning": (
        "responses",
        400,
        "include",
        {"error": {"message": "Encrypted content is not supported with this model.", "param": "include", "code": None}},
    ),
    "responses-cache-key": (
        "responses",
        400,
        "prompt_cache_key",
        {"error": {"message": "Unknown parameter: 'prompt_cache_key'.", "param": "prompt_cache_key"}},
    ),
    "mistral": (
        "chat",
        422,
        "stream_options",
        {"object": "error", "message": {"detail": [{"type": "extra_forbidden", "loc": ["body", "stream_options"]}]}},
    ),
    "azure": (
        "chat",
        400,
        "stream_options",
        {"error": {"message": "Unrecognized request argument supplied: stream_options", "param": None}},
    ),
    "fastapi": ("chat", 422, "stream_options", {"detail": [{"loc": ["body", "stream_options"], "msg": "extra"}]}),
    "bedrock": (
        "messages",
        400,
        "cache_control",
        {"message": "system.0.cache_control: Extra inputs are not permitted"},
    ),
}


class Strict:
    """A provider that refuses every request with a field, and answers all others."""

    def __init__(self, api: Api, field: str, *, status: int, refusal: Json) -> None:
        self._api, self._field, self._status, self._refusal = api, field, status, refusal
        self.had: list[bool] = []

    async def play(self, exchange: Exchange) -> None:
        self.had.append(f'"{self._field}"'.encode() in exchange.got.body)
        if self.had[-1]:
            await refuse(exchange, self._status, self._refusal)
        else:
            await say_hello(exchange, self._api)


async def refuse(exchange: Exchange, status: int, body: Json) -> None:
    await exchange.head(status, content_type="application/json")
    await exchange.chunk(json.dumps(body).encode())
    await exchange.end()


async def say_hello(exchange: Exchange, api: Api) -> None:
    await say(exchange, api, says(api, HELLO))


async def say(exchange: Exchange, api: Api, output: Turn) -> None:
    head = {name: value for name, value in exchange.got.json.items() if name not in {"messages", "input"}}
    asked = ReplyContext(request=head, identity="made_1", created_at=1_790_000_000, seed="1")
    await exchange.head()
    await exchange.chunk(b"".join(make_reply(api, output, asked).events))
    await exchange.end()


async def ask(url: str, transport: str, **fields: Any) -> Json:  # noqa: ANN401 - any field of a request
    """Run a turn, and return its response."""
    if transport == "websocket":
        async with Socket(url) as socket:
            response = (await socket.ask(store=False, **fields)).response
    else:
        async with Http(url) as client:
            response = (
                (await client.stream(**fields)).response if transport == "sse" else (await client.create(**fields)).body
            )
    assert response is not None
    return response


@pytest.mark.parametrize("transport", ["http", "sse", "websocket"])
@pytest.mark.parametrize("name", REFUSALS)
async def test_no_turn_is_lost_and_the_field_is_sent_once(name: str, transport: str) -> None:
    api, status, field, refusal = REFUSALS[name]
    strict = Strict(api, field, status=status, refusal=refusal)
    async with providing(strict.play) as provider:
        up = UpstreamConfig(name="acme", dialect=api, models=["m"], base_url=f"{provider.url}/v1", attempts=1)
        async with gateway(up) as url:
            for _ in range(2):
                response = await ask(url, transport, model="m", input="Hello.", instructions="Be brief.")
                assert response["status"] == "completed"
                assert response["output"][-1]["content"][0]["text"] == HELLO
                assert response.get("warnings", []) == []
    assert strict.had == [True, False, False]


@pytest.mark.parametrize("transport", ["http", "sse", "websocket"])
async def test_a_refusal_may_come_in_a_stream(transport: str) -> None:
    """From a router that announces a stream before it has asked a provider."""
    had: list[bool] = []

    async def play(exchange: Exchange) -> None:
        had.append("stream_options" in exchange.got.json)
        if not had[-1]:
            await say_hello(exchange, "chat")
            return
        await exchange.head()
        error = {"code": 400, "message": "Unknown parameter: 'stream_options'."}
        await exchange.chunk(b"data: %b\n\ndata: [DONE]\n\n" % json.dumps({"error": error}).encode())
        await exchange.end()

    async with providing(play) as provider:
        up = UpstreamConfig(name="c", dialect="chat", models=["m"], base_url=f"{provider.url}/v1", attempts=1)
        async with gateway(up) as url:
            for _ in range(2):
                assert (await ask(url, transport, model="m", input="Hello."))["status"] == "completed"
    assert had == [True, False, False]


@pytest.mark.parametrize("transport", ["http", "sse", "websocket"])
async def test_models_that_reason_are_still_asked_for_their_reasoning(transport: str) -> None:
    """One upstream with both kinds: `gpt-*` and `o*`."""
    asked: list[tuple[str, bool]] = []

    async def play(exchange: Exchange) -> None:
        body = exchange.got.json
        encrypted = ENCRYPTED in body.get("include", [])
        asked.append((body["model"], encrypted))
        if encrypted and not SUPPORTS[body["model"]]:
            await refuse(exchange, 400, REFUSALS["openai-reasoning"][3])
        else:
            await say_hello(exchange, "responses")

    async with providing(play) as provider:
        up = UpstreamConfig(name="r", dialect="responses", models=["gpt-*", "o*"], base_url=f"{provider.url}/v1")
        async with gateway(up) as url:
            for model in ("gpt-4o", "o4-mini", "gpt-4o", "o4-mini"):
                assert (await ask(url, transport, model=model, input="Hello."))["status"] == "completed"
    assert asked == [("gpt-4o", True), ("gpt-4o", False), ("o4-mini", True), ("gpt-4o", False), ("o4-mini", True)]


async def test_what_the_client_asked_for_is_refused_to_the_client() -> None:
    """The provider's words reach it, once."""
    strict = Strict("responses", ENCRYPTED, status=400, refusal=REFUSALS["openai-reasoning"][3])
    async with providing(strict.play) as provider:
        up = UpstreamConfig(name="r", dialect="responses", models=["m"], base_url=f"{provider.url}/v1")
        async with gateway(up) as url, Http(url) as client:
            reply = await client.create(model="m", input="Hello.", include=[ENCRYPTED])
            assert (reply.status, reply.error["code"]) == (400, "upstream_rejected")
            assert "Encrypted content is not supported" in reply.error["message"]
    assert strict.had == [True]


@pytest.mark.parametrize("transport", ["http", "sse", "websocket"])
async def test_a_server_that_refuses_its_own_reasoning_can_go_on(transport: str) -> None:
    """A conversation that the gateway holds would be lost, since no client can change it."""
    asked: list[bool] = []

    async def play(exchange: Exchange) -> None:
        asked.append(b"reasoning_content" in exchange.got.body)
        if asked[-1]:
            loc = ["body", "messages", 1, "assistant", "reasoning_content"]
            await refuse(exchange, 422, {"detail": [{"type": "extra_forbidden", "loc": loc, "msg": "Extra inputs."}]})
            return
        await exchange.head()
        for delta, reason in (({"reasoning_content": "Hm."}, None), ({"content": HELLO}, "stop")):
            choice = {"index": 0, "delta": delta, "finish_reason": reason}
            await exchange.chunk(b"data: %b\n\n" % json.dumps({"choices": [choice]}).encode())
        await exchange.chunk(b"data: [DONE]\n\n")
        await exchange.end()

    async with providing(play) as provider:
        up = UpstreamConfig(name="c", dialect="chat", models=["m"], base_url=f"{provider.url}/v1", attempts=1)
        async with gateway(up) as url, Http(url) as client:
            parent = (await client.create(model="m", input="Hello.")).body["id"]
            for _ in range(2):
                fields = {"model": "m", "input": "Again.", "previous_response_id": parent}
                response = await ask(url, transport, **fields)
                assert (response["status"], response.get("warnings", [])) == ("completed", [])
    assert asked == [False, True, False, False]


@pytest.mark.parametrize("transport", ["http", "sse", "websocket"])
async def test_a_server_that_demands_reasoning_goes_on_with_the_calls_of_another_model(transport: str) -> None:
    """DeepSeek and Moonshot do, while they think; there is none, so that it is empty."""
    had: list[bool] = []
    message = "thinking is enabled but reasoning_content is missing in assistant tool call message at index 1"

    async def play(exchange: Exchange) -> None:
        (called,) = (said for said in exchange.got.json["messages"] if said.get("tool_calls"))
        had.append(bool(called.get("reasoning_content")))
        if had[-1]:
            await say_hello(exchange, "chat")
        else:
            await refuse(exchange, 400, {"error": {"message": message, "type": "invalid_request_error"}})

    items = [
        {"role": "user", "content": "Look."},
        {"type": "function_call", "call_id": "a", "name": "look", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "a", "output": "red"},
    ]
    async with providing(play) as provider:
        up = UpstreamConfig(name="c", dialect="chat", models=["m"], base_url=f"{provider.url}/v1", attempts=1)
        async with gateway(up) as url:
            for _ in range(2):
                assert (await ask(url, transport, model="m", input=items))["status"] == "completed"
    assert had == [False, True, True]


#: Reasoning that a provider wants back unread, and how it says that it cannot read it any more.
UNREADABLE: dict[Api, tuple[Json, str]] = {
    "messages": (
        {"type": "thinking", "thinking": "Hm.", "signature": "sealed-by-it"},
        "messages.1.content.0: Invalid `signature` in `thinking` block",
    ),
    "responses": (
        {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "sealed-by-it"},
        "The encrypted content seal...y-it could not be verified.",
    ),
}


@pytest.mark.parametrize("transport", ["http", "sse", "websocket"])
@pytest.mark.parametrize("api", UNREADABLE)
async def test_a_conversation_outlives_the_key_that_its_reasoning_was_sealed_with(api: Api, transport: str) -> None:
    """The provider refuses what it wrote itself, for example when it is asked for another organization. The client is
    told what is missing; other conversations with that model keep theirs.
    """
    thought, message = UNREADABLE[api]
    asked: list[bool] = []
    rotated = False

    async def play(exchange: Exchange) -> None:
        asked.append(b"sealed-by-it" in exchange.got.body)
        if asked[-1] and rotated:
            await refuse(exchange, 400, {"error": {"message": message, "type": "invalid_request_error", "param": None}})
        else:
            await say(exchange, api, [thought, *says(api, HELLO)])

    async with providing(play) as provider:
        up = UpstreamConfig(name="a", dialect=api, models=["m"], base_url=f"{provider.url}/v1", attempts=1)
        async with gateway(up) as url, Http(url) as client:
            parent = (await client.create(model="m", input="Hello.")).body["id"]
            rotated = True
            response = await ask(url, transport, model="m", input="Again.", previous_response_id=parent)
            assert response["status"] == "completed"
            (warning,) = response["warnings"]
            assert warning.startswith("Reasoning that this provider did not make")
            rotated = False
            other = await ask(url, transport, model="m", input="Again.", previous_response_id=parent)
            assert other.get("warnings", []) == []
    assert asked == [False, True, False, True]


async def test_what_was_learned_is_counted() -> None:
    api, status, field, refusal = REFUSALS["mistral"]
    strict = Strict(api, field, status=status, refusal=refusal)
    async with providing(strict.play) as provider:
        up = UpstreamConfig(name="acme", dialect=api, models=["m"], base_url=f"{provider.url}/v1")
        async with gateway(up) as url, Http(url) as client:
            for _ in range(2):
                await client.create(model="m", input="Hello.")
            figures = await client.text("/metrics")
    assert 'segue_upstream_learned_refusals_total{field="stream_options",upstream="acme"} 1.0' in figures


@pytest.mark.parametrize(
    ("dialect", "field", "settings"),
    [
        ("chat", "stream_options", {"compat": {"omitted_fields": ["stream_options"]}}),
        ("chat", "stream_options", {"provider": "mistral"}),
        ("responses", "include", {"compat": {"encrypted_reasoning": "never"}}),
        ("responses", "include", {"compat": {"encrypted_reasoning": "reasoning_models"}}),
        ("responses", "prompt_cache_key", {"compat": {"omitted_fields": ["prompt_cache_key"]}}),
        ("messages", "cache_control", {"compat": {"omitted_fields": ["cache_control"]}}),
    ],
)
async def test_what_the_configuration_knows_need_not_be_learned(dialect: Api, field: str, settings: Json) -> None:
    strict = Strict(dialect, field, status=400, refusal={"error": "No."})
    async with providing(strict.play) as provider:
        up = UpstreamConfig(name="a", dialect=dialect, models=["m"], base_url=f"{provider.url}/v1", **settings)
        async with gateway(up) as url:
            assert (await ask(url, "http", model="m", input="Hello."))["status"] == "completed"
    assert strict.had == [False]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "hi"}]}),
        ("/v1/messages", {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 9}),
    ],
)
async def test_clients_of_other_apis_ask_for_nothing_that_a_provider_could_refuse(path: str, body: Json) -> None:
    api, status, field, refusal = REFUSALS["openai-reasoning"]
    strict = Strict(api, field, status=status, refusal=refusal)
    async with providing(strict.play) as provider:
        config = UpstreamConfig(name="acme", dialect=api, base_url=f"{provider.url}/v1", models=["m"])
        async with gateway(config) as url, aiohttp.ClientSession(url) as client:
            for _ in range(2):
                reply = await client.post(path, json={"model": "m", **body})
                assert (reply.status, HELLO in await reply.text()) == (200, True)
    assert strict.had == [True, False, False], "it was learned"
