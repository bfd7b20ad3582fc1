"""Servers that cache prefixes, with the gateway in front: what a conversation had is not read again."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

from segue.config import UpstreamConfig
from segue.engine import find_model
from tests.integration.clients import Http
from tests.integration.providers import gateway
from tests.integration.servers import llama


@pytest.mark.local_model
@pytest.mark.skipif(find_spec("xllamacpp") is None, reason="llama.cpp's own server is not installed")
async def test_llama_server_reads_only_what_is_new() -> None:
    """Each delta becomes a whole request whose beginning the server has, and its count of that reaches the client."""
    model = find_model()
    assert model is not None
    async with llama(model) as server:
        up = UpstreamConfig(
            name="llama", dialect="chat", models=["m"], model_as="smollm2", base_url=f"{server}/v1", max_concurrent=1
        )
        async with gateway(up) as url, Http(url) as client:
            asked = {"model": "m", "max_output_tokens": 6, "temperature": 0.0, "instructions": "Be brief."}
            parent, news, total = None, [], 0
            for text in ("What is the capital of France?", "And of Italy?", "And of Spain?"):
                response = (await client.create(**asked, input=text, previous_response_id=parent)).body
                parent = response["id"]
                usage = response["usage"]
                total = usage["input_tokens"]
                news.append(total - usage["input_tokens_details"]["cached_tokens"])
            assert news[0] > 10
            assert max(news[1:]) < total / 2
