"""What a gateway answers to a command, and what is told if it is none, or refuses."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from segue.cli.gateway_api import GatewayApi, find_gateway
from segue.config import ConfigError


@pytest.fixture
async def gateway() -> AsyncIterator[GatewayApi]:
    """A server that answers with what the path says: a status and a size."""

    async def answer(request: web.Request) -> web.Response:
        status, size = int(request.match_info["status"]), int(request.match_info["size"])
        assert request.headers.get("Authorization", "Bearer k") == "Bearer k"
        body = b"x" * size if size else b'{"error":{"message":"No such thing."}}'
        return web.Response(status=status, body=body + await request.read())

    application = web.Application()
    application.router.add_route("*", "/{status}/{size}", answer)
    async with TestServer(application) as server:
        yield GatewayApi(f"http://127.0.0.1:{server.port}", "k")


async def test_the_answer_is_returned(gateway: GatewayApi) -> None:
    assert await gateway.ask("GET", "/200/3", most_bytes=3) == b"xxx"
    assert await gateway.ask("POST", "/200/3", body=b"y", most_bytes=4) == b"xxxy"


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/200/4", "is larger than 3 bytes"),
        ("/401/1", "does not know this key: set SEGUE_AGENT_KEY to one that it knows"),
        ("/404/1", r"is no segue gateway, or an old one \(status 404\)"),
        ("/302/1", r"is no segue gateway, or an old one \(status 302\)"),
    ],
)
async def test_what_is_no_answer_is_told(gateway: GatewayApi, path: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        await gateway.ask("GET", path, most_bytes=3)


async def test_a_key_that_is_not_set_is_told_apart_from_a_wrong_one(gateway: GatewayApi) -> None:
    with pytest.raises(ConfigError, match="wants a key, and none is set: set SEGUE_AGENT_KEY to one that it knows"):
        await GatewayApi(gateway.origin, None).ask("GET", "/401/1", most_bytes=3)


async def test_a_refusal_is_told_in_the_gateways_words(gateway: GatewayApi) -> None:
    with pytest.raises(ConfigError, match=r"^the gateway refuses: No such thing\.$"):
        await gateway.ask("GET", "/404/0", most_bytes=100)


async def test_nobody_there_is_told() -> None:
    with pytest.raises(ConfigError, match=r"no gateway answers at http://127\.0\.0\.1:1/x"):
        await GatewayApi("http://127.0.0.1:1", None).ask("GET", "/x", most_bytes=1)


def test_it_is_the_gateway_of_the_agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("SEGUE_AGENT_KEY", "sk-k")
    assert find_gateway(None, base_url="https://a.example/x/v1", key=None) == GatewayApi("https://a.example", "sk-k")
    assert find_gateway(None, base_url=None, key="other") == GatewayApi("http://127.0.0.1:4747", "other")
