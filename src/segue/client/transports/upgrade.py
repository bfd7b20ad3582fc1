"""Opens a WebSocket to a server, or says why there is none: the status, and what kind of body came with it.

A refusal is a plain HTTP answer, and its body says more than its status. A redirect is a refusal too: it is never
followed, since the headers hold a key. Not here: which refusals mean that a server has no WebSockets
(`segue.client.recovery`).
"""

from __future__ import annotations

import asyncio

import aiohttp
import msgspec
from aiohttp import ClientRequest, ClientResponse
from aiohttp.client_middlewares import ClientHandlerType
from aiohttp.connector import Connection

from segue.client.capabilities import ServerCapabilities, documented_capabilities
from segue.client.recovery import TurnFault
from segue.client.transports.capabilities_reader import told_capabilities
from segue.client.transports.http_exchange import ServerExchanges, fault_of, meter_of, read_start
from segue.client.transports.interface import TransportFault
from segue.http_client.wire_meter import WireMeter

_SWITCHING = 101
#: The largest window of permessage-deflate (RFC 7692, 7.1.2).
_WINDOW_BITS = 15
#: How long a close waits for the server's.
_CLOSE_S = 2.0


class OpenedSocket(msgspec.Struct, frozen=True):
    """A WebSocket that the server has accepted. `told` says that it described itself, or its service is documented."""

    socket: aiohttp.ClientWebSocketResponse[bool]
    connection: Connection
    meter: WireMeter
    capabilities: ServerCapabilities
    told: bool

    def abort(self) -> None:
        """Break the connection at once."""
        if self.connection.transport is not None:
            self.connection.transport.abort()
        self.connection.close()  # gives up what aiohttp holds of it


async def open_socket(server: ServerExchanges) -> OpenedSocket:
    """Shake hands. Raises `TransportFault`; whatever it says, nothing was delivered."""
    settings = server.settings
    answer = _UpgradeAnswer(server)
    try:
        async with asyncio.timeout(2 * settings.connect_timeout_s), server.new_session((answer.look,)) as session:
            socket: aiohttp.ClientWebSocketResponse[bool] = await session.ws_connect(
                server.responses_url(),
                autoping=True,
                compress=_WINDOW_BITS if server.deflated else 0,
                decode_text=False,
                max_msg_size=settings.max_message_bytes,
                timeout=aiohttp.ClientWSTimeout(ws_close=_CLOSE_S),
            )
    except aiohttp.WSServerHandshakeError as error:  # a 101 that breaks the rules
        fault = TurnFault(kind="upgrade_refused", transport="websocket", delivered="no", status=error.status)
        raise TransportFault(fault) from error
    except (OSError, aiohttp.ClientError) as error:
        raise TransportFault(fault_of(error, "websocket", delivered="no")) from error
    assert answer.connection is not None, "the handshake succeeded"
    meter = meter_of(answer.connection.transport)
    assert meter is not None, "every connection of the server has one"
    documented = documented_capabilities(server.base_url.host or "")
    told = answer.capabilities
    known = told is not None or documented.offers("lanes")
    return OpenedSocket(socket, answer.connection, meter, told or documented, known)


class _UpgradeAnswer:
    """Looks at the answer to one upgrade before aiohttp does, which drops a refusal's body and follows redirects."""

    def __init__(self, server: ServerExchanges) -> None:
        self._server = server
        self.capabilities: ServerCapabilities | None = None
        self.connection: Connection | None = None

    async def look(self, request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        """Pass a 101 on; raise `TransportFault` for anything else."""
        response = await handler(request)
        if response.status == _SWITCHING:
            self.capabilities = told_capabilities(response)
            self.connection = response.connection
            return response
        try:
            data = await read_start(response, self._server.settings.connect_timeout_s)
        finally:
            response.close()
        fault = self._server.refused(response.status, response.headers, data, transport="websocket").fault
        raise TransportFault(msgspec.structs.replace(fault, kind="upgrade_refused", delivered="no"))
