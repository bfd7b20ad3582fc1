"""Straight to a provider through an HTTP proxy, as a company's network may ask for."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trustme

from segue.egress.client import Egress
from segue.egress.errors import EgressError
from segue.egress.limits import EgressLimits
from segue.http.heads import Line, RequestHead
from segue.http.routes import Resolved, parse_target
from segue.sidecar.proxied_network import ProxiedNetwork
from segue.sidecar.proxy import parse_proxy
from segue.testing.provider import Answer, ScriptedProvider, provided
from tests.sidecar.proxies import ConnectProxy, connect_proxy

HEAD = RequestHead(b"POST", b"/v1/messages", (Line(b"Host", b"here"), Line(b"x-api-key", b"sk-secret")))


@asynccontextmanager
async def behind(no_proxy: str = "") -> AsyncIterator[tuple[ScriptedProvider, ConnectProxy, Egress]]:
    """A provider by a name that only the proxy can resolve."""
    authority = trustme.CA()
    server, client = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
    authority.issue_cert("provider.invalid").configure_cert(server)
    authority.configure_trust(client)
    async with (
        provided(lambda _: Answer(pieces=(b"hello",)), ssl=server) as provider,
        connect_proxy(provider.port) as proxy,
    ):
        told = parse_proxy(f"http://alice:hunter2@127.0.0.1:{proxy.port}", no_proxy)
        async with Egress(tls=client, network=ProxiedNetwork(told), limits=EgressLimits(connect_s=0.5)) as egress:
            yield provider, proxy, egress


async def ask(egress: Egress, url: str = "https://provider.invalid") -> bytes:
    reply = await egress.open(Resolved(target=parse_target(url), path=b"/v1/messages"), HEAD, b"{}")
    return b"".join([piece async for piece in reply.chunks()])


async def test_a_provider_is_reached_through_a_proxy_that_sees_nothing_but_its_name() -> None:
    async with behind() as (provider, proxy, egress):
        assert await ask(egress) == b"hello"
        assert [one.body for one in provider.requests] == [b"{}"]
        (head,) = proxy.asked
    assert head.startswith(b"CONNECT provider.invalid:443 HTTP/1.1\r\nHost: provider.invalid:443\r\n")
    assert b"Proxy-Authorization: Basic YWxpY2U6aHVudGVyMg==\r\n" in head
    assert b"sk-secret" not in head


async def test_what_no_proxy_names_is_reached_without_it() -> None:
    async with behind("localhost") as (provider, proxy, egress):
        with pytest.raises(EgressError, match="its certificate is not accepted"):  # which is for another name
            await ask(egress, f"https://localhost:{provider.port}")
        assert proxy.asked == []


@pytest.mark.parametrize(
    ("refusal", "reason"),
    [
        (b"HTTP/1.1 407 Who\r\nContent-Length: 0\r\n\r\n", r"does not connect to provider\.invalid:443 \(status 407\)"),
        (b"HTTP/1.1 103 Early\r\n\r\n", r"does not connect to provider\.invalid:443 \(status 103\)"),
        (b"SSH-2.0-none\r\n\r\n", "broke off"),
        (b"", "broke off"),
        (b"HTTP/1.1 200 " + b"x" * 70_000, "broke off"),
    ],
    ids=["refused", "no answer", "no proxy", "closed", "endless"],
)
async def test_a_proxy_that_does_not_connect_is_told_and_nothing_was_sent(refusal: bytes, reason: str) -> None:
    async with behind() as (provider, proxy, egress):
        proxy.refusal = refusal
        with pytest.raises(EgressError, match=rf"provider\.invalid cannot be reached: the proxy .*{reason}") as raised:
            await ask(egress)
        assert provider.requests == []
    assert (raised.value.code, raised.value.sent) == ("upstream_unreachable", False)
    assert "hunter2" not in str(raised.value)


async def test_a_proxy_that_is_silent_is_not_waited_for_longer_than_for_a_connection() -> None:
    left = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()
        left.set()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    told = parse_proxy(f"127.0.0.1:{server.sockets[0].getsockname()[1]}")
    async with Egress(network=ProxiedNetwork(told), limits=EgressLimits(connect_s=0.05)) as egress:
        with pytest.raises(EgressError) as raised:
            await ask(egress, "https://[fd00::1]")
    await left.wait()
    server.close()
    await server.wait_closed()
    assert (raised.value.code, raised.value.sent) == ("upstream_timeout", False)
