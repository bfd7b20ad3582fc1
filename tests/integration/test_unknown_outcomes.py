"""The SDKs of OpenAI and Anthropic, as they come, when nobody can know whether their request was carried out.

They send a request again by themselves after most failures. Here the gateway is killed after it has forwarded one:
the sidecar says that the outcome is unknown, and the provider gets the request once.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from segue import AsyncClient
from segue.client.errors import OutcomeUnknownError
from segue.testing.provider import Answer, ScriptedProvider, provided
from tests.faults.gateways import Process, serving
from tests.faults.tunnels import PATIENT
from tests.sidecar.sidecars import running


async def ask_openai(url: str, *, stream: bool) -> None:
    from openai import APIStatusError, AsyncOpenAI

    async with AsyncOpenAI(base_url=f"{url}/v1", api_key="k") as client:
        assert client.max_retries > 0
        with pytest.raises(APIStatusError) as failed:
            await client.chat.completions.create(model="m", messages=[{"role": "user", "content": "hi"}], stream=stream)
    assert (failed.value.code, failed.value.status_code) == ("segue_outcome_unknown", 424)


async def ask_for_response(url: str, *, stream: bool) -> None:
    from openai import AsyncOpenAI, BadRequestError

    async with AsyncOpenAI(base_url=f"{url}/v1", api_key="k") as client:
        assert client.max_retries > 0
        with pytest.raises(BadRequestError) as failed:
            await client.responses.create(model="m", input="hi", stream=stream)
    assert failed.value.code == "segue_outcome_unknown"


async def ask_segue(url: str, *, stream: bool) -> None:
    assert not stream, "it always streams"
    async with AsyncClient(f"{url}/v1", api_key="k", transport="http") as client:
        with pytest.raises(OutcomeUnknownError):
            async with client.session(model="m").send("hi") as turn:
                await turn.response()


async def ask_anthropic(url: str, *, stream: bool) -> None:
    from anthropic import APIStatusError, AsyncAnthropic

    async with AsyncAnthropic(base_url=url, api_key="k") as client:
        assert client.max_retries > 0
        with pytest.raises(APIStatusError, match="segue_outcome_unknown"):
            await client.messages.create(
                model="m", max_tokens=9, messages=[{"role": "user", "content": "hi"}], stream=stream
            )


@asynccontextmanager
async def killable(folder: Path) -> AsyncIterator[tuple[str, ScriptedProvider, Process]]:
    """A sidecar, with a gateway that can be killed before a provider that never answers, and another gateway."""
    never = asyncio.Event()
    async with provided(lambda _: Answer(before=never)) as provider:
        config = folder / "gateway.toml"
        config.write_text(
            '[server]\nstore = "memory:"\n[[upstream]]\nname = "s"\ndialect = "scripted"\nmodels = ["s"]\n'
            f'[[route]]\npath = "/v1"\ntarget = "{provider.url}"\n'
        )
        async with (
            serving(folder, "--config", str(config)) as first,
            serving(folder, "--config", str(config)) as second,
            running(first.url, second.url, settings=PATIENT) as sidecar,
        ):
            await sidecar.linked()
            yield sidecar.sidecar.url, provider, first


@pytest.mark.parametrize(
    ("ask", "stream"),
    [
        (ask_for_response, True),
        (ask_anthropic, True),
        pytest.param(ask_for_response, False, marks=pytest.mark.deep),
        pytest.param(ask_anthropic, False, marks=pytest.mark.deep),
        pytest.param(ask_openai, True, marks=pytest.mark.deep),
        pytest.param(ask_openai, False, marks=pytest.mark.deep),
        pytest.param(ask_segue, False, marks=pytest.mark.deep),
    ],
)
async def test_a_request_whose_gateway_was_killed_reaches_the_provider_once(
    ask: Callable[..., Coroutine[None, None, None]], stream: bool, tmp_path: Path
) -> None:
    async with killable(tmp_path) as (url, provider, gateway), asyncio.timeout(60):
        asking = asyncio.create_task(ask(url, stream=stream))
        await provider.seen(1)
        gateway.kill()
        await asking
        assert len(provider.requests) == 1
