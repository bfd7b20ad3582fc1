"""The SDKs of OpenAI and Anthropic, as they come, when nobody can know whether their request was carried out.

They send a request again by themselves after most failures. Here the gateway dies after it has forwarded one: the
sidecar says that the outcome is unknown, and the provider gets the request once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine

import pytest

from segue.testing.provider import Answer
from tests.faults.tunnels import Way, tunnelled


async def ask_openai(url: str, *, stream: bool) -> None:
    from openai import AsyncOpenAI, InternalServerError

    async with AsyncOpenAI(base_url=f"{url}/v1", api_key="k") as client:
        assert client.max_retries > 0
        with pytest.raises(InternalServerError) as failed:
            await client.chat.completions.create(model="m", messages=[{"role": "user", "content": "hi"}], stream=stream)
    assert failed.value.code == "segue_outcome_unknown"


async def ask_anthropic(url: str, *, stream: bool) -> None:
    from anthropic import AsyncAnthropic, InternalServerError

    async with AsyncAnthropic(base_url=url, api_key="k") as client:
        assert client.max_retries > 0
        with pytest.raises(InternalServerError, match="segue_outcome_unknown"):
            await client.messages.create(
                model="m", max_tokens=9, messages=[{"role": "user", "content": "hi"}], stream=stream
            )


async def lose_the_gateway(way: Way) -> None:
    """End the gateway when the provider has the request, and start it anew."""
    await asyncio.wait_for(way.provider.seen(1), 20)
    await way.node.stop()
    await way.node.start()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("ask", [ask_openai, ask_anthropic])
async def test_a_request_whose_gateway_is_gone_reaches_the_provider_once(
    ask: Callable[..., Coroutine[None, None, None]], stream: bool
) -> None:
    never = asyncio.Event()
    async with tunnelled(lambda _: Answer(before=never)) as way:
        async with asyncio.timeout(60):
            await asyncio.gather(ask(way.sidecar.sidecar.url, stream=stream), lose_the_gateway(way))
        assert len(way.provider.requests) == 1
