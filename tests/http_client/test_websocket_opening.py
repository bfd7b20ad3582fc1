"""The handshake of a WebSocket: what is sent, what a refusal says, and what a broken handshake raises."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import WSMsgType
from aiohttp.client_middlewares import ClientMiddlewareType
from yarl import URL

from segue.http.heads import Line
from segue.http_client.connector import DesyncSafeConnector
from segue.http_client.websocket_opening import OpenedWebSocket, UpgradeRefused, open_websocket
from segue.http_client.wire_meter import WireMeter
from segue.testing.provider import ACCEPTED, Answer, ScriptedProvider, SocketAnswer, provided
from tests.loop_clock import LoopClock


@asynccontextmanager
async def serving(answer: Answer, *messages: SocketAnswer) -> AsyncIterator[tuple[ScriptedProvider, Opener]]:
    async with provided(lambda _: answer, lambda _: messages[0] if messages else SocketAnswer()) as provider:
        opener = Opener(provider.url)
        try:
            yield provider, opener
        finally:
            await opener.connector.close()


class Opener:
    def __init__(self, url: str) -> None:
        self.url = URL(url)
        self.meter = WireMeter()
        self.connector = DesyncSafeConnector(self.meter)

    def session(self, middlewares: Sequence[ClientMiddlewareType]) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(connector=self.connector, connector_owner=False, middlewares=middlewares)

    async def open(
        self, *, deflated: bool = False, headers: Mapping[str, str] | None = None, patience_s: float = 20.0
    ) -> OpenedWebSocket:
        return await open_websocket(
            self.session, self.url, patience_s=patience_s, max_message_bytes=1000, deflated=deflated, headers=headers
        )


async def test_an_accepted_upgrade_has_its_headers_and_its_meter() -> None:
    accepted = Answer(status=101, reason=b"Switching Protocols", lines=(Line(b"X-Told", b"yes"),))
    async with serving(accepted, SocketAnswer(messages=(b"hello",))) as (provider, opener):
        opened = await opener.open(headers={"X-Asked": "a"})
        await opened.socket.send_str("hi")
        message = await opened.socket.receive()
        opened.abort()
        (request,) = provider.requests
    assert request.upgrades
    assert (b"X-Asked", b"a") in {(name, value) for name, value in request.lines}
    assert opened.headers["x-told"] == "yes"
    assert (message.type, message.data) == (WSMsgType.TEXT, b"hello")
    assert opened.meter.sent_bytes > len(request.raw_head)


@pytest.mark.parametrize("deflated", [True, False])
async def test_compression_is_offered_where_it_is_asked_for(*, deflated: bool) -> None:
    async with serving(ACCEPTED) as (provider, opener):
        (await opener.open(deflated=deflated)).abort()
        assert (b"Sec-WebSocket-Extensions: permessage-deflate" in provider.requests[0].raw_head) is deflated


@pytest.mark.parametrize("status", [200, 301, 426, 503])
async def test_a_refusal_has_its_status_and_its_body(status: int) -> None:
    answer = Answer(status=status, lines=(Line(b"Location", b"/v2"),), pieces=(b"not ", b"here"))
    async with serving(answer) as (provider, opener):
        with pytest.raises(UpgradeRefused) as raised:
            await opener.open()
        assert len(provider.requests) == 1, "no redirect is followed: the headers hold a key"
    refused = raised.value
    assert (refused.status, refused.body, refused.headers["location"]) == (status, b"not here", "/v2")


async def test_a_refusal_that_never_ends_is_told_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, clock = b"HTTP/1.1 426 Upgrade Required\r\nContent-Length: 9\r\n\r\nno", LoopClock(monkeypatch)

    async def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(begun)
        await reader.read()
        writer.close()

    listening = await asyncio.start_server(begin, "127.0.0.1", 0)
    opener = Opener(f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}")
    opening = asyncio.create_task(opener.open(patience_s=60.0))
    while opener.meter.received_bytes < len(begun):  # noqa: ASYNC110 - it tells nobody
        await asyncio.sleep(0.001)
    with pytest.raises(UpgradeRefused) as raised:
        await clock.hurry(opening)
    assert (raised.value.status, raised.value.body) == (426, b"no")
    await opener.connector.close()
    listening.close()
    await listening.wait_closed()


async def test_an_upgrade_that_nobody_answers_ends_in_time() -> None:
    async with serving(Answer(before=asyncio.Event())) as (provider, opener):
        with pytest.raises(TimeoutError):
            await opener.open(patience_s=0.05)
        await provider.abandoned(0)


async def test_a_101_that_breaks_the_rules_is_no_websocket() -> None:
    async def shake(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")
        await reader.read()
        writer.close()
        await writer.wait_closed()
        over.set()

    over = asyncio.Event()
    listener = await asyncio.start_server(shake, "127.0.0.1", 0)
    opener = Opener(f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}")
    async with listener:
        with pytest.raises(aiohttp.WSServerHandshakeError):
            await opener.open()
        await opener.connector.close()
        await over.wait()
