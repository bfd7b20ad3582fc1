"""The table of routes: what is there, and who may call it."""

from __future__ import annotations

import hashlib

import aiohttp
import pytest
from aiohttp.test_utils import TestServer

from segue.config import Config, KeyConfig, LimitsConfig, RouteConfig, ServerConfig
from segue.gateway.api.application import build_application
from segue.gateway.app import Gateway
from segue.http.routes import BUILT_IN
from segue.stores.memory import MemoryStore
from segue.upstreams.router import ModelRule, Router
from segue.upstreams.scripted import ScriptedUpstream
from tests.gateway.parts import Clock

KEY = KeyConfig("alice", "alice", hashlib.sha256(b"sk-alice").hexdigest())
NO_ID = "/v1/responses/resp_unknown"
NO_CONVERSATION = "/v1/conversations/conv_unknown"

#: Method, path, and the status with and without a key.
ROUTES = [
    ("POST", "/v1/responses", 400, 401),
    ("GET", "/v1/responses", 200, 401),
    ("POST", "/v1/responses/compact", 400, 401),
    ("GET", NO_ID, 404, 401),
    ("DELETE", NO_ID, 404, 401),
    ("POST", f"{NO_ID}/cancel", 404, 401),
    ("GET", f"{NO_ID}/input_items", 404, 401),
    ("POST", "/v1/conversations", 200, 401),
    ("GET", NO_CONVERSATION, 404, 401),
    ("POST", NO_CONVERSATION, 400, 401),
    ("DELETE", NO_CONVERSATION, 404, 401),
    ("GET", f"{NO_CONVERSATION}/items", 404, 401),
    ("POST", f"{NO_CONVERSATION}/items", 400, 401),
    ("GET", f"{NO_CONVERSATION}/items/msg_1", 404, 401),
    ("DELETE", f"{NO_CONVERSATION}/items/msg_1", 404, 401),
    ("GET", "/v1/models", 200, 401),
    ("GET", "/v1/models/org/one", 200, 401),
    ("GET", "/segue/tunnel", 426, 401),
    ("GET", "/segue/capabilities", 200, 401),
    ("GET", "/segue/usage", 200, 401),
    ("GET", "/segue/diagnostics", 200, 401),
    ("POST", "/segue/diagnostics/transfer", 200, 401),
    ("GET", "/healthz", 200, 200),
    ("GET", "/readyz", 200, 403),
    ("GET", "/metrics", 200, 403),
    ("GET", "/v1/responses/compact", 405, 405),
    ("GET", "/elsewhere", 404, 404),
    ("PUT", "/v1/models", 405, 405),
]


@pytest.mark.parametrize(("method", "path", "with_key", "without_key"), ROUTES)
async def test_every_route_asks_for_what_it_should(method: str, path: str, with_key: int, without_key: int) -> None:
    """What asks for no key here is open to everybody."""
    routes = [RouteConfig(target="self", mount=mount) for mount, _ in BUILT_IN]  # no probe leaves this machine
    config = Config(server=ServerConfig(store="memory:"), key=[KEY], route=routes)
    gateway = Gateway(config, Router([ModelRule(ScriptedUpstream(), ("*",))]), MemoryStore(), Clock())
    application = build_application(
        gateway.services,
        gateway.tunnel,
        diagnostics=gateway.diagnostics,
        connections=gateway.connections,
        erasure=gateway.erasure,
    )
    async with TestServer(application) as server, aiohttp.ClientSession(server.make_url("/")) as client:
        for headers, expected in (({"Authorization": "Bearer sk-alice"}, with_key), ({}, without_key)):
            async with client.request(method, path, headers=headers) as reply:
                assert reply.status == expected, await reply.text()
                assert "Server" not in reply.headers
        async with client.request(method, path, headers={"Host": "evil.example"}) as reply:
            assert reply.status == 403
    await gateway.aclose()


#: What runs no turn, and lets the gateway work all the same.
COUNTED = [
    *(("GET", path) for path in ("/v1/responses", f"{NO_ID}/input_items", NO_CONVERSATION, f"{NO_CONVERSATION}/items")),
    *(("POST", path) for path in ("/v1/conversations", NO_CONVERSATION, f"{NO_CONVERSATION}/items")),
    *(("DELETE", path) for path in (NO_ID, NO_CONVERSATION, f"{NO_CONVERSATION}/items/msg_1")),
    *(("POST", path) for path in ("/v1/responses/input_tokens", "/v1/messages/count_tokens", "/segue/conversations")),
    *(("GET", path) for path in (f"{NO_CONVERSATION}/items/msg_1", "/segue/conversations/resp_unknown")),
]


async def test_requests_without_a_turn_count_in_the_limits_of_a_minute() -> None:
    """Each is let in once, body and all, and refused then; looking at one response or at the usage is free."""
    config = Config(server=ServerConfig(store="memory:"), limits=LimitsConfig(requests_per_minute=len(COUNTED)))
    gateway = Gateway(config, Router([ModelRule(ScriptedUpstream(), ("*",))]), MemoryStore(), Clock())
    application = build_application(
        gateway.services,
        gateway.tunnel,
        diagnostics=gateway.diagnostics,
        connections=gateway.connections,
        erasure=gateway.erasure,
    )
    async with TestServer(application) as server, aiohttp.ClientSession(server.make_url("/")) as client:

        async def status_of(method: str, path: str) -> int:
            async with client.request(method, path, json={} if method == "POST" else None) as reply:
                return reply.status

        assert 429 not in [await status_of(method, path) for method, path in COUNTED]
        assert {await status_of(method, path) for method, path in COUNTED} == {429}
        assert [await status_of("GET", path) for path in (NO_ID, "/segue/usage")] == [404, 200]
    await gateway.aclose()
