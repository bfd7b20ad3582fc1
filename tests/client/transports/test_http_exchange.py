"""Requests to one server: its address, what is sent along, and what it means that no answer came."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable
from typing import Any

import aiohttp
import pytest
from aiohttp.client_reqrep import ConnectionKey

from segue.client.recovery import Delivered, FaultKind, TurnFault
from segue.client.settings import ConnectionSettings
from segue.client.transports.connection_pool import WebSocketTransport
from segue.client.transports.http import HttpTransport
from segue.client.transports.http_exchange import ServerExchanges, fault_of, silence_of
from segue.client.transports.interface import TransportFault
from segue.testing.provider import Answer, provided
from tests.client.transports.streams import CREATE, drained, response, streamed

KEY = ConnectionKey("api.example", 443, True, True, None, None, None)


def exchanges(base_url: str, **settings: Any) -> ServerExchanges:  # noqa: ANN401 - fields of the settings
    return ServerExchanges(ConnectionSettings(base_url=base_url, **settings))


@pytest.mark.parametrize(
    ("base_url", "responses", "one"),
    [
        ("https://api.example/v1", "https://api.example/v1/responses", "https://api.example/v1/responses/resp_1"),
        ("wss://api.example/v1", "https://api.example/v1/responses", "https://api.example/v1/responses/resp_1"),
        ("ws://[::1]:8080/v1", "http://[::1]:8080/v1/responses", "http://[::1]:8080/v1/responses/resp_1"),
        (
            "https://api.example/openai?api-version=2",
            "https://api.example/openai/responses?api-version=2",
            "https://api.example/openai/responses/resp_1?api-version=2",
        ),
    ],
)
async def test_where_responses_are(base_url: str, responses: str, one: str) -> None:
    server = exchanges(base_url)
    assert str(server.responses_url()) == responses
    assert str(server.responses_url(response_id="resp_1")) == one


async def test_an_id_stays_one_part_of_the_path() -> None:
    url = exchanges("https://api.example/v1").responses_url(response_id="../models?x#y")
    assert url.raw_path.startswith("/v1/responses/") or ".." not in url.raw_path
    assert url.host == "api.example"


@pytest.mark.parametrize(
    ("base_url", "words"),
    [
        ("ftp://api.example/v1", "no URL of a server"),
        ("api.example/v1", "no URL of a server"),
        ("https:///v1", "no URL of a server"),
        ("https://ann:secret@api.example/v1", "must not hold a user name"),
    ],
)
async def test_a_base_url_that_is_none(base_url: str, words: str) -> None:
    with pytest.raises(ValueError, match=words) as raised:
        exchanges(base_url)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    ("base_url", "deflate", "deflated"),
    [
        ("https://api.example/v1", None, True),
        ("http://127.0.0.1:4747/v1", None, False),
        ("http://[::1]:4747/v1", None, False),
        ("http://localhost:4747/v1", None, False),
        ("http://localhost:4747/v1", True, True),
        ("https://api.example/v1", False, False),
    ],
)
async def test_compression_is_offered_where_there_is_a_way_to_go(
    base_url: str, deflate: bool | None, deflated: bool
) -> None:
    assert exchanges(base_url, deflate=deflate).deflated is deflated


async def test_the_bound_of_a_body_is_kept() -> None:
    answer = Answer(pieces=(b"x" * 1_000, b"y" * 1_000))
    async with provided(lambda _: answer) as provider:
        server = exchanges(provider.url)
        try:
            response = await server.send("GET", server.responses_url(), accept="application/json")
            assert await server.read(response, 2_000) == b"x" * 1_000 + b"y" * 1_000
            response = await server.send("GET", server.responses_url(), accept="application/json")
            with pytest.raises(TransportFault) as raised:
                await server.read(response, 1_999)
            assert raised.value.fault.kind == "unreadable"
        finally:
            await server.aclose()


async def test_the_caller_may_set_every_header() -> None:
    async with provided(lambda _: Answer()) as provider:
        lines = (("authorization", "Token t"), ("X-Org", "o"))
        server = exchanges(provider.url, api_key="sk-1", headers=lines)
        try:
            response = await server.send("GET", server.responses_url(), accept="application/json")
            await server.read(response, 10)
        finally:
            await server.aclose()
        head = provider.requests[0].raw_head
    assert b"Token t" in head
    assert b"sk-1" not in head
    assert b"X-Org: o" in head
    assert b"Accept-Encoding: identity" in head


@pytest.mark.parametrize(
    ("error", "kind", "delivered"),
    [
        (aiohttp.ClientConnectorError(KEY, OSError(111, "refused")), "connect_failed", "no"),
        (aiohttp.ClientConnectorDNSError(KEY, OSError(-2, "unknown")), "connect_failed", "no"),
        (aiohttp.ClientConnectorCertificateError(KEY, ssl.CertificateError("self-signed")), "connect_failed", "no"),
        (aiohttp.ConnectionTimeoutError(), "connect_failed", "no"),
        (TimeoutError(), "timeout", "maybe"),
        (aiohttp.ServerDisconnectedError(), "connection_lost", "maybe"),
        (ConnectionResetError(), "connection_lost", "maybe"),
        (aiohttp.ClientPayloadError(), "connection_lost", "maybe"),
        (aiohttp.InvalidURL("x"), "unreadable", "maybe"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
async def test_what_an_error_means(error: Exception, kind: FaultKind, delivered: Delivered) -> None:
    assert isinstance(error, OSError | aiohttp.ClientError)
    fault = fault_of(error, "http")
    assert (fault.kind, fault.delivered) == (kind, delivered)
    assert "api.example" not in (fault.message or "")


async def test_a_connection_that_is_not_there_has_no_silence() -> None:
    assert silence_of(None) is None


# --- a proxy ---------------------------------------------------------------------------------------------------------


async def test_requests_go_through_a_proxy() -> None:
    """It gets the whole address, and the password that is for it alone."""
    async with provided(lambda _: streamed(*response())) as proxy:
        settings = ConnectionSettings(
            base_url="http://responses.test/v1", api_key="sk-1", proxy=f"http://u:p@127.0.0.1:{proxy.port}"
        )
        transport = HttpTransport(settings)
        events, fault = await drained(await transport.create(CREATE, lane=1, connection=0))
        await transport.aclose()
    assert (events, fault) == (list(response()), None)
    (request,) = proxy.requests
    assert request.target == b"http://responses.test/v1/responses"
    assert b"Proxy-Authorization: Basic dTpw" in request.raw_head


async def through(port: int, kind: type[HttpTransport | WebSocketTransport]) -> TurnFault:
    """What becomes of a request that is to go through a proxy at this port."""
    transport = kind(ConnectionSettings(base_url="https://responses.test/v1", proxy=f"http://127.0.0.1:{port}"))
    asked: Awaitable[object] = (
        transport.create(CREATE, lane=1, connection=0)
        if isinstance(transport, HttpTransport)
        else transport.connect(lane=1)
    )
    with pytest.raises(TransportFault) as raised:
        await asked
    await transport.aclose()
    return raised.value.fault


@pytest.mark.parametrize("kind", [HttpTransport, WebSocketTransport])
async def test_a_proxy_that_does_not_connect_has_delivered_nothing(
    kind: type[HttpTransport | WebSocketTransport],
) -> None:
    async with provided(lambda _: Answer(status=407)) as proxy:
        refused = await through(proxy.port, kind)
    gone = await through(proxy.port, kind)
    for fault, message in ((refused, "The proxy answered with status 407"), (gone, "The proxy cannot be reached.")):
        assert (fault.kind, fault.delivered) == ("connect_failed", "no")
        assert (fault.message or "").startswith(message)


@pytest.mark.parametrize("proxy", ["https://h:1", "h:1", "http://", "http://u:secret@[", "socks5://u:secret@h"])
def test_what_is_no_http_proxy_is_refused_and_not_repeated(proxy: str) -> None:
    with pytest.raises(ValueError, match="must be an HTTP proxy") as raised:
        HttpTransport(ConnectionSettings(base_url="https://responses.test/v1", proxy=proxy))
    assert "secret" not in str(raised.value)
