"""A walk to a gateway, and to what may be there in its place, over loopback sockets."""

from __future__ import annotations

import asyncio
import errno
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme
from aiohttp import web

from segue.protocol.problems import Problem
from segue.sidecar.connector import ConnectorSettings
from segue.sidecar.diagnosis import link_probe
from segue.sidecar.diagnosis.check_results import is_well
from segue.sidecar.diagnosis.link_checks import LinkObservation, judge_link
from segue.sidecar.diagnosis.link_faults import FaultKind
from segue.sidecar.diagnosis.link_probe import observe_link, path_to
from segue.sidecar.proxy import parse_proxy
from tests.loop_clock import LoopClock
from tests.sidecar.gateways import fake_gateway
from tests.sidecar.proxies import proxied

QUICK = ConnectorSettings(connect_s=0.1)
PATIENT = ConnectorSettings(connect_s=60.0)

Client = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def kind_of(seen: LinkObservation) -> FaultKind | None:
    return None if seen.fault is None else seen.fault.kind


@asynccontextmanager
async def listening(serve: Client, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """Something that is no gateway, on a port."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


def saying(data: bytes) -> Client:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(65536)
        writer.write(data)
        await writer.drain()

    return serve


async def silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    while await reader.read(65536):
        pass


def test_the_way_is_what_the_settings_say() -> None:
    proxy = parse_proxy("http://alice:hunter2@[::1]:3128", "g.example")
    settings = ConnectorSettings(key="k", proxy=proxy)
    path = path_to("https://far.example/behind", settings)
    assert (path.url, path.gateway, path.hop) == (
        "wss://far.example/behind/segue/tunnel",
        "far.example:443",
        "[::1]:3128",
    )
    assert (path.encrypted, path.has_key) == (True, True)
    assert path_to("wss://g.example:444", settings).hop == "g.example:444"
    assert path_to("ws://far.example", ConnectorSettings()).gateway == "far.example:80"
    with pytest.raises(ValueError, match="address of a gateway"):
        path_to("nowhere", settings)


async def test_a_gateway_is_gone_all_the_way_to() -> None:
    async with fake_gateway() as gateway:
        seen = await observe_link(gateway.url, PATIENT, clock=lambda: 5.0)
        [upgrade] = gateway.upgrades
    assert seen.fault is None
    assert (seen.addresses, seen.now) == (("127.0.0.1",), 5.0)
    assert seen.connected_s is not None
    assert seen.welcome_s is not None
    assert seen.answer is not None
    assert seen.answer.status == 101
    assert len(upgrade["segue-session"]) == 32
    assert [one.name for one in judge_link(seen) if one.status != "passed"] == ["clock"]


async def test_a_gateway_is_verified_and_reached_through_a_proxy(tmp_path: Path) -> None:
    async with proxied(tmp_path) as (gateway, proxy, connector):
        seen = await observe_link("wss://gateway.invalid", connector)
        assert is_well(judge_link(seen))
        assert [head.partition(b"\r\n")[0] for head in proxy.asked] == [b"CONNECT gateway.invalid:443 HTTP/1.1"] * 2
        assert all(b"\r\nProxy-Authorization: Basic YWxpY2U6aHVudGVyMg==\r\n" in head for head in proxy.asked)
        assert [upgrade["authorization"] for upgrade in gateway.upgrades] == ["Bearer secret"]
        assert seen.certificate is not None
        assert seen.certificate.issuer.startswith("trustme")
        gateway.refusal = Problem("invalid_api_key", "Incorrect.")
        refused = await observe_link("wss://gateway.invalid", connector)
        assert kind_of(refused) == "key_unknown"
        told = str(judge_link(refused))
        assert "hunter2" not in told
        assert "secret" not in told


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "proxy_wants_login"),
        (b"HTTP/1.1 403 Forbidden\r\n\r\n", "proxy_refuses"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "proxy_is_none"),
        (b"", "proxy_is_none"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000, "tls_none"),
    ],
)
async def test_a_proxy_that_does_not_connect_is_told(answer: bytes, kind: FaultKind) -> None:
    async with listening(saying(answer)) as port:
        settings = ConnectorSettings(proxy=parse_proxy(f"http://127.0.0.1:{port}"), connect_s=20.0)
        seen = await observe_link("wss://gateway.invalid", settings)
    assert kind_of(seen) == kind


async def test_a_proxy_that_is_away_or_silent_is_told_as_the_proxy() -> None:
    away = ConnectorSettings(proxy=parse_proxy("http://127.0.0.1:1"), connect_s=20.0)
    assert kind_of(await observe_link("wss://gateway.invalid", away)) == "proxy_unreachable"
    async with listening(silent) as port:
        settings = ConnectorSettings(proxy=parse_proxy(f"http://127.0.0.1:{port}"), connect_s=0.1)
        assert kind_of(await observe_link("wss://gateway.invalid", settings)) == "proxy_silent"


async def test_nobody_there_is_refused() -> None:
    assert kind_of(await observe_link("ws://127.0.0.1:1", PATIENT)) == "tcp_refused"


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (TimeoutError(), "tcp_silent"),
        (OSError(errno.ETIMEDOUT, "Connection timed out"), "tcp_silent"),
        (OSError(errno.EHOSTUNREACH, "No route to host"), "tcp_unreachable"),
    ],
)
async def test_a_way_that_leads_nowhere_is_told(
    error: OSError, kind: FaultKind, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(asyncio.get_running_loop(), "sock_connect", fail)
    assert kind_of(await observe_link("ws://127.0.0.1:1", QUICK)) == kind


@pytest.mark.parametrize(
    ("host", "kind"), [("gateway.invalid", "name_unknown"), (f"{'x' * 64}.example", "name_unknown")]
)
async def test_a_name_that_is_none_is_told(host: str, kind: FaultKind) -> None:
    assert kind_of(await observe_link(f"ws://{host}", PATIENT)) == kind


async def test_a_name_server_that_is_silent_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async def wait(*_: object, **__: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", wait)
    assert kind_of(await observe_link("ws://g.example", QUICK)) == "name_silent"


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "tls_none"),
        (b"", "tls_closed"),
        (b"\x15\x03\x03\x00\x02\x02\x28", "tls_failed"),
    ],
)
async def test_what_does_not_speak_tls_is_told(data: bytes, kind: FaultKind) -> None:
    async with listening(saying(data)) as port:
        assert kind_of(await observe_link(f"wss://127.0.0.1:{port}", PATIENT)) == kind


async def test_a_handshake_that_never_ends_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async with listening(silent) as port:
        seen = await LoopClock(monkeypatch).hurry(observe_link(f"wss://127.0.0.1:{port}", PATIENT))
        assert kind_of(seen) == "tls_silent"


async def test_a_certificate_that_is_not_right_is_told_by_what_is_wrong(tmp_path: Path) -> None:
    authority, now = trustme.CA(), datetime.now(UTC)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    trusting = ConnectorSettings(cafile=str(tmp_path / "ca.pem"), connect_s=20.0)
    day = timedelta(days=1)
    certificates = {
        "tls_expired": authority.issue_cert("127.0.0.1", not_before=now - 2 * day, not_after=now - day),
        "tls_not_yet_valid": authority.issue_cert("127.0.0.1", not_before=now + day, not_after=now + 2 * day),
        "tls_wrong_name": authority.issue_cert("elsewhere.example"),
        "tls_untrusted": trustme.CA().issue_cert("127.0.0.1"),
    }
    for kind, certificate in certificates.items():
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        certificate.configure_cert(tls)
        async with listening(silent, tls=tls) as port:
            seen = await observe_link(f"wss://127.0.0.1:{port}", trusting)
        assert kind_of(seen) == kind


@asynccontextmanager
async def answering(handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> AsyncIterator[str]:
    application = web.Application()
    application.router.add_get("/segue/tunnel", handler)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"ws://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def test_a_web_server_in_its_place_is_told_and_shows_the_time() -> None:
    async def page(_: web.Request) -> web.StreamResponse:
        return web.Response(text="<html>hello", content_type="text/html", headers={"Date": "x"}, status=404)

    async with answering(page) as url:
        seen = await observe_link(url, PATIENT)
    assert kind_of(seen) == "other_server"
    assert seen.answer is not None
    assert seen.answer.date == "x"


async def test_what_is_silent_or_hangs_up_after_the_upgrade_is_asked_for_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with listening(silent) as port:
        seen = await LoopClock(monkeypatch).hurry(observe_link(f"ws://127.0.0.1:{port}", PATIENT))
        assert kind_of(seen) == "upgrade_silent"
    async with listening(saying(b"")) as port:
        assert kind_of(await observe_link(f"ws://127.0.0.1:{port}", PATIENT)) == "upgrade_closed"


async def test_a_websocket_of_something_else_is_no_tunnel() -> None:
    async def serve(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.receive()
        return socket

    async with answering(serve) as url:
        assert kind_of(await observe_link(url, PATIENT)) == "no_tunnel"


@pytest.mark.parametrize("greeting", [b"", b"\x00nonsense"])
async def test_a_gateway_that_does_not_greet_is_no_tunnel(greeting: bytes) -> None:
    async with fake_gateway() as gateway:
        gateway.greeting = greeting
        assert kind_of(await observe_link(gateway.url, PATIENT)) == "no_tunnel"


async def test_messages_that_do_not_come_through_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async def serve(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse(protocols=("segue-tunnel-1",))
        await socket.prepare(request)
        while not socket.closed:
            await socket.receive()
        return socket

    async with answering(serve) as url:
        seen = await LoopClock(monkeypatch).hurry(observe_link(url, PATIENT))
        assert kind_of(seen) == "no_messages"


def test_what_python_says_of_a_certificate_is_read_as_far_as_it_goes() -> None:
    read = link_probe._certificate_of  # noqa: SLF001 - what a context that verifies nothing shows
    assert read(None) is None
    assert read({}) is None
    shown = read({"notAfter": "Jan  1 00:00:00 2030 GMT", "issuer": ((("commonName", "Root"),),)})
    assert shown is not None
    assert (shown.issuer, shown.expires_at) == ("Root", 1893456000.0)
    nameless = read({"notAfter": "Jan  1 00:00:00 2030 GMT"})
    assert nameless is not None
    assert nameless.issuer == "an authority without a name"
