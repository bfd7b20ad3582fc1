"""Sockets of a scripted provider, opened as an upstream opens them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import aiohttp
import msgspec
from aiohttp import web
from yarl import URL

from segue.http_client.connector import DesyncSafeConnector
from segue.http_client.websocket_opening import OpenedWebSocket, open_websocket
from segue.http_client.wire_meter import WireMeter
from segue.testing.provider import ACCEPTED, MessageScript, ScriptedProvider, SocketAnswer, provided
from segue.upstreams.provider_socket import SocketEvents
from segue.upstreams.socket_lanes import SocketOwner

OWNER = SocketOwner("ann", b"m")
CREATED = b'{"type":"response.created","response":{"id":"up_1"}}'
DELTA = b'{"type":"response.output_text.delta","delta":"x"}'
COMPLETED = b'{"type":"response.completed","response":{"id":"up_1"}}'


class SocketOpener:
    """Opens sockets to one provider."""

    def __init__(self, url: str, *, max_message_bytes: int) -> None:
        self.url = URL(url)
        self.connector = DesyncSafeConnector(WireMeter())
        self._max_message_bytes = max_message_bytes

    async def open(self) -> OpenedWebSocket:
        """Open another."""
        return await open_websocket(
            lambda middlewares: aiohttp.ClientSession(
                connector=self.connector, connector_owner=False, middlewares=middlewares
            ),
            self.url,
            patience_s=20.0,
            max_message_bytes=self._max_message_bytes,
            autoping=False,
        )


@asynccontextmanager
async def accepting(
    answer: SocketAnswer | MessageScript, *, max_message_bytes: int = 1 << 20
) -> AsyncIterator[tuple[SocketOpener, ScriptedProvider]]:
    """A provider that answers each message so, and what opens sockets to it."""
    script = (lambda _: answer) if isinstance(answer, SocketAnswer) else answer
    async with provided(lambda _: ACCEPTED, script) as provider:
        opener = SocketOpener(provider.url, max_message_bytes=max_message_bytes)
        try:
            yield opener, provider
        finally:
            await opener.connector.close()


@asynccontextmanager
async def listening(
    serve: Callable[[web.Request], Awaitable[web.WebSocketResponse]],
) -> AsyncIterator[str]:
    """A server that does to each socket what the function says; yields its URL."""
    application = web.Application()
    application.router.add_get("/", serve)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/"
    finally:
        await runner.cleanup()


def event(kind: str, **more: object) -> bytes:
    """An event as it stands on the wire."""
    return msgspec.json.encode({"type": kind, **more})


def events_of(over: asyncio.Event) -> SocketEvents:
    """Callbacks of a socket, of which only its end is of interest."""
    return SocketEvents(lambda _: over.set(), lambda _, __: None, lambda _: None, lambda _: None)
