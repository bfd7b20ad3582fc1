"""Opening the tunnel's WebSocket: addresses, and what is said when it does not open."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trustme
from aiohttp import web

from segue.sidecar.app import SidecarSettings
from segue.sidecar.connector import (
    ConnectorSettings,
    GatewayRefusedError,
    GatewayUnreachableError,
    connected,
    frame_bytes,
    tls_context,
    tunnel_url,
)
from segue.sidecar.proxy import parse_proxy
from segue.tunnel.frames import SUBPROTOCOL
from tests.sidecar.gateways import fake_gateway
from tests.sidecar.proxies import proxied
from tests.sidecar.sidecars import IMPATIENT, QUICK, running

SESSION = "0" * 32


@pytest.mark.parametrize(
    ("gateway", "url"),
    [
        ("ws://127.0.0.1:4747", "ws://127.0.0.1:4747/segue/tunnel"),
        ("wss://gateway.example.com", "wss://gateway.example.com/segue/tunnel"),
        ("http://localhost:1/", "ws://localhost:1/segue/tunnel"),
        ("HTTPS://[::1]:1/behind", "wss://[::1]:1/behind/segue/tunnel"),
        ("wss://a/segue/tunnel/", "wss://a/segue/tunnel"),
    ],
)
def test_a_gateway_is_named_by_any_of_its_addresses(gateway: str, url: str) -> None:
    assert tunnel_url(gateway) == url


@pytest.mark.parametrize("gateway", ["", "example.com", "ftp://a", "ws://", "ws://a?b", "ws://a:99999"])
def test_what_is_no_address_is_refused(gateway: str) -> None:
    with pytest.raises(ValueError, match=r"address of a gateway|[Pp]ort"):
        tunnel_url(gateway)


def test_a_password_in_an_address_is_refused_and_not_repeated() -> None:
    with pytest.raises(ValueError, match="no user and password") as caught:
        tunnel_url("wss://alice:hunter2@gateway.example.com")
    assert "hunter2" not in str(caught.value)


def test_a_frame_has_a_head_of_its_own_and_a_mask_from_a_client() -> None:
    sizes = [0, 125, 126, 65535, 65536]
    assert [frame_bytes(size, masked=False) - size for size in sizes] == [2, 2, 4, 4, 10]
    assert [frame_bytes(size, masked=True) - size for size in sizes] == [6, 6, 8, 8, 14]


@asynccontextmanager
async def answering(handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> AsyncIterator[str]:
    application = web.Application()
    application.router.add_get("/segue/tunnel", handler)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"ws://127.0.0.1:{runner.addresses[0][1]}/segue/tunnel"
    finally:
        await runner.cleanup()


async def dial(url: str, settings: ConnectorSettings | None = None) -> None:
    settings = ConnectorSettings(connect_s=5.0) if settings is None else settings
    async with connected(url, SESSION, settings, tls_context(settings.cafile)):
        pass


REFUSAL = {"error": {"type": "authentication_error", "code": "invalid_api_key", "message": "wrong\nkey"}}


async def test_a_refusal_is_told_in_the_gateways_words() -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(status=401, headers={"Content-Type": "application/json"})
        await response.prepare(request)
        for piece in json.dumps(REFUSAL):  # as it may come over a bad network
            await response.write(piece.encode())
        return response

    async with answering(handler) as url:
        with pytest.raises(GatewayRefusedError, match="wrong key") as caught:
            await dial(url)
    assert caught.value.code == "segue_invalid_key"


async def test_a_page_that_never_ends_is_not_waited_for() -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(status=200, headers={"Content-Type": "text/html"})
        await response.prepare(request)
        await response.write(b"<html>")
        await asyncio.Event().wait()
        return response

    async with answering(handler) as url, asyncio.timeout(60):
        with pytest.raises(GatewayUnreachableError, match="status 200"):
            await dial(url, ConnectorSettings(connect_s=1000.0))


async def test_no_answer_at_all_is_said_with_the_time() -> None:
    async def handler(_: web.Request) -> web.StreamResponse:
        await asyncio.Event().wait()
        return web.Response()

    async with answering(handler) as url:
        with pytest.raises(GatewayUnreachableError, match=r"no answer within 0\.05 s"):
            await dial(url, ConnectorSettings(connect_s=0.05))


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (200, "hello", "status 200"),
        (403, "<html>", "status 403"),
        (404, "", "status 404"),
        (503, '{"error": {"message": "shutting down"}}', "shutting down"),
    ],
)
async def test_what_is_no_refusal_of_a_gateway_may_be_tried_again(status: int, body: str, words: str) -> None:
    async def handler(_: web.Request) -> web.StreamResponse:
        kind = "application/json" if body.startswith("{") else "text/html"
        return web.Response(status=status, text=body, content_type=kind)

    async with answering(handler) as url:
        with pytest.raises(GatewayUnreachableError, match=words):
            await dial(url)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed(status: int) -> None:
    asked: list[str] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        asked.append(request.path_qs)
        return web.Response(status=status, headers={"Location": "/segue/tunnel?again=1"})

    async with answering(handler) as url:
        with pytest.raises(GatewayUnreachableError, match="redirects"):
            await dial(url)
    assert asked == ["/segue/tunnel"]


async def test_a_websocket_of_another_protocol_is_no_link() -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.receive()
        return socket

    async with answering(handler) as url:
        with pytest.raises(GatewayUnreachableError, match="does not speak segue-tunnel-1"):
            await dial(url)


async def test_a_text_message_is_no_packet_and_ends_the_link() -> None:
    codes: list[int | None] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse(protocols=(SUBPROTOCOL,))
        await socket.prepare(request)
        await socket.send_str("hello")
        await socket.receive()
        codes.append(socket.close_code)
        return socket

    async with (
        answering(handler) as url,
        connected(url, SESSION, ConnectorSettings(connect_s=5.0), tls_context(None)) as link,
    ):
        assert await link.receive() is None
        assert link.closed
    assert codes == [1003]


async def test_an_upgrade_that_is_not_done_in_full_is_no_link() -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        lines = {"Upgrade": "websocket", "Connection": "upgrade", "Sec-WebSocket-Accept": "wrong"}
        response = web.StreamResponse(status=101, headers=lines)
        await response.prepare(request)
        await asyncio.Event().wait()
        return response

    async with answering(handler) as url:
        with pytest.raises(GatewayUnreachableError, match="this is no gateway"):
            await dial(url)


async def test_nobody_there_is_said_with_the_address() -> None:
    with pytest.raises(GatewayUnreachableError, match=r"127\.0\.0\.1:1: Connect"):
        await dial("ws://127.0.0.1:1/segue/tunnel")


async def test_gateways_are_verified_by_the_file_that_is_named(tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(tls)
    async with fake_gateway(tls=tls) as gateway:
        url = f"wss://localhost:{gateway.port}"
        trusting = SidecarSettings(gateways=(), connector=ConnectorSettings(cafile=str(tmp_path / "ca.pem")))
        async with running(url, settings=trusting) as sidecar:
            assert (await sidecar.post(b"{}")).startswith(b"HTTP/1.1 200 ")
        async with running(url, settings=IMPATIENT) as sidecar:
            answer = await sidecar.post(b"{}")
            told = await sidecar.stats()
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"certificate is not trusted" in answer
    assert "certificate is not trusted" in told["reason"]


async def test_a_gateway_is_reached_through_a_proxy_that_sees_nothing_but_its_name(tmp_path: Path) -> None:
    async with proxied(tmp_path) as (gateway, proxy, connector):
        settings = SidecarSettings(gateways=(), connector=connector)
        async with running("wss://gateway.invalid", settings=settings) as sidecar:
            assert (await sidecar.post(b"{}")).startswith(b"HTTP/1.1 200 ")
        [head] = proxy.asked
        assert head.startswith(b"CONNECT gateway.invalid:443 HTTP/1.1\r\n")
        assert b"\r\nProxy-Authorization: Basic YWxpY2U6aHVudGVyMg==\r\n" in head
        assert b"secret" not in head
        [upgrade] = gateway.upgrades
        assert upgrade["authorization"] == "Bearer secret"
        assert "proxy-authorization" not in upgrade


async def test_what_no_proxy_names_is_reached_without_it(tmp_path: Path) -> None:
    async with proxied(tmp_path) as (_, proxy, connector):
        with pytest.raises(GatewayUnreachableError):
            await dial("wss://elsewhere.invalid/segue/tunnel", connector)
        with pytest.raises(GatewayUnreachableError):
            await dial("ws://gateway.invalid/segue/tunnel", connector)
        assert proxy.asked == []


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (
            b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n",
            "the proxy answered with status 407",
        ),
        (b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1/\r\n\r\n", "the proxy answered with status 302"),
        (b"", "isconnected"),
        (b"what?\r\n\r\n", ""),
    ],
)
async def test_a_proxy_that_does_not_connect_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, answer: bytes, words: str
) -> None:
    async with proxied(tmp_path) as (_, proxy, connector):
        proxy.refusal = answer
        settings = SidecarSettings(gateways=(), connector=connector, timeouts=QUICK)
        async with running("wss://gateway.invalid", settings=settings) as sidecar:
            reply = await sidecar.post(b"{}")
            told = await sidecar.stats()
    assert reply.startswith(b"HTTP/1.1 503 ")
    assert words in told["reason"]
    for shown in (reply.decode(), str(told), caplog.text):
        assert "hunter2" not in shown
        assert "YWxpY2U6" not in shown


async def test_a_proxy_that_is_not_there_is_said_as_that() -> None:
    settings = ConnectorSettings(proxy=parse_proxy("http://alice:hunter2@127.0.0.1:1"))
    with pytest.raises(GatewayUnreachableError, match=r"the proxy 127\.0\.0\.1:1: Connect") as caught:
        await dial("wss://gateway.invalid/segue/tunnel", settings)
    assert "hunter2" not in str(caught.value)
