"""Asking a gateway over HTTP: a real one, and what may answer in its place."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from segue.config import Config, KeyConfig, RouteConfig, ServerConfig
from segue.gateway.app import serving
from segue.http.routes import BUILT_IN
from segue.sidecar.connector import ConnectorSettings
from segue.sidecar.diagnosis import gateway_probe
from segue.sidecar.diagnosis.gateway_checks import GatewayAnswer, GatewayObservation, SeenSpeed
from segue.sidecar.diagnosis.gateway_probe import observe_gateway
from segue.upstreams.router import ModelRule, Router
from segue.upstreams.scripted import ScriptedUpstream
from tests.sidecar.proxies import proxied

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


async def test_a_gateway_tells_its_routes_to_who_has_a_key_and_is_timed() -> None:
    config = Config(
        server=ServerConfig(port=0, store="memory:"),
        key=[KeyConfig("a", "a", hashlib.sha256(b"sk-a").hexdigest())],
        route=[RouteConfig(target="self", mount=mount) for mount, _ in BUILT_IN],
    )
    async with serving(config, Router([ModelRule(ScriptedUpstream(), ("*",))])) as (_, url):
        seen = await observe_gateway(url, ConnectorSettings(key="sk-a"))
        assert isinstance(seen.answer, GatewayAnswer)
        assert {(route.prefix, route.target) for route in seen.answer.routes} == {
            (mount, "self") for mount, _ in BUILT_IN
        }
        assert seen.answer.providers == ()
        assert isinstance(seen.speed, SeenSpeed)
        assert min(seen.speed.round_trip_s, seen.speed.up_bytes_s, seen.speed.down_bytes_s) > 0
        refused = await observe_gateway(f"{url}/segue/tunnel", ConnectorSettings())
    status = "the gateway answers with status 401"
    assert refused == GatewayObservation(answer=status, speed=status)


@asynccontextmanager
async def answering(handler: Handler) -> AsyncIterator[str]:
    application = web.Application()
    application.router.add_route("*", "/behind/segue/{rest:.*}", handler)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"ws://127.0.0.1:{runner.addresses[0][1]}/behind"
    finally:
        await runner.cleanup()


async def not_there(_: web.Request) -> web.StreamResponse:
    return web.Response(status=404)


async def elsewhere(_: web.Request) -> web.StreamResponse:
    return web.Response(status=302, headers={"Location": "/behind/segue/x"})


async def nonsense(_: web.Request) -> web.StreamResponse:
    return web.Response(text="[[[")


async def too_much(_: web.Request) -> web.StreamResponse:
    return web.Response(body=b"x" * 300_000)


async def hanging_up(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


@pytest.mark.parametrize(
    ("handler", "answer", "speed"),
    [
        (not_there, "", ""),
        (elsewhere, "the gateway answers with status 302", "the gateway answers with status 302"),
        (nonsense, "what the gateway tells of its routes cannot be read", "3 bytes came in place of 0"),
        (too_much, "the answer of the gateway is too long", "the answer of the gateway is too long"),
        (hanging_up, "the connection broke off: Server disconnected", "the connection broke off: Server disconnected"),
    ],
)
async def test_what_is_no_answer_of_a_gateway_is_said_in_a_line(handler: Handler, answer: str, speed: str) -> None:
    async with answering(handler) as url:
        assert await observe_gateway(url, ConnectorSettings()) == GatewayObservation(answer=answer, speed=speed)


async def test_a_gateway_that_is_silent_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    async def wait(_: web.Request) -> web.StreamResponse:
        await asyncio.Event().wait()
        return web.Response()

    for name in ("_ANSWER_S", "_TRANSFER_S"):
        monkeypatch.setattr(gateway_probe, name, 0.05)
    async with answering(wait) as url:
        told = "the gateway has not answered within 0.05 s"
        assert await observe_gateway(url, ConnectorSettings()) == GatewayObservation(answer=told, speed=told)


async def test_a_slow_way_is_timed_with_few_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = list[tuple[int, int]]()

    async def transfer(_: object, up: int, down: int) -> float:
        sizes.append((up, down))
        return 0.1 + (up + down) / 16_384

    monkeypatch.setattr(gateway_probe._Questions, "transfer", transfer)  # noqa: SLF001 - a slow link takes its time
    async with answering(not_there) as url:
        speed = (await observe_gateway(url, ConnectorSettings())).speed
    assert isinstance(speed, SeenSpeed)
    assert (speed.round_trip_s, round(speed.up_bytes_s), round(speed.down_bytes_s)) == (0.1, 16_384, 16_384)
    assert sizes[-2:] == [(32_768, 0), (0, 32_768)]


async def test_it_goes_through_the_proxy_too(tmp_path: Path) -> None:
    async with proxied(tmp_path) as (_, proxy, connector):
        assert await observe_gateway("wss://gateway.invalid", connector) == GatewayObservation()
        assert proxy.asked[0].startswith(b"CONNECT gateway.invalid:443 HTTP/1.1\r\n")
        assert b"\r\nProxy-Authorization: Basic " in proxy.asked[0]
        assert b"secret" not in proxy.asked[0]
