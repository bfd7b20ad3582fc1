"""The handshake of a WebSocket, and what its refusals say."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trustme

from segue.client.capabilities import PLAIN_SERVER
from segue.client.recovery import TurnFault
from segue.client.settings import ConnectionSettings
from segue.client.transports.http_exchange import ServerExchanges
from segue.client.transports.interface import TransportFault
from segue.client.transports.upgrade import open_socket
from segue.http.heads import Line
from segue.testing.provider import ACCEPTED, Answer, ScriptedProvider, provided
from tests.client.transports.streams import HTML, JSON, settings_for
from tests.loop_clock import LoopClock


@asynccontextmanager
async def serving(answer: Answer, **changes: Any) -> AsyncIterator[tuple[ScriptedProvider, ServerExchanges]]:  # noqa: ANN401 - fields of the settings
    async with provided(lambda _: answer) as provider:
        server = ServerExchanges(settings_for(provider, **changes))
        try:
            yield provider, server
        finally:
            await server.aclose()


async def fault_of(server: ServerExchanges) -> TurnFault:
    with pytest.raises(TransportFault) as raised:
        await open_socket(server)
    return raised.value.fault


async def test_an_upgrade_has_the_key_and_goes_to_the_responses() -> None:
    async with serving(ACCEPTED) as (provider, server):
        opened = await open_socket(server)
        opened.abort()
        (request,) = provider.requests
        assert request.target == b"/v1/responses"
        assert request.upgrades
        lines = {name.lower(): value for name, value in request.lines}
        assert lines[b"authorization"] == b"Bearer sk-of-the-test"
        assert b"sec-websocket-extensions" not in lines, "the server is on this machine"
        assert b"origin" not in lines
        assert (opened.capabilities, opened.told) == (PLAIN_SERVER, False)
        assert opened.meter.sent_bytes == len(request.raw_head)


async def test_the_answer_may_say_what_the_server_offers() -> None:
    header = Line(b"Segue-Capabilities", b'epoch="e", lanes=3, in_flight=2, extensions=(lanes)')
    accepted = Answer(status=101, reason=b"Switching Protocols", lines=(header,))
    async with serving(accepted) as (_, server):
        opened = await open_socket(server)
        opened.abort()
    assert (opened.capabilities.epoch, opened.capabilities.lanes.names, opened.told) == ("e", 3, True)


async def test_compression_is_offered_where_it_is_asked_for() -> None:
    async with serving(ACCEPTED, deflate=True) as (provider, server):
        opened = await open_socket(server)
        opened.abort()
        assert b"Sec-WebSocket-Extensions: permessage-deflate" in provider.requests[0].raw_head
        assert opened.socket.compress == 0, "the server has not taken the offer"


@pytest.mark.parametrize(
    ("url", "deflate", "offered"),
    [
        ("http://127.0.0.1:1/v1", None, False),
        ("http://[::1]:1/v1", None, False),
        ("ws://localhost/v1", None, False),
        ("https://api.openai.com/v1", None, True),
        ("wss://10.0.0.1/v1", None, True),
        ("http://localhost/v1", True, True),
        ("https://api.openai.com/v1", False, False),
    ],
)
async def test_compression_is_offered_by_default_to_servers_elsewhere(
    url: str, deflate: bool | None, offered: bool
) -> None:
    assert ServerExchanges(ConnectionSettings(base_url=url, deflate=deflate)).deflated is offered


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        (
            Answer(status=426, lines=JSON, pieces=(b'{"error":{"code":"upgrade_required","message":"m"}}',)),
            TurnFault(
                kind="upgrade_refused",
                transport="websocket",
                delivered="no",
                status=426,
                code="upgrade_required",
                message="m",
                body_kind="json",
            ),
        ),
        (
            Answer(status=404, lines=HTML, pieces=(b"<html>",)),
            TurnFault(kind="upgrade_refused", transport="websocket", delivered="no", status=404, body_kind="html"),
        ),
        (
            Answer(lines=HTML, pieces=(b"<html>welcome</html>",)),
            TurnFault(kind="upgrade_refused", transport="websocket", delivered="no", status=200, body_kind="html"),
        ),
        (
            Answer(status=301, lines=(Line(b"Location", b"/v2"),)),
            TurnFault(kind="upgrade_refused", transport="websocket", delivered="no", status=301),
        ),
        (
            Answer(
                status=503,
                lines=(*JSON, Line(b"Retry-After", b"3")),
                pieces=(b'{"error":{"message":"not with sk-of-the-test"}}',),
            ),
            TurnFault(
                kind="upgrade_refused",
                transport="websocket",
                delivered="no",
                status=503,
                message="not with …",
                retry_after_s=3.0,
                body_kind="json",
            ),
        ),
    ],
)
async def test_a_refusal_says_its_status_and_what_came_with_it(answer: Answer, fault: TurnFault) -> None:
    async with serving(answer) as (provider, server):
        assert await fault_of(server) == fault
        assert len(provider.requests) == 1, "no redirect is followed: the headers hold a key"


async def test_a_refusal_that_never_ends_is_told_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = Answer(status=426, pieces=(b"no", b""), gates={1: asyncio.Event()})
    clock = LoopClock(monkeypatch)
    async with serving(answer, connect_timeout_s=60.0) as (provider, server):
        asking = asyncio.create_task(fault_of(server))
        await provider.seen(1)
        fault = await clock.hurry(asking)
    assert (fault.kind, fault.status) == ("upgrade_refused", 426)


async def test_an_upgrade_that_nobody_answers_is_a_timeout() -> None:
    async with serving(Answer(before=asyncio.Event()), connect_timeout_s=0.1) as (provider, server):
        fault = await fault_of(server)
        await provider.abandoned(0)
    assert (fault.kind, fault.delivered) == ("timeout", "no")


async def test_a_connection_that_is_cut_in_the_handshake_has_delivered_nothing() -> None:
    async with serving(Answer(cut_before_head=True)) as (_, server):
        fault = await fault_of(server)
    assert (fault.kind, fault.delivered) == ("connection_lost", "no")


async def test_a_server_that_is_not_there_is_no_sign_against_websockets() -> None:
    async with serving(ACCEPTED) as (provider, _):
        settings = settings_for(provider)
    server = ServerExchanges(settings)
    fault = await fault_of(server)
    await server.aclose()
    assert (fault.kind, fault.delivered) == ("connect_failed", "no")


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"HTTP/1.1 101 S\r\nUpgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Accept: wrong\r\n\r\n",
    ],
)
async def test_a_handshake_that_breaks_the_rules_is_refused(head: bytes) -> None:
    async def shake(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(head)
        await reader.read()
        writer.close()
        await writer.wait_closed()
        over.set()

    over = asyncio.Event()
    listener = await asyncio.start_server(shake, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    server = ServerExchanges(ConnectionSettings(base_url=f"http://127.0.0.1:{port}/v1"))
    async with listener:
        fault = await fault_of(server)
        await server.aclose()
        await over.wait()
    assert (fault.kind, fault.status, fault.delivered) == ("upgrade_refused", 101, "no")


async def test_tls_is_verified() -> None:
    authority = trustme.CA()
    tls, trusted = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    authority.configure_trust(trusted)
    async with provided(lambda _: ACCEPTED, ssl=tls) as provider:
        settings = ConnectionSettings(base_url=f"wss://{provider.host}:{provider.port}/v1", api_key="sk-secret")
        wary, trusting = ServerExchanges(settings), ServerExchanges(settings, tls=trusted)
        fault = await fault_of(wary)
        assert provider.requests == [], "no key was sent"
        opened = await open_socket(trusting)
        opened.abort()
        await provider.abandoned(0)
        await wary.aclose()
        await trusting.aclose()
    assert (fault.kind, fault.delivered) == ("connect_failed", "no")
