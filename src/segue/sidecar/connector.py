"""The connection of the tunnel's WebSocket to one gateway, and the reasons why it fails.

TLS is verified as usual. Proxies of the environment are not used, and redirects are not followed. Not here: which
gateway is tried, and when (`segue.sidecar.session`), and what the messages hold.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit, urlunsplit

import aiohttp
import msgspec
from yarl import URL

from segue.http.error_replies import FailureCode
from segue.tunnel.frames import MAX_PACKET_BYTES, SUBPROTOCOL

_PATH = "/segue/tunnel"
_SCHEMES = {"ws": "ws", "wss": "wss", "http": "ws", "https": "wss"}
_SWITCHING_PROTOCOLS = 101
_KEY_STATUSES = frozenset({401, 403})
_FIRST_SERVER_ERROR = 500
_MAX_MESSAGE_LENGTH = 300
#: How much may wait in the socket's buffer in this process: a heartbeat cannot overtake what is there.
_UNSENT_BYTES = 2 * MAX_PACKET_BYTES
_CLOSE_S = 1.0

# RFC 6455, 5.2: two bytes, more for longer payloads, and the mask of what a client sends.
_SHORT = 125
_MEDIUM = 65535


class GatewayUnreachableError(Exception):
    """No gateway is there at the moment; trying again may help."""


class GatewayRefusedError(Exception):
    """A gateway, or something else, is there and refuses the session: trying again soon will not help."""

    def __init__(self, code: FailureCode, message: str) -> None:
        super().__init__(message)
        self.code: FailureCode = code


class ConnectorSettings(msgspec.Struct, frozen=True):
    """How to reach gateways."""

    key: str | None = None
    cafile: str | None = None
    connect_s: float = 10.0


class TunnelSocket:
    """One open WebSocket to a gateway."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse[bool], transport: asyncio.Transport) -> None:
        self._socket = socket
        self._transport = transport
        transport.set_write_buffer_limits(high=_UNSENT_BYTES)

    async def receive(self) -> bytes | None:
        """Return the next packet; None when there will be none."""
        message = await self._socket.receive()
        return message.data if message.type is aiohttp.WSMsgType.BINARY else None

    async def send(self, packet: bytes) -> None:
        """Send a packet; returns when the socket has room. `ConnectionError`: it is closed."""
        await self._socket.send_bytes(packet)

    @property
    def closed(self) -> bool:
        """Nothing can be sent any more."""
        return self._socket.closed

    async def close(self, reason: str = "") -> None:
        """Close in good order, if the peer does so soon."""
        code = aiohttp.WSCloseCode.PROTOCOL_ERROR if reason else aiohttp.WSCloseCode.OK
        await self._socket.close(code=code, message=reason.encode()[:120])

    def abort(self) -> None:
        """Drop the connection without a close handshake."""
        self._transport.abort()


def tunnel_url(gateway: str) -> str:
    """Return the address of a gateway's tunnel. The scheme may be `ws`, `wss`, `http` or `https`; the path is optional.

    Raises:
        ValueError: this is not the address of a gateway.
    """
    parts = urlsplit(gateway)
    scheme = _SCHEMES.get(parts.scheme.lower())
    if scheme is None or parts.hostname is None or parts.query or parts.fragment or parts.username is not None:
        raise ValueError(f"{gateway!r} is not the address of a gateway, such as wss://gateway.example.com")
    _ = parts.port  # raises ValueError for one that is out of range
    path = parts.path.rstrip("/")
    return urlunsplit((scheme, parts.netloc, path if path.endswith(_PATH) else path + _PATH, "", ""))


def frame_bytes(size: int, *, masked: bool) -> int:
    """Return how many bytes a message of this size takes as one WebSocket frame."""
    head = 2 if size <= _SHORT else 4 if size <= _MEDIUM else 10
    return size + head + 4 * masked


def tls_context(cafile: str | None) -> ssl.SSLContext:
    """Return the context that verifies gateways: by the system's certificates, or only by those of a file."""
    return ssl.create_default_context(cafile=cafile)


@asynccontextmanager
async def connected(
    url: str, session_name: str, settings: ConnectorSettings, context: ssl.SSLContext
) -> AsyncIterator[TunnelSocket]:
    """Open the WebSocket around a block.

    Raises:
        GatewayUnreachableError, GatewayRefusedError: it was not opened.
    """
    headers = {"Segue-Session": session_name}
    if settings.key is not None:
        headers["Authorization"] = f"Bearer {settings.key}"
    transports: list[asyncio.Transport] = []

    async def check(response: aiohttp.ClientResponse) -> None:
        transports.append(await _accepted(response, url))

    connector = aiohttp.TCPConnector(ssl=context, force_close=True)
    no_limit = aiohttp.ClientTimeout(total=None)  # the link knows when it is dead
    async with aiohttp.ClientSession(
        connector=connector, raise_for_status=check, trust_env=False, timeout=no_limit
    ) as client:
        try:
            async with asyncio.timeout(settings.connect_s):
                socket = await client.ws_connect(
                    url,
                    protocols=(SUBPROTOCOL,),
                    headers=headers,
                    max_msg_size=MAX_PACKET_BYTES + 1,  # aiohttp refuses a message of exactly the limit it is given
                    timeout=aiohttp.ClientWSTimeout(ws_close=_CLOSE_S),
                )
        except aiohttp.ClientConnectorCertificateError as error:
            raise GatewayRefusedError(
                "segue_gateway_refused", f"The gateway's certificate is not trusted: {_message_of(error)}"
            ) from None
        except aiohttp.WSServerHandshakeError as error:
            raise GatewayRefusedError("segue_gateway_refused", f"This is no gateway: {error.message}.") from None
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise GatewayUnreachableError(_message_of(error)) from None
        try:
            if socket.protocol != SUBPROTOCOL:
                raise GatewayRefusedError("segue_gateway_refused", f"The gateway does not speak {SUBPROTOCOL}.")
            yield TunnelSocket(socket, transports[-1])
        finally:
            await socket.close()


async def _accepted(response: aiohttp.ClientResponse, url: str) -> asyncio.Transport:
    """Check the answer to the upgrade before aiohttp does, which would drop the reason of a refusal."""
    if response.url != URL(url):
        raise GatewayRefusedError(
            "segue_gateway_refused", "The gateway's address redirects to another, which is not followed."
        )
    if response.status == _SWITCHING_PROTOCOLS:
        connection = response.connection
        transport = None if connection is None else connection.transport
        if transport is None:
            raise GatewayUnreachableError("the connection is gone already")
        return transport
    message = await _reason(response)
    if response.status >= _FIRST_SERVER_ERROR:
        raise GatewayUnreachableError(message)
    code: FailureCode = "segue_invalid_key" if response.status in _KEY_STATUSES else "segue_gateway_refused"
    raise GatewayRefusedError(code, message)


async def _reason(response: aiohttp.ClientResponse) -> str:
    """Return the message of a gateway's JSON body, or one that names the status."""
    body = await response.content.read(64 * 1024)
    try:
        message = msgspec.json.decode(body, type=_RefusalBody).error.message
    except msgspec.MsgspecError:
        return f"It answered with status {response.status} instead of opening a tunnel."
    return re.sub(r"[^\x20-\x7e]+", " ", message)[:_MAX_MESSAGE_LENGTH]


class _ErrorMessage(msgspec.Struct):
    message: str


class _RefusalBody(msgspec.Struct):
    """The part that we read of a gateway's error body."""

    error: _ErrorMessage


def _message_of(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"cannot connect to {error.host}:{error.port}: {error.os_error.strerror or error.os_error}"
    return str(error) or type(error).__name__
