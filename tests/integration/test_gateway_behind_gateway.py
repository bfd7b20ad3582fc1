"""A gateway whose upstream is another one: what the inner one says of a request reaches the client of the outer one."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Literal

import aiohttp
import msgspec
import pytest

from segue.config import UpstreamConfig
from segue.testing.protocol_checker import Json
from segue.upstreams.scripted import MODEL, Say, ScriptedTurn, ScriptedUpstream, Wait
from tests.integration.clients import Http, Socket
from tests.integration.gateway import listening
from tests.integration.providers import gateway

over_each = pytest.mark.parametrize("between", ["http", "websocket"])


@asynccontextmanager
async def outer(between: Literal["http", "websocket"], model: ScriptedUpstream | None = None) -> AsyncIterator[str]:
    """The URL of the outer one. It has two names: of the inner one's model, and of none."""
    async with listening(model or ScriptedUpstream()) as (_, url):
        configured = {"dialect": "responses", "transport": between, "base_url": f"{url}/v1"}
        there = msgspec.convert({"name": "inner", "models": [MODEL], **configured}, UpstreamConfig)
        gone = msgspec.convert({"name": "gone", "models": ["gone"], **configured}, UpstreamConfig)
        async with gateway(there, gone) as outer_url:
            yield outer_url


async def ask(url: str, transport: str, **fields: object) -> Json:
    """Run a turn; return its response object."""
    async with Http(url) as http, Socket(url) as socket:
        if transport == "json":
            return (await http.create(**fields)).body
        answer = await (socket.ask(**fields) if transport == "websocket" else http.stream(**fields))
        assert answer.response is not None
        return answer.response


@over_each
@pytest.mark.parametrize("transport", ["json", "sse", "websocket"])
async def test_its_warnings_are_told(transport: str, between: Literal["http", "websocket"]) -> None:
    async with outer(between) as url:
        response = await ask(url, transport, input="hi", temperatur=0.5)
        assert response["warnings"] == ["'temperatur' was left out: this API has nothing like it."]


@over_each
async def test_it_counts_for_the_outer_one(between: Literal["http", "websocket"]) -> None:
    """A conversation that only the outer one knows, in its own words."""
    model = ScriptedUpstream([ScriptedTurn((Say(("Well.",)),))] * 2)  # with a script, it counts the whole history
    async with outer(between, model) as url, Http(url) as http:
        made = (await http.create(input="hi")).body
        asked = {"model": MODEL, "input": "and now?", "previous_response_id": made["id"]}
        counted = await http.request("POST", "/v1/responses/input_tokens", data=asked)
        assert counted.body["object"] == "response.input_tokens"
        assert counted.body["input_tokens"] == (await http.create(**asked)).body["usage"]["input_tokens"]


@over_each
async def test_the_field_that_it_refuses_is_told(between: Literal["http", "websocket"]) -> None:
    async with outer(between) as url, Http(url) as http:
        refused = await http.create(model="gone", input="hi")
    assert (refused.status, refused.error["code"], refused.error["param"]) == (404, "model_not_found", "model")


async def outcomes(url: str) -> dict[str, int]:
    """How often the outer one sent only what is new, and why it sent all."""
    async with aiohttp.ClientSession() as session, session.get(f"{url}/metrics") as reply:
        page = await reply.text()
    found = re.findall(r'segue_upstream_continuations_total\{outcome="(\w+)",upstream="inner"\} (\d+)', page)
    return {outcome: int(count) for outcome, count in found}


def histories(model: ScriptedUpstream) -> list[list[Json]]:
    """What the model behind both saw, without the ids of its own items."""
    return [
        [{name: value for name, value in json.loads(item).items() if name != "id"} for item in one.history.items()]
        for one in model.requests
    ]


@pytest.mark.parametrize("transport", ["json", "sse", "websocket"])
async def test_a_conversation_goes_on_over_one_socket_between_them(transport: str) -> None:
    """The model sees what it sees without the outer one, and the inner one is sent what is new."""
    seen = []
    for between in ("websocket", None):
        model = ScriptedUpstream([ScriptedTurn((Say((f"Answer {number}.",)),)) for number in range(4)])
        async with AsyncExitStack() as stack:
            if between is None:
                _, url = await stack.enter_async_context(listening(model))
            else:
                url = await stack.enter_async_context(outer("websocket", model))
            http = await stack.enter_async_context(Http(url))
            socket = await stack.enter_async_context(Socket(url))
            parent = None
            for word in ("hi", "and?", "then?", "so?"):
                fields = {"input": word, "previous_response_id": parent, "store": transport != "websocket"}
                if transport == "json":
                    parent = (await http.create(**fields)).body["id"]
                    continue
                answer = await (socket.ask(**fields) if transport == "websocket" else http.stream(**fields))
                assert answer.response is not None
                parent = answer.response["id"]
            if between is not None:
                assert await outcomes(url) == {"hit": 3}
        seen.append(histories(model))
    assert seen[0] == seen[1]
    assert [len(one) for one in seen[0]] == [1, 3, 5, 7]


async def test_a_warm_up_reaches_the_model_behind_both() -> None:
    """Once the outer one has seen that the inner one takes it."""
    model = ScriptedUpstream([ScriptedTurn((Say(("Well.",)),))] * 2)
    async with outer("websocket", model) as url, Socket(url) as socket:
        first = (await socket.ask(input="hi", store=False)).response
        assert first is not None
        asked = {"input": "and?", "store": False, "previous_response_id": first["id"]}
        warm = (await socket.ask(generate=False, **asked)).response
        assert warm is not None
        assert (warm["output"], len(model.prefilled)) == ([], 1)
        assert warm["usage"]["input_tokens"] > 0
        last = (await socket.ask(input="so?", store=False, previous_response_id=warm["id"])).response
        assert last is not None
        assert await outcomes(url) == {"hit": 2}
    assert [len(one) for one in histories(model)] == [1, 4]


async def test_a_client_that_leaves_stops_the_model_behind_both() -> None:
    gate = asyncio.Event()
    model = ScriptedUpstream([ScriptedTurn((Say(("Well,",)), Wait(gate)))])
    async with outer("websocket", model) as url, Http(url) as http:
        await http.begin(1, input="hi")
        async with asyncio.timeout(20):
            while model.cancelled < 1:  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0.01)
