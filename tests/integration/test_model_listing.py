"""`GET /v1/models` with upstreams that list their own: what is listed, to whom, and what when one is down."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from segue.config import UpstreamConfig
from segue.testing.protocol_checker import Json
from tests.integration.clients import Http
from tests.integration.providers import Api, gateway
from tests.loop_clock import LoopClock
from tests.upstreams.provider import Exchange, Play, hangs, providing, refuses

TARGETS: dict[Api, str] = {
    "chat": "/v1/models",
    "responses": "/v1/models",
    "messages": "/v1/models?limit=1000",
}


def lists(*names: str) -> Play:
    return refuses(200, {"object": "list", "data": [{"id": name} for name in names]})


def upstream(name: str, url: str, dialect: Api = "chat", **more: Any) -> UpstreamConfig:  # noqa: ANN401 - any setting
    return UpstreamConfig(name=name, dialect=dialect, base_url=f"{url}/v1", **more)


async def listed(url: str, **headers: str) -> list[str]:
    async with Http(url) as client:
        reply = await client.request("GET", "/v1/models", headers={k.replace("_", "-"): v for k, v in headers.items()})
    assert reply.status == 200
    rows: list[Json] = reply.body["data"]
    assert all((row["object"], row["owned_by"]) == ("model", "segue") for row in rows)
    return [row["id"] for row in rows if row["id"] != "scripted"]


@pytest.mark.parametrize("dialect", TARGETS)
async def test_names_that_match_a_glob_stand_behind_those_of_the_configuration(dialect: Api) -> None:
    """In the order of the configuration, each once; the upstream is asked once for many lists."""
    async with providing(lists("llama3", "nomic-embed", "llama2", "exact")) as provider:
        up = upstream("a", provider.url, dialect, models=["exact", "llama*"])
        async with gateway(up) as url:
            for _ in range(3):
                assert await listed(url) == ["exact", "llama3", "llama2"]
    assert [(got.method, got.target) for got in provider.got] == [("GET", TARGETS[dialect])]


async def test_nobody_is_asked_where_only_names_are_configured() -> None:
    async with providing(lists("b")) as provider:
        one = upstream("a", provider.url, models=["b", "a"])
        other = upstream("b", provider.url, models=["*"], model_as="the-one")
        async with gateway(one, other) as url:
            assert await listed(url) == ["b", "a"]
    assert provider.got == []


@pytest.mark.parametrize("play", [refuses(500), refuses(401), refuses(200, {"a": 1}), hangs])
async def test_an_upstream_that_does_not_answer_costs_only_its_own_models(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("segue.upstreams.model_listing.WAIT_S", 60.0)
    clock = LoopClock(monkeypatch)
    async with providing(play) as broken, providing(lists("b-1")) as sound:
        ups = [upstream("a", broken.url, models=["a", "a-*"]), upstream("b", sound.url, models=["b-*"])]
        async with gateway(*ups) as url:
            asking = asyncio.create_task(listed(url))
            await sound.seen(1)
            assert await clock.hurry(asking) == ["a", "b-1"]
            assert await clock.hurry(listed(url)) == ["a", "b-1"]


async def test_with_pass_key_a_client_sees_what_its_key_may_see() -> None:
    async def by_key(exchange: Exchange) -> None:
        await lists("gpt-" + exchange.got.headers["authorization"].removeprefix("Bearer "))(exchange)

    async with (
        providing(by_key) as provider,
        gateway(upstream("a", provider.url, models=["own", "gpt-*"], pass_key=True)) as url,
    ):
        assert await listed(url) == ["own"]
        assert await listed(url, X_Upstream_Key="ann") == ["own", "gpt-ann"]
        assert await listed(url, X_Upstream_Key="bob") == ["own", "gpt-bob"]
        assert await listed(url) == ["own"]
