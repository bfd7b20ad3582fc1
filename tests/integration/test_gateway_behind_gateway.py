"""A gateway whose upstream is another one: what the inner one says of a request reaches the client of the outer one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from segue.config import UpstreamConfig
from segue.testing.protocol_checker import Json
from segue.upstreams.scripted import MODEL, ScriptedUpstream
from tests.integration.clients import Http, Socket
from tests.integration.gateway import listening
from tests.integration.providers import gateway


@asynccontextmanager
async def outer() -> AsyncIterator[str]:
    """The URL of the outer one. It has two names: of the inner one's model, and of none."""
    async with listening(ScriptedUpstream()) as (_, url):
        base_url = f"{url}/v1"
        there = UpstreamConfig(name="inner", dialect="responses", base_url=base_url, models=[MODEL])
        gone = UpstreamConfig(name="gone", dialect="responses", base_url=base_url, models=["gone"])
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


@pytest.mark.parametrize("transport", ["json", "sse", "websocket"])
async def test_its_warnings_are_told(transport: str) -> None:
    async with outer() as url:
        response = await ask(url, transport, input="hi", temperatur=0.5)
        assert response["warnings"] == ["'temperatur' was left out: this API has nothing like it."]


async def test_it_counts_for_the_outer_one() -> None:
    """A conversation that only the outer one knows, in its own words."""
    async with outer() as url, Http(url) as http:
        made = (await http.create(input="hi")).body
        asked = {"model": MODEL, "input": "and now?", "previous_response_id": made["id"]}
        counted = await http.request("POST", "/v1/responses/input_tokens", data=asked)
        assert counted.body["object"] == "response.input_tokens"
        assert counted.body["input_tokens"] == (await http.create(**asked)).body["usage"]["input_tokens"]


async def test_the_field_that_it_refuses_is_told() -> None:
    async with outer() as url, Http(url) as http:
        refused = await http.create(model="gone", input="hi")
    assert (refused.status, refused.error["code"], refused.error["param"]) == (404, "model_not_found", "model")
