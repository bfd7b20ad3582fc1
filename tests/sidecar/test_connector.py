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

from segue.sidecar import connector
from segue.sidecar.app import SidecarSettings
from segue.sidecar.connector import (
    ConnectorSettings,
    GatewayRefusedError,
    GatewayUnreachableError,
    connected,
    frame_bytes,
    tunnel_url,
)
from segue.sidecar.link_status import LinkTimeouts
from segue.sidecar.proxy import parse_proxy
from segue.sidecar.tls_sessions import verifying_context
from segue.testing.link import Direction, EmulatedLink, LinkProfile, linked
from segue.tunnel.frames import SUBPROTOCOL
from tests.sidecar.gateways import Answer, FakeGateway, Forwarded, Script, fake_gateway
from tests.sidecar.proxies import proxied
from tests.sidecar.sidecars import IMPATIENT, QUICK, Running, post, running

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
    async with connected(url, SESSION, settings, verifying_context(settings.cafile)):
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
        connected(url, SESSION, ConnectorSettings(connect_s=5.0), verifying_context(None)) as link,
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
    with pytest.raises(GatewayUnreachableError, match=r"127\.0\.0\.1:1: it refuses"):
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
    async with proxied(tmp_path) as (gateway, proxy, through):
        settings = SidecarSettings(gateways=(), connector=through)
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
    async with proxied(tmp_path) as (_, proxy, through):
        with pytest.raises(GatewayUnreachableError):
            await dial("wss://elsewhere.invalid/segue/tunnel", through)
        with pytest.raises(GatewayUnreachableError):
            await dial("ws://gateway.invalid/segue/tunnel", through)
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
    async with proxied(tmp_path) as (_, proxy, through):
        proxy.refusal = answer
        settings = SidecarSettings(gateways=(), connector=through, timeouts=QUICK)
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
    with pytest.raises(GatewayUnreachableError, match=r"the proxy 127\.0\.0\.1:1: it refuses") as caught:
        await dial("wss://gateway.invalid/segue/tunnel", settings)
    assert "hunter2" not in str(caught.value)


@asynccontextmanager
async def over_a_slow_link(
    tmp_path: Path, rtt_s: float, script: Script, *, tls: bool, takes_hello: bool
) -> AsyncIterator[tuple[FakeGateway, EmulatedLink, Running]]:
    """A sidecar with a link that takes this long, after it was connected once."""
    authority, context = trustme.CA(), ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    authority.issue_cert("localhost").configure_cert(context)
    settings = SidecarSettings(
        gateways=(),
        connector=ConnectorSettings(cafile=str(tmp_path / "ca.pem")),
        timeouts=LinkTimeouts(wait_s=60.0),
    )
    async with (
        fake_gateway(script, tls=context if tls else None) as gateway,
        linked("127.0.0.1", gateway.port, LinkProfile(rtt_s=rtt_s)) as link,
    ):
        gateway.takes_hello = takes_hello
        async with running(f"{'wss' if tls else 'ws'}://localhost:{link.port}", settings=settings) as sidecar:
            await sidecar.linked()
            yield gateway, link, sidecar


#: What goes over a new link before the provider is asked, after TCP's round trip.
UPGRADE: list[Direction] = ["up", "down"]
TLS: list[Direction] = ["up", "down"]
HELLO: list[Direction] = ["up", "down"]
REQUEST: list[Direction] = ["up"]


@pytest.mark.parametrize("rtt_s", [0.02, pytest.param(0.6, marks=pytest.mark.deep)])
@pytest.mark.parametrize(
    ("tls", "takes_hello", "flights"),
    [
        (False, True, [*UPGRADE, *REQUEST]),
        (True, True, [*TLS, *UPGRADE, *REQUEST]),
        (False, False, [*UPGRADE, *HELLO, *REQUEST]),  # a gateway of an earlier version
    ],
)
async def test_a_request_that_waits_goes_with_the_first_flight_after_the_upgrade(
    tmp_path: Path, rtt_s: float, flights: list[Direction], *, tls: bool, takes_hello: bool
) -> None:
    seen: list[list[Direction]] = []

    def script(_: Forwarded) -> Answer:
        seen.append(list(link.connections[-1].flights))
        return Answer()

    async with over_a_slow_link(tmp_path, rtt_s, script, tls=tls, takes_hello=takes_hello) as (_, link, sidecar):
        first = len(link.connections)
        link.cut()
        await sidecar.unlinked()
        assert (await sidecar.post(b"{}")).startswith(b"HTTP/1.1 200 ")
        assert len(link.connections) == first + 1
    assert seen == [flights]


async def test_a_reply_goes_on_with_the_answer_to_the_upgrade(tmp_path: Path) -> None:
    gate = asyncio.Event()
    answer = Answer(pieces=(b"data: 1\n\n", b"data: 2\n\n"), gates={1: gate})
    async with over_a_slow_link(tmp_path, 0.02, lambda _: answer, tls=False, takes_hello=True) as (_, link, sidecar):
        agent = await sidecar.connect()
        await agent.send(post(b"{}"))
        await agent.until(b"data: 1\n\n\r\n")
        async with link.refusing():
            link.cut()
            gate.set()
            await sidecar.unlinked()
        assert (await agent.rest()).endswith(b"data: 2\n\n\r\n0\r\n\r\n")
        assert link.connections[-1].flights.count("down") == 1


async def test_a_hello_that_is_too_large_for_a_header_follows_the_upgrade(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connector, "MAX_HELLO_BYTES", 1)
    async with fake_gateway() as gateway, running(gateway.url) as sidecar:
        assert (await sidecar.post(b"{}")).startswith(b"HTTP/1.1 200 ")
        assert "segue-hello" not in gateway.upgrades[0]


async def test_the_certificates_are_sent_once(tmp_path: Path) -> None:
    async with over_a_slow_link(tmp_path, 0.0, lambda _: Answer(), tls=True, takes_hello=True) as (_, link, sidecar):
        assert (await sidecar.post(b"{}")).startswith(b"HTTP/1.1 200 ")
        link.cut()
        await sidecar.unlinked()
        assert (await sidecar.post(b"{}")).startswith(b"HTTP/1.1 200 ")
        before, after = (one.down_bytes for one in link.connections)
    assert after < before - 400
