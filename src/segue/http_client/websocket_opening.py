"""Opens a WebSocket to a server, or says with what answer the server refused it.

aiohttp drops the body of a refusal, which says more than its status, and follows redirects. Here a redirect is a
refusal too, and never followed, since the headers hold a key. Not here: what a refusal means.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

import aiohttp
import msgspec
from aiohttp import ClientRequest, ClientResponse
from aiohttp.client_middlewares import ClientHandlerType, ClientMiddlewareType
from aiohttp.connector import Connection
from multidict import CIMultiDictProxy
from yarl import URL

from segue.http_client.reply_body import read_start
from segue.http_client.wire_meter import WireMeter, meter_of

_SWITCHING = 101
#: The largest window of permessage-deflate (RFC 7692, 7.1.2).
_WINDOW_BITS = 15
#: How long a close waits for the server's.
_CLOSE_S = 2.0
#: How much of the body of a refusal is read.
_MAX_BODY_BYTES = 64 * 1024


class UpgradeRefused(Exception):
    """The server answered the handshake with something else than 101: nothing was delivered."""

    def __init__(self, status: int, headers: CIMultiDictProxy[str], body: bytes) -> None:
        super().__init__(f"the server answered the upgrade with {status}")
        self.status = status
        self.headers = headers
        self.body = body


class OpenedWebSocket(msgspec.Struct, frozen=True):
    """A WebSocket that the server has accepted, the meter of its connection, and the header lines of the answer."""

    socket: aiohttp.ClientWebSocketResponse[bool]
    connection: Connection
    meter: WireMeter
    headers: CIMultiDictProxy[str]

    def abort(self) -> None:
        """Break the connection at once."""
        if self.connection.transport is not None:
            self.connection.transport.abort()
        self.connection.close()  # gives up what aiohttp holds of it


async def open_websocket(
    new_session: Callable[[Sequence[ClientMiddlewareType]], aiohttp.ClientSession],
    url: URL,
    *,
    patience_s: float,
    max_message_bytes: int,
    deflated: bool = False,
    autoping: bool = True,
    headers: Mapping[str, str] | None = None,
) -> OpenedWebSocket:
    """Shake hands; the connections of `new_session` must have meters. Messages come as bytes.

    With `autoping`, pings are answered while a message is waited for; else they come as messages do.

    Raises:
        UpgradeRefused: the server answered something else.
        OSError, aiohttp.ClientError: it did not answer, or its 101 breaks the rules (`WSServerHandshakeError`).
    """
    answer = _UpgradeAnswer(patience_s)
    async with asyncio.timeout(2 * patience_s), new_session((answer.look,)) as session:
        socket: aiohttp.ClientWebSocketResponse[bool] = await session.ws_connect(
            url,
            autoping=autoping,
            compress=_WINDOW_BITS if deflated else 0,
            decode_text=False,
            headers=headers,
            max_msg_size=max_message_bytes,
            timeout=aiohttp.ClientWSTimeout(ws_close=_CLOSE_S),
        )
    connection, head = answer.connection, answer.headers
    assert connection is not None, "the handshake succeeded"
    assert head is not None, "as above"
    meter = meter_of(connection.transport)
    assert meter is not None, "the caller's connector meters"
    return OpenedWebSocket(socket, connection, meter, head)


class _UpgradeAnswer:
    """Looks at the answer to one upgrade before aiohttp does."""

    def __init__(self, patience_s: float) -> None:
        self._patience_s = patience_s
        self.connection: Connection | None = None
        self.headers: CIMultiDictProxy[str] | None = None

    async def look(self, request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        """Pass a 101 on; raise `UpgradeRefused` for anything else."""
        response = await handler(request)
        if response.status == _SWITCHING:
            self.connection, self.headers = response.connection, response.headers
            return response
        try:
            body = await read_start(response, limit=_MAX_BODY_BYTES, patience_s=self._patience_s)
        finally:
            response.close()
        raise UpgradeRefused(response.status, response.headers, body)
