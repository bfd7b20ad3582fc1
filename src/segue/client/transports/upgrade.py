"""Opens a WebSocket to a server, or says why there is none: the status, and what kind of body came with it.

A refusal is a plain HTTP answer, and its body says more than its status. Not here: the handshake itself
(`segue.http_client.websocket_opening`), and which refusals mean that a server has no WebSockets
(`segue.client.recovery`).
"""

from __future__ import annotations

import aiohttp
import msgspec

from segue.client.capabilities import ServerCapabilities, documented_capabilities
from segue.client.recovery import TurnFault
from segue.client.transports.capabilities_reader import told_capabilities
from segue.client.transports.http_exchange import ServerExchanges, fault_of
from segue.client.transports.interface import TransportFault
from segue.http_client.websocket_opening import OpenedWebSocket, UpgradeRefused, open_websocket


class OpenedSocket(OpenedWebSocket, frozen=True):
    """A WebSocket that the server has accepted. `told` says that it described itself, or its service is documented."""

    capabilities: ServerCapabilities
    told: bool


async def open_socket(server: ServerExchanges) -> OpenedSocket:
    """Shake hands. Raises `TransportFault`; whatever it says, nothing was delivered."""
    settings = server.settings
    try:
        opened = await open_websocket(
            server.new_session,
            server.responses_url(),
            patience_s=settings.connect_timeout_s,
            max_message_bytes=settings.max_message_bytes,
            deflated=server.deflated,
        )
    except UpgradeRefused as refused:
        fault = server.refused(refused.status, refused.headers, refused.body, transport="websocket").fault
        raise TransportFault(msgspec.structs.replace(fault, kind="upgrade_refused", delivered="no")) from refused
    except aiohttp.WSServerHandshakeError as error:  # a 101 that breaks the rules
        fault = TurnFault(kind="upgrade_refused", transport="websocket", delivered="no", status=error.status)
        raise TransportFault(fault) from error
    except (OSError, aiohttp.ClientError) as error:
        raise TransportFault(fault_of(error, "websocket", delivered="no")) from error
    documented = documented_capabilities(server.base_url.host or "")
    told = told_capabilities(opened.headers)
    known = told is not None or documented.offers("lanes")
    return OpenedSocket(opened.socket, opened.connection, opened.meter, opened.headers, told or documented, known)
