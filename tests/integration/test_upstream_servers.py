"""The gateway in front of servers that others wrote: aimock as Chat Completions, Messages and Responses, and the server
of llama.cpp with a small model.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import get_args

import pytest

from segue.config import UpstreamConfig
from segue.engine import find_model
from segue.testing.response_schemas import Json
from tests.integration.clients import Http, Socket
from tests.integration.providers import Api, gateway
from tests.integration.servers import Aimock, aimock, llama

APIS: tuple[Api, ...] = get_args(Api)
TOOL = {"type": "function", "name": "weather", "parameters": {"type": "object", "properties": {}}, "strict": False}
SIGNED = {"reasoningSignature": "sig-1", "redactedThinking": ["opaque"]}
REFUSAL = {"message": "Used up.", "type": "rate_limit_error"}
FIXTURES: list[Json] = [  # the first that fits is played
    {"match": {"toolCallId": "call_2", "toolResultContains": "21"}, "response": {"content": "Rome is warmer."}},
    {
        "match": {"userMessage": "How warm", "hasToolResult": False},
        "response": {
            "content": "Let me see.",
            "reasoning": "I need a thermometer.",
            "toolCalls": [
                {"id": "call_1", "name": "weather", "arguments": '{"city":"Oslo"}'},
                {"id": "call_2", "name": "weather", "arguments": '{"city":"Rome"}'},
            ],
            **SIGNED,
        },
    },
    {"match": {"userMessage": "Thanks"}, "response": {"content": "You are welcome."}},
    {"match": {"userMessage": "quota"}, "response": {"error": REFUSAL, "status": 429}},
]


def upstreams(base_url: str, *apis: Api, model_as: str | None = None) -> list[UpstreamConfig]:
    """One upstream for each API of a server; a model is called by its name."""
    return [
        UpstreamConfig(
            name=api, dialect=api, models=[api], base_url=f"{base_url}/v1", model_as=model_as, longest_wait_s=0.01
        )
        for api in apis
    ]


@asynccontextmanager
async def mocked(folder: Path, *options: str) -> AsyncIterator[tuple[Aimock, str]]:
    """An aimock, and a gateway in front of it."""
    async with aimock(folder, FIXTURES, *options) as server, gateway(*upstreams(server.url, *APIS)) as url:
        yield server, url


# --- aimock ----------------------------------------------------------------------------------------------------------


@pytest.mark.node
@pytest.mark.parametrize("transport", ["websocket", "http"])
@pytest.mark.parametrize("api", APIS)
async def test_aimock_answers_a_session_with_tools(api: Api, transport: str, tmp_path: Path) -> None:
    """Two calls at once, their outputs, and a last word; each turn sends only what is new."""
    async with mocked(tmp_path) as (server, url), AsyncExitStack() as stack:
        http, socket = await stack.enter_async_context(Http(url)), await stack.enter_async_context(Socket(url))

        async def ask(items: list[Json], parent: str | None) -> Json:
            fields = {"model": api, "tools": [TOOL], "input": items, "previous_response_id": parent}
            if transport == "http":
                return (await http.create(**fields)).body
            response = (await socket.ask(**fields)).response
            assert response is not None
            return response

        first = await ask([{"role": "user", "content": "How warm is it in Oslo and Rome?"}], None)
        kinds = [item["type"] for item in first["output"] if item["type"] != "reasoning"]
        assert kinds == ["message", "function_call", "function_call"]
        outputs = {"call_1": "4 degrees", "call_2": "21 degrees"}
        answers = [
            {"type": "function_call_output", "call_id": ident, "output": text} for ident, text in outputs.items()
        ]
        second = await ask(answers, first["id"])
        assert second["output"][-1]["content"][0]["text"] == "Rome is warmer."
        third = await ask([{"role": "user", "content": "Thanks."}], second["id"])
        assert third["output"][-1]["content"][0]["text"] == "You are welcome."
        asked = await server.asked()
    first_words, second_words = ["How warm is it in Oslo and Rome?"], ["Let me see.", "4 degrees", "21 degrees"]
    third_words = ["Rome is warmer.", "Thanks."]
    assert [_said(body) for body in asked] == [
        first_words,
        first_words + second_words,
        first_words + second_words + third_words,
    ]


def _said(body: Json) -> list[str]:
    """The words of a request, in their order."""
    return [said["content"] for said in body["messages"] if said["content"]]


@pytest.mark.node
@pytest.mark.parametrize("api", APIS)
async def test_aimock_refuses(api: Api, tmp_path: Path) -> None:
    """In the words of each API; the client gets ours."""
    async with mocked(tmp_path) as (_, url), Http(url) as client:
        reply = await client.create(model=api, input="Mind the quota.")
        assert (reply.status, reply.error["code"]) == (429, "rate_limit_exceeded")
        assert "Used up." in reply.error["message"]


@pytest.mark.node
@pytest.mark.parametrize("chaos", ["--chaos-disconnect", "--chaos-malformed", "--chaos-drop"])
@pytest.mark.parametrize("api", APIS)
async def test_aimock_in_chaos_is_an_error_that_clients_understand(api: Api, chaos: str, tmp_path: Path) -> None:
    """Connections that break, JSON that is none, statuses out of the blue."""
    async with mocked(tmp_path, chaos, "1") as (_, url), Http(url) as client:
        reply = await client.create(model=api, input="Thanks")
        assert reply.status in (400, 502)
        assert reply.error["code"].startswith("upstream_")


@pytest.mark.node
async def test_a_conversation_goes_on_with_every_api_of_aimock(tmp_path: Path) -> None:
    """It begins on Messages, with signed and redacted thinking, goes on with Chat, and comes back."""
    async with mocked(tmp_path) as (server, url), Socket(url) as socket:
        parent: str | None = None
        turns: list[tuple[Api, list[Json]]] = [
            ("messages", [{"role": "user", "content": "How warm is it in Oslo and Rome?"}]),
            ("chat", [_output("call_1", "4 degrees"), _output("call_2", "21 degrees")]),
            ("responses", [{"role": "user", "content": "Thanks."}]),
            ("messages", [{"role": "user", "content": "Thanks again."}]),
        ]
        for api, items in turns:
            answer = await socket.ask(model=api, tools=[TOOL], input=items, previous_response_id=parent)
            assert answer.response is not None
            assert answer.response["status"] == "completed"
            parent = answer.response["id"]
        asked = await server.asked()
    words = ["How warm is it in Oslo and Rome?", "Let me see.", "4 degrees", "21 degrees", "Rome is warmer.", "Thanks."]
    words += ["You are welcome.", "Thanks again."]
    assert [_said(body) for body in asked] == [words[:1], words[:4], words[:6], words]


def _output(call_id: str, text: str) -> Json:
    return {"type": "function_call_output", "call_id": call_id, "output": text}


# --- llama.cpp -------------------------------------------------------------------------------------------------------


@pytest.mark.local_model
@pytest.mark.skipif(find_spec("xllamacpp") is None, reason="llama.cpp's own server is not installed")
async def test_llama_cpp_answers_through_each_of_its_apis() -> None:
    """Two turns on each, with the second as a delta; the server read the first turn then, and counts more tokens.

    It begins a conversation on one API and ends it on another.
    """
    model = find_model()
    assert model is not None
    async with (
        llama(model) as server,
        gateway(*upstreams(server, *APIS, model_as="smollm2")) as url,
        Http(url) as client,
    ):
        for api in APIS:
            asked = {"model": api, "max_output_tokens": 6, "temperature": 0.0, "instructions": "Be brief."}
            first = (await client.create(**asked, input="What is the capital of France?")).body
            second = await client.stream(**asked, input="And of Italy?", previous_response_id=first["id"])
            assert second.response is not None
            for response in (first, second.response):
                assert response["output"][-1]["content"][0]["text"].strip()
                assert (response["status"], response["incomplete_details"]) in (
                    ("completed", None),
                    ("incomplete", {"reason": "max_output_tokens"}),
                )
            tokens = [response["usage"]["input_tokens"] for response in (first, second.response)]
            assert tokens[1] > tokens[0] + 12
            other = APIS[APIS.index(api) - 1]
            third = await client.create(
                **{**asked, "model": other}, input="Thanks.", previous_response_id=second.response["id"]
            )
            assert third.body["usage"]["input_tokens"] > tokens[1]


@pytest.mark.local_model
@pytest.mark.skipif(find_spec("xllamacpp") is None, reason="llama.cpp's own server is not installed")
async def test_llama_cpp_says_when_a_conversation_is_too_long() -> None:
    """And the client hears it in the word it knows."""
    model = find_model()
    assert model is not None
    async with llama(model) as server, gateway(*upstreams(server, *APIS)) as url, Http(url) as client:
        for api in APIS:
            reply = await client.create(model=api, input="word " * 6000)
            assert (reply.status, reply.error["code"]) == (400, "context_length_exceeded")
