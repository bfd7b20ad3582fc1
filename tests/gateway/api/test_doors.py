"""The doors of other APIs, as their clients see them."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import msgspec
import pytest

from segue.config import Config, KeyConfig, ServerConfig, UpstreamConfig
from segue.gateway.app import serving
from segue.protocol.events import Ended, Event, OutputWriter
from segue.protocol.problems import Problem
from segue.protocol.responses import usage
from segue.testing.chat_checker import check_chunks
from segue.testing.messages_checker import check_messages_sse
from segue.testing.provider import Answer, ReceivedRequest, ScriptedProvider, answer_with, provided
from segue.testing.replies import ReplyContext, make_reply
from segue.upstreams.interface import Batch, UpstreamRequest
from segue.upstreams.scripted import Fail, Refuse, Say, ScriptedTurn, ScriptedUpstream, Wait, call, say
from tests.faults.gateways import Local, listening

Json = dict[str, Any]

MESSAGES, COUNT = "/v1/messages", "/v1/messages/count_tokens"
BODY: Json = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}


@asynccontextmanager
async def door(*turns: ScriptedTurn) -> AsyncIterator[tuple[Local, aiohttp.ClientSession]]:
    async with listening(ScriptedUpstream(list(turns))) as local, aiohttp.ClientSession(local.url) as client:
        yield local, client


def sample(local: Local, **labels: str) -> float | None:
    return local.gateway.services.metrics.registry.get_sample_value("segue_turns_total", labels)


# --- any upstream ----------------------------------------------------------------------------------------------------


async def test_a_turn_is_answered_with_a_message_or_with_its_events() -> None:
    async with door(say("hel", "lo"), call("c", "f", '{"a":1}')) as (local, client):
        async with client.post(MESSAGES, json=BODY) as reply:
            message = await reply.json()
            assert (reply.status, reply.headers["request-id"][:4]) == (200, "req_")
        assert message["content"] == [{"type": "text", "text": "hello", "citations": None}]
        async with client.post(MESSAGES, json={**BODY, "stream": True}) as reply:
            assert reply.content_type == "text/event-stream"
            assert reply.headers["request-id"].startswith("req_")
            message = check_messages_sse(await reply.read())
        (block,) = message["content"]
        assert (block["type"], block["id"], block["name"], block["input"]) == ("tool_use", "c", "f", {"a": 1})
        assert sample(local, transport="http", outcome="completed") == 1
        assert sample(local, transport="sse", outcome="completed") == 1


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("turn", "status", "kind"),
    [
        (Refuse(Problem("rate_limit_exceeded", "Later.", retry_after_s=7)), 429, "rate_limit_error"),
        (Refuse(Problem("server_overloaded", "Later.")), 503, "overloaded_error"),
        (Fail("bored", "No."), 424, "api_error"),
    ],
)
async def test_a_turn_that_says_nothing_has_a_status(turn: Refuse | Fail, status: int, kind: str, stream: bool) -> None:
    """The SDKs repeat what may be repeated."""
    async with (
        door(ScriptedTurn((turn,))) as (_, client),
        client.post(MESSAGES, json={**BODY, "stream": stream}) as reply,
    ):
        error = await reply.json()
        assert (reply.status, error["type"], error["error"]["type"]) == (status, "error", kind)
        assert error["request_id"] == reply.headers["request-id"]
        assert ("x-should-retry" in reply.headers) == (status == 424)
        assert reply.headers.get("Retry-After") == ("7" if status == 429 else "1" if status == 503 else None)


async def test_a_stream_that_fails_later_ends_in_an_error() -> None:
    async with (
        door(ScriptedTurn((Say(("x",)), Fail("bored", "No.")))) as (_, client),
        client.post(MESSAGES, json={**BODY, "stream": True}) as reply,
    ):
        body = await reply.text()
        assert reply.status == 200
        assert "event: error" in body
        assert "message_stop" not in body


@pytest.mark.parametrize(
    ("method", "path", "data", "status", "kind"),
    [
        ("POST", MESSAGES, b"{", 400, "invalid_request_error"),
        ("POST", MESSAGES, b"{}", 400, "invalid_request_error"),
        ("GET", MESSAGES, b"", 405, "invalid_request_error"),
        ("GET", f"{MESSAGES}/batches", b"", 404, "not_found_error"),
        ("POST", MESSAGES, b"x" * 101, 413, "request_too_large"),
    ],
)
async def test_what_is_refused_is_told_in_the_words_of_the_api(
    method: str, path: str, data: bytes, status: int, kind: str
) -> None:
    async with (
        listening(max_message_bytes=100) as local,
        aiohttp.ClientSession(local.url) as client,
        client.request(method, path, data=data) as reply,
    ):
        assert (reply.status, (await reply.json())["error"]["type"]) == (status, kind)


async def test_tokens_are_counted() -> None:
    async with door() as (_, client), client.post(COUNT, json={**BODY, "max_tokens": None}) as reply:
        assert reply.status == 200
        assert (await reply.json())["input_tokens"] > 0
        assert "request-id" in reply.headers


async def test_a_gateway_that_drains_takes_no_turn() -> None:
    async with door() as (local, client):
        local.gateway.services.drain.draining = True
        async with client.post(MESSAGES, json=BODY) as reply:
            assert (reply.status, (await reply.json())["error"]["type"]) == (503, "overloaded_error")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"x-api-key": "k"}, 200),
        ({"Authorization": "Bearer k"}, 200),
        ({"x-api-key": "wrong"}, 401),
        ({}, 401),
    ],
)
async def test_a_key_comes_in_the_header_of_either_api(headers: dict[str, str], status: int) -> None:
    config = Config(
        server=ServerConfig(port=0, store="memory:"),
        upstream=[UpstreamConfig("scripted", "scripted", ["*"])],
        key=[KeyConfig("k", "alice", hashlib.sha256(b"k").hexdigest())],
    )
    async with (
        serving(config) as (_, url),
        aiohttp.ClientSession(url) as client,
        client.post(MESSAGES, json=BODY, headers=headers) as reply,
    ):
        assert reply.status == status
        if status == 401:
            assert (await reply.json())["error"]["type"] == "authentication_error"


# --- an upstream of the same API -------------------------------------------------------------------------------------

SEARCH: list[Json] = [
    {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"q": "x"}},
    {"type": "thinking", "thinking": "Hm.", "signature": "sig"},
    {"type": "text", "text": "Hello."},
]


@asynccontextmanager
async def passing(
    answer: Callable[[ReceivedRequest], Answer] | None = None, **settings: object
) -> AsyncIterator[tuple[ScriptedProvider, aiohttp.ClientSession]]:
    """A gateway in front of a provider that speaks Messages."""
    reply = make_reply("messages", SEARCH, ReplyContext(request=BODY, identity="1", created_at=0, seed="s"))
    async with provided(answer or (lambda _: answer_with(reply, streamed=True))) as provider:
        fields = {"name": "m", "dialect": "messages", "models": ["m"], "model_as": "claude-9", **settings}
        upstream = msgspec.convert({**fields, "base_url": f"{provider.url}/v1", "attempts": 1}, UpstreamConfig)
        config = Config(server=ServerConfig(port=0, store="memory:"), upstream=[upstream])
        async with serving(config) as (_, url), aiohttp.ClientSession(url) as client:
            yield provider, client


RAW = (
    b'{ "model" : "m", "max_tokens":9,\n "x":[1.0, 1e3], "thread":null, "stream" : true, '
    b'"messages":[{"role":"user","content":[{"type":"text","text":"\\u0068i","cache_control":{"type":"ephemeral"}}]}]}\n'
)


async def test_a_request_passes_byte_for_byte_but_for_what_the_gateway_must_change() -> None:
    """The name of the model, and the field of threads. So do the version and the betas."""
    headers = {"anthropic-version": "2026-10-21", "anthropic-beta": "b-1,message-threads-2026-08-12", "x-api-key": "k"}
    async with passing(headers=["anthropic-beta: ours"]) as (provider, client):
        async with client.post(MESSAGES, data=RAW, headers=headers) as reply:
            message = check_messages_sse(await reply.read())
        assert message["content"] == SEARCH
        assert message["id"].startswith("msg_")
        asked = provider.requests[0]
        assert asked.body == RAW.replace(b'"m"', b'"claude-9"', 1).replace(b'"thread":null, ', b"")
        sent = {name.lower(): value for name, value in ((line.name, line.value) for line in asked.lines)}
        assert sent[b"anthropic-version"] == b"2026-10-21"
        assert sent[b"anthropic-beta"] == b"ours,b-1"


async def test_a_version_that_is_configured_stays() -> None:
    async with passing(headers=["Anthropic-Version: 2023-06-01"]) as (provider, client):
        async with client.post(MESSAGES, data=RAW, headers={"anthropic-version": "2026-10-21"}) as reply:
            assert reply.status == 200
        versions = [line.value for line in provider.requests[0].lines if line.name.lower() == b"anthropic-version"]
        assert versions == [b"2023-06-01"]


async def test_a_reply_that_is_not_streamed_is_what_the_stream_adds_up_to() -> None:
    async with passing(body={"top_k": 4, "temperature": 0.5}) as (provider, client):
        async with client.post(MESSAGES, json=BODY) as reply:
            assert (await reply.json())["content"] == SEARCH
        sent = json.loads(provider.requests[0].body or b"")
        assert sent == {**BODY, "model": "claude-9", "stream": True, "top_k": 4, "temperature": 0.5}


async def test_a_count_passes_too() -> None:
    def count(request: ReceivedRequest) -> Answer:
        assert request.target == b"/v1/messages/count_tokens"
        return Answer(pieces=(b'{"input_tokens":12}',), framing="length")

    body = {"model": "m", "messages": [], "mcp_servers": [{}]}
    async with passing(count) as (provider, client):
        async with client.post(COUNT, json=body) as reply:
            assert await reply.json() == {"input_tokens": 12}
        assert json.loads(provider.requests[0].body or b"") == {**body, "model": "claude-9"}


async def test_a_refusal_of_the_provider_keeps_its_kind() -> None:
    error = b'{"type":"error","error":{"type":"invalid_request_error","message":"messages: too long"}}'
    refusal = Answer(status=400, reason=b"Bad Request", pieces=(error,), framing="length")
    async with passing(lambda _: refusal) as (_, client), client.post(MESSAGES, data=RAW) as reply:
        told = await reply.json()
        assert (reply.status, told["error"]["type"]) == (400, "invalid_request_error")
        assert "too long" in told["error"]["message"]


# --- silences --------------------------------------------------------------------------------------------------------


class Thoughtful:
    """It says one word, and then thinks, of which some APIs tell nothing, until it may say the next."""

    models: Sequence[str] = ("*",)

    def __init__(self) -> None:
        self.may_speak = asyncio.Event()

    async def start(self) -> None:
        pass

    async def aclose(self) -> None:
        pass

    async def stream(self, request: UpstreamRequest) -> AsyncGenerator[Batch, None]:
        writer = OutputWriter(request.response_id)
        yield writer.text("hel")
        while not self.may_speak.is_set():
            yield (Event("response.vendor.thought", b'{"type":"response.vendor.thought","sequence_number":0}', 0),)
            await asyncio.sleep(0)
        yield (*writer.text("lo"), *writer.end_item(), Ended("completed", usage(1, 1)))


@pytest.mark.parametrize(
    ("path", "nothing", "check"),
    [
        (MESSAGES, b'event: ping\ndata: {"type":"ping"}\n\n', check_messages_sse),
        ("/v1/chat/completions", b": keep-alive\n\n", check_chunks),
    ],
)
async def test_a_model_that_thinks_is_heard_of(path: str, nothing: bytes, check: Callable[[bytes], object]) -> None:
    """Even where its events mean nothing in the API: nobody on the way takes the stream for dead."""
    model = Thoughtful()
    async with (
        listening(model, stream_keep_alive_s=0.001) as local,
        aiohttp.ClientSession(local.url) as client,
        client.post(path, json={**BODY, "stream": True}) as reply,
    ):
        text = b""
        while text.count(nothing) < 3:
            text += await reply.content.readany()
        model.may_speak.set()
        text += await reply.content.read()
    check(text)
    assert b"lo" in text


async def test_a_turn_that_waits_for_its_model_has_a_status_all_the_same() -> None:
    """Nothing is sent before there is an answer."""
    event = asyncio.Event()
    turn = ScriptedTurn((Wait(event), Fail("bored", "No.")))
    async with (
        listening(ScriptedUpstream([turn]), stream_keep_alive_s=0.001) as local,
        aiohttp.ClientSession(local.url) as client,
    ):
        asyncio.get_running_loop().call_later(0.01, event.set)
        async with client.post(MESSAGES, json={**BODY, "stream": True}) as reply:
            assert (reply.status, (await reply.json())["error"]["type"]) == (424, "api_error")
