"""How many tokens an input would have: what is counted is what a turn then reads."""

from __future__ import annotations

from pathlib import Path

import pytest

from segue.config import UpstreamConfig
from segue.testing.protocol_checker import Json
from segue.upstreams.scripted import MODEL, ScriptedUpstream
from tests.integration.clients import Http
from tests.integration.gateway import key, listening
from tests.integration.providers import gateway, model_server, says
from tests.integration.test_local_model import serving_tiny

COUNT = "/v1/responses/input_tokens"
TOOL = {"type": "function", "name": "look", "parameters": {"type": "object", "properties": {}}}


@pytest.mark.local_engine
async def test_the_openai_sdk_counts_what_a_turn_would_read(tmp_path: Path) -> None:
    """A first turn, a continuation, instructions and tools, and an input that the context does not hold."""
    from openai import AsyncOpenAI

    async with serving_tiny(tmp_path) as url, AsyncOpenAI(base_url=f"{url}/v1", api_key="x") as client:
        parent: str | None = None
        for fields in ({"input": "Hello."}, {"input": "And now?"}, {"input": "x", "instructions": "Be brief."}):
            asked: Json = {"model": "tiny", "previous_response_id": parent, **fields}
            count = (await client.responses.input_tokens.count(**asked)).input_tokens
            made = await client.responses.create(**asked, max_output_tokens=8)
            assert made.usage is not None
            assert count == made.usage.input_tokens
            parent = made.id
        texts = ("x", "people " * 1500)
        counted = [await client.responses.input_tokens.count(model="tiny", input=text) for text in texts]
        assert counted[0].input_tokens < 1024 < counted[1].input_tokens
    async with serving_tiny(tmp_path) as url, Http(url) as http:
        shown = await http.request("POST", COUNT, data={"model": "tiny", "input": "x", "tools": [TOOL]})
        assert shown.body["input_tokens"] > counted[0].input_tokens


async def test_an_upstream_that_does_not_count_is_named() -> None:
    async with model_server("chat", says("chat", "Hi.")) as server:
        up = UpstreamConfig(name="p", dialect="chat", base_url=server.url, models=["m"])
        async with gateway(up) as url, Http(url) as http:
            refused = await http.request("POST", COUNT, data={"model": "m", "input": "hi"})
        assert (refused.status, refused.error["code"], refused.error["param"]) == (
            400,
            "unsupported_parameter",
            "model",
        )
        assert server.asked == []


async def test_a_tenant_counts_its_own_conversations_only() -> None:
    keys = [key("alice"), key("bob")]
    async with (
        listening(ScriptedUpstream(), keys=keys) as (_, url),
        Http(url, "sk-alice") as alice,
        Http(url, "sk-bob") as bob,
        Http(url) as nobody,
    ):
        made = (await alice.create(input="hi")).body
        body = {"model": MODEL, "input": "hi", "previous_response_id": made["id"]}
        assert (await alice.request("POST", COUNT, data=body)).body["input_tokens"] > 0
        assert (await bob.request("POST", COUNT, data=body)).error["code"] == "previous_response_not_found"
        assert (await nobody.request("POST", COUNT, data=body)).status == 401
