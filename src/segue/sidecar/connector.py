"""Opening the tunnel's WebSocket at one gateway, and why that did not work.

TLS is verified as ever; no proxy of the environment is used and no redirect taken. Not here: which gateway is tried,
and when (`segue.sidecar.session`), and what the messages hold.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple
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
#: What may wait in our own buffer of the socket: a heartbeat cannot overtake what is there.
_UNSENT_BYTES = 2 * MAX_PACKET_BYTES
_CLOSE_S = 1.0

# RFC 6455, 5.2: two bytes, more for longer payloads, and the mask of what a client sends.
_SHORT = 125
_MEDIUM = 65535


class UnreachableError(Exception):
    """There is no gateway there at the moment; trying again may help."""


class RefusedError(Exception):
    """A gateway, or something else, is there and does not want us: trying again soon will not help."""

    def __init__(self, code: FailureCode, message: str) -> None:
        super().__init__(message)
        self.code: FailureCode = code


class Settings(NamedTuple):
    """How gateways are reached."""

    key: str | None = None
    cafile: str | None = None
    connect_s: float = 10.0


class Socket:
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
    def is_closed(self) -> bool:
        """Nothing can be sent any more."""
        return self._socket.closed

    async def close(self, reason: str = "") -> None:
        """Close in good order, if the peer does so soon."""
        code = aiohttp.WSCloseCode.PROTOCOL_ERROR if reason else aiohttp.WSCloseCode.OK
        await self._socket.close(code=code, message=reason.encode()[:120])

    def abort(self) -> None:
        """Drop the connection: nobody is there to close it with."""
        self._transport.abort()


def tunnel_url(gateway: str) -> str:
    """Return the address of a gateway's tunnel; `ws`, `wss`, `http` and `https` will do, with a path or without.

    Raises:
        ValueError: this is no address of a gateway.
    """
    parts = urlsplit(gateway)
    scheme = _SCHEMES.get(parts.scheme.lower())
    if scheme is None or parts.hostname is None or parts.query or parts.fragment or parts.username is not None:
        raise ValueError(f"{gateway!r} is not the address of a gateway, such as wss://gateway.example.com")
    _ = parts.port  # raises ValueError for one that is out of range
    path = parts.path.rstrip("/")
    return urlunsplit((scheme, parts.netloc, path if path.endswith(_PATH) else path + _PATH, "", ""))


def frame_bytes(size: int, *, is_masked: bool) -> int:
    """Return what a message of this size takes as one WebSocket frame."""
    head = 2 if size <= _SHORT else 4 if size <= _MEDIUM else 10
    return size + head + 4 * is_masked


def tls_context(cafile: str | None) -> ssl.SSLContext:
    """Return what verifies gateways: by the system's certificates, or by those of a file alone."""
    return ssl.create_default_context(cafile=cafile)


@asynccontextmanager
async def dialed(url: str, session_name: str, settings: Settings, context: ssl.SSLContext) -> AsyncIterator[Socket]:
    """Open the WebSocket around a block.

    Raises:
        UnreachableError, RefusedError: it was not opened.
    """
    headers = {"Segue-Session": session_name}
    if settings.key is not None:
        headers["Authorization"] = f"Bearer {settings.key}"
    transports: list[asyncio.Transport] = []

    async def look(response: aiohttp.ClientResponse) -> None:
        transports.append(await _accepted(response, url))

    connector = aiohttp.TCPConnector(ssl=context, force_close=True)
    no_limit = aiohttp.ClientTimeout(total=None)  # the link knows when it is dead
    async with aiohttp.ClientSession(
        connector=connector, raise_for_status=look, trust_env=False, timeout=no_limit
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
            raise RefusedError(
                "segue_gateway_refused", f"The gateway's certificate is not trusted: {_told(error)}"
            ) from None
        except aiohttp.WSServerHandshakeError as error:
            raise RefusedError("segue_gateway_refused", f"This is no gateway: {error.message}.") from None
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise UnreachableError(_told(error)) from None
        try:
            if socket.protocol != SUBPROTOCOL:
                raise RefusedError("segue_gateway_refused", f"The gateway does not speak {SUBPROTOCOL}.")
            yield Socket(socket, transports[-1])
        finally:
            await socket.close()


async def _accepted(response: aiohttp.ClientResponse, url: str) -> asyncio.Transport:
    """Look at the answer to the upgrade before aiohttp does: it would throw the reason away."""
    if response.url != URL(url):
        raise RefusedError(
            "segue_gateway_refused", "The gateway's address redirects to another, which is not followed."
        )
    if response.status == _SWITCHING_PROTOCOLS:
        connection = response.connection
        transport = None if connection is None else connection.transport
        if transport is None:
            raise UnreachableError("the connection is gone already")
        return transport
    message = await _reason(response)
    if response.status >= _FIRST_SERVER_ERROR:
        raise UnreachableError(message)
    code: FailureCode = "segue_invalid_key" if response.status in _KEY_STATUSES else "segue_gateway_refused"
    raise RefusedError(code, message)


async def _reason(response: aiohttp.ClientResponse) -> str:
    """Return what the gateway says for itself in its JSON body, if it is one."""
    body = await response.content.read(64 * 1024)
    try:
        message = msgspec.json.decode(body, type=_Refusal).error.message
    except msgspec.MsgspecError:
        return f"It answered with status {response.status} instead of opening a tunnel."
    return re.sub(r"[^\x20-\x7e]+", " ", message)[:_MAX_MESSAGE_LENGTH]


class _Error(msgspec.Struct):
    message: str


class _Refusal(msgspec.Struct):
    """The part of the gateway's error bodies that is read."""

    error: _Error


def _told(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"cannot connect to {error.host}:{error.port}: {error.os_error.strerror or error.os_error}"
    return str(error) or type(error).__name__
