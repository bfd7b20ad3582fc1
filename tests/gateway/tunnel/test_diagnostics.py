"""What a gateway tells of its routes, whether it probes once for all who ask, and what it lets them measure."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from segue.config import RouteConfig
from segue.egress.client import Egress
from segue.egress.errors import EgressError
from segue.gateway.api.middleware import error_replies
from segue.gateway.tunnel import diagnostics
from segue.gateway.tunnel.diagnostics import MAX_TRANSFER_BYTES, RouteDiagnostics
from segue.gateway.tunnel.transfer_allowance import WINDOW_BYTES
from segue.http.routes import BUILT_IN, Target, parse_target, route_table

OWN = [RouteConfig(target="self", mount=mount) for mount, _ in BUILT_IN]


class Probed(Egress):
    """Reaches every server but those that are down."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    async def probe(self, target: Target, *, wait_s: float) -> None:
        self.asked.append(target.url)
        await asyncio.sleep(0)
        if target.host.startswith("down"):
            raise EgressError("upstream_unreachable", f"{target.host} cannot be reached", sent=False)


@asynccontextmanager
async def asked(
    egress: Egress, routes: Sequence[RouteConfig] = (), others: Sequence[Target] = ()
) -> AsyncIterator[aiohttp.ClientSession]:
    shown = RouteDiagnostics(route_table([*OWN, *routes]), others, egress)

    async def transfer(request: web.Request) -> web.StreamResponse:
        return await shown.transfer(request, request.headers.get("Tenant", "a"))

    application = web.Application(middlewares=[error_replies(1 << 24, lambda _: None)])
    application.add_routes([web.get("/d", shown.show), web.post("/t", transfer)])
    async with TestServer(application) as server, aiohttp.ClientSession(server.make_url("/")) as client, egress:
        yield client


async def test_it_tells_the_routes_and_which_servers_it_reaches_without_their_paths() -> None:
    egress = Probed()
    routes = [
        RouteConfig(mount="/a", target="https://up.example/accounts/secret"),
        RouteConfig(path="/v1", target="https://up.example"),
        RouteConfig(mount="/b", target="http://down.example:81"),
    ]
    async with (
        asked(egress, routes, [parse_target("https://third.example/v1")]) as client,
        client.get("/d") as reply,
    ):
        told = json.loads(await reply.text())
    assert {route["prefix"]: route["target"] for route in told["routes"]} == {
        **{mount: "self" for mount, _ in BUILT_IN},
        "/a": "https://up.example",
        "/v1": "https://up.example",
        "/b": "http://down.example:81",
    }
    providers = {one.pop("target"): one for one in told["providers"]}
    assert set(providers) == {"https://up.example", "http://down.example:81", "https://third.example"}
    assert all(one.pop("time_s") >= 0 for one in providers.values())
    assert providers["https://up.example"] == {"reachable": True, "reason": ""}
    assert providers["http://down.example:81"] == {"reachable": False, "reason": "down.example cannot be reached"}
    assert "secret" not in str(told)


async def test_servers_are_probed_once_for_all_who_ask_within_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    egress = Probed()
    async with asked(egress, [RouteConfig(mount="/a", target="https://up.example")]) as client:
        await asyncio.gather(*(client.get("/d") for _ in range(5)))
        assert egress.asked == ["https://up.example"]
        monkeypatch.setattr(diagnostics, "KEEP_S", 0.0)
        await client.get("/d")
        assert len(egress.asked) == 2


async def test_no_more_servers_are_probed_than_a_few() -> None:
    egress = Probed()
    others = [parse_target(f"https://n{number}.example") for number in range(50)]
    async with asked(egress, (), others) as client:
        await client.get("/d")
    assert len(egress.asked) == 32


async def test_bytes_go_both_ways_and_no_further_than_the_limits() -> None:
    async with asked(Probed()) as client:
        async with client.post("/t?bytes=1000", data=b"x" * 5000) as reply:
            body = await reply.read()
            assert (reply.status, len(body), reply.headers["Cache-Control"]) == (200, 1000, "no-store")
        async with client.post("/t") as reply:
            assert await reply.read() == b""
        for query in ("-1", "x", str(MAX_TRANSFER_BYTES + 1), "9" * 5000, "٣"):
            async with client.post("/t", params={"bytes": query}) as reply:
                assert reply.status == 400
                assert "'bytes' is a number" in await reply.text()
        async with client.post("/t", data=b"x" * (MAX_TRANSFER_BYTES + 1)) as reply:
            assert reply.status == 413

        async def endless() -> AsyncIterator[bytes]:
            yield b"x"

        async with client.post("/t", data=endless()) as reply:
            assert reply.status == 413


async def test_a_tenant_that_has_measured_enough_is_told_when_to_come_back() -> None:
    async with asked(Probed()) as client:
        for _ in range(WINDOW_BYTES // MAX_TRANSFER_BYTES):
            async with client.post(f"/t?bytes={MAX_TRANSFER_BYTES}") as reply:
                assert len(await reply.read()) == MAX_TRANSFER_BYTES
        async with client.post("/t?bytes=1") as reply:
            assert (reply.status, int(reply.headers["Retry-After"]) > 0) == (429, True)
        async with client.post("/t?bytes=1", headers={"Tenant": "b"}) as reply:
            assert reply.status == 200


async def test_a_body_that_stalls_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is its client's fault, and nothing that the log of a gateway should call a failure."""
    monkeypatch.setattr(diagnostics, "_TRANSFER_S", 0.05)

    async def dripping() -> AsyncIterator[bytes]:
        yield b"x"
        await asyncio.Event().wait()

    async with (
        asked(Probed()) as client,
        client.post("/t", data=dripping(), headers={"Content-Length": "100"}) as reply,
    ):
        assert reply.status == 408
        assert json.loads(await reply.text())["error"]["code"] == "request_timeout"
