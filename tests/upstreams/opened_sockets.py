"""Sockets of a scripted provider, opened as an upstream opens them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import msgspec
from yarl import URL

from segue.http_client.connector import DesyncSafeConnector
from segue.http_client.websocket_opening import OpenedWebSocket, open_websocket
from segue.http_client.wire_meter import WireMeter
from segue.testing.provider import ACCEPTED, MessageScript, ScriptedProvider, SocketAnswer, provided
from segue.upstreams.idle_sockets import SocketOwner

OWNER = SocketOwner("ann", b"m")
CREATED = b'{"type":"response.created","response":{"id":"up_1"}}'
DELTA = b'{"type":"response.output_text.delta","delta":"x"}'
COMPLETED = b'{"type":"response.completed","response":{"id":"up_1"}}'


class SocketOpener:
    """Opens sockets to one provider."""

    def __init__(self, provider: ScriptedProvider, *, max_message_bytes: int) -> None:
        self.provider = provider
        self.connector = DesyncSafeConnector(WireMeter())
        self._max_message_bytes = max_message_bytes

    async def open(self) -> OpenedWebSocket:
        """Open another."""
        return await open_websocket(
            lambda middlewares: aiohttp.ClientSession(
                connector=self.connector, connector_owner=False, middlewares=middlewares
            ),
            URL(self.provider.url),
            patience_s=20.0,
            max_message_bytes=self._max_message_bytes,
        )


@asynccontextmanager
async def accepting(
    answer: SocketAnswer | MessageScript, *, max_message_bytes: int = 1 << 20
) -> AsyncIterator[SocketOpener]:
    """A provider that answers each message so, and what opens sockets to it."""
    script = (lambda _: answer) if isinstance(answer, SocketAnswer) else answer
    async with provided(lambda _: ACCEPTED, script) as provider:
        opener = SocketOpener(provider, max_message_bytes=max_message_bytes)
        try:
            yield opener
        finally:
            await opener.connector.close()


def event(kind: str, **more: object) -> bytes:
    """An event as it stands on the wire."""
    return msgspec.json.encode({"type": kind, **more})
