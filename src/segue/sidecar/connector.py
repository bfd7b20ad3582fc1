"""The connection of the tunnel's WebSocket to one gateway, and the reasons why it fails.

TLS is verified as usual, behind a proxy too, and redirects are not followed. Not here: which proxy
(`segue.sidecar.proxy`), what an answer other than 101 means (`segue.sidecar.upgrade_answer`), by which way a gateway is
reached (`segue.sidecar.dialer`), which one is tried, and when (`segue.sidecar.session`), and what the messages hold.
"""

from __future__ import annotations

import asyncio
import socket as sockets
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import NamedTuple, TypeAlias
from urllib.parse import urlsplit, urlunsplit

import aiohttp
import msgspec
from aiohttp.abc import AbstractResolver
from aiohttp.client_proto import ResponseHandler
from aiohttp.tracing import Trace

from segue.connection_failures import connection_failure
from segue.http.error_replies import FailureCode
from segue.packet_writer import PacketSocket
from segue.sidecar.install_source import InstallSource
from segue.sidecar.packet_protocol import PacketProtocol
from segue.sidecar.proxy import Proxy
from segue.sidecar.tls_sessions import ClientIdentity
from segue.sidecar.upgrade_answer import UpgradeReply, explain, read_answer
from segue.tunnel.frames import MAX_PACKET_BYTES, SUBPROTOCOL
from segue.tunnel.upgrade_headers import EPOCH_HEADER, HELLO_HEADER, LINK_HEADER, MAX_HELLO_BYTES, encode_hello


class LinkIntroduction(NamedTuple):
    """What the upgrade request of a link says about it: its number in the session, and its first packet."""

    number: int
    hello: bytes


#: Introduces a link, when the connection for it is there.
Introduce: TypeAlias = Callable[[], Awaitable[LinkIntroduction]]

_PATH = "/segue/tunnel"
_SCHEMES = {"ws": "ws", "wss": "wss", "http": "ws", "https": "wss"}
_SWITCHING_PROTOCOLS = 101
_MAX_ANSWER_BYTES = 64 * 1024
_CLOSE_S = 1.0
_LONGEST_CLOSE_S = 10.0

# RFC 6455, 5.2: two bytes, more for longer payloads, and the mask of what a client sends.
_SHORT = 125
_MEDIUM = 65535


class GatewayUnreachableError(Exception):
    """No gateway can be talked to at the moment, whatever answers in its place; trying again may help.

    `answer`: what answered, if something did.
    """

    def __init__(self, message: str, answer: UpgradeReply | None = None) -> None:
        super().__init__(message)
        self.answer = answer


class GatewaySilentError(GatewayUnreachableError):
    """Something accepted the connection, or did not refuse it, and has not answered in time."""


class GatewayRefusedError(Exception):
    """The session is refused by a gateway, or on the way to it: trying again soon will not help.

    The message is for agents. `answer`: the gateway's, if it was the gateway.
    """

    def __init__(self, code: FailureCode, message: str, answer: UpgradeReply | None = None) -> None:
        super().__init__(message)
        self.code: FailureCode = code
        self.answer = answer


class ConnectorSettings(msgspec.Struct, frozen=True):
    """How to reach gateways."""

    key: str | None = None
    cafile: str | None = None
    identity: ClientIdentity | None = None
    proxy: Proxy | None = None
    connect_s: float = 10.0
    install: InstallSource | None = None
    """What to fetch on a machine that is reached by ssh and has no segue; None: nothing is fetched."""


class _Acceptance(NamedTuple):
    """An upgrade that was accepted."""

    transport: asyncio.Transport
    protocol: ResponseHandler
    answer: UpgradeReply
    took_hello: bool


class TunnelSocket(PacketSocket):
    """One open WebSocket to a gateway. `accepted`: how the gateway has accepted it."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse[bool], accepted: _Acceptance) -> None:
        super().__init__(socket, accepted.transport, masked=True)
        self.answer = accepted.answer
        self.took_hello = accepted.took_hello
        """The gateway has taken the link's first packet from the upgrade request."""
        self._client = socket
        self._protocol = accepted.protocol
        self._received = 0

    async def receive(self) -> bytes | None:
        """Return the next packet; None when there will be none."""
        message = await self._client.receive()
        if message.type is aiohttp.WSMsgType.TEXT:
            await self._client.close(code=aiohttp.WSCloseCode.UNSUPPORTED_DATA, message=b"a packet is a binary message")
        if message.type is not aiohttp.WSMsgType.BINARY:
            return None
        self._received += 1
        packet: bytes = message.data
        return packet

    def hand_over(self, take: Callable[[bytes], object] | None) -> None:
        """Give each packet to this as soon as it comes, instead of to `receive`, if none waits there; None: to that."""
        frames = self._protocol.frames if isinstance(self._protocol, PacketProtocol) else None
        if frames is not None and (take is None or frames.queued == self._received):
            frames.take = take

    async def send(self, packet: bytes) -> None:
        """Send a packet; returns when the socket has room. `ConnectionError`: it is closed."""
        self.write(packet)
        await self.wait_for_room()

    @property
    def tls(self) -> ssl.SSLObject | None:
        """The TLS connection, if it is one."""
        connection: ssl.SSLObject | None = self._transport.get_extra_info("ssl_object")
        return connection

    async def close(self, reason: str = "", *, within_s: float = _CLOSE_S) -> bool:
        """Close in good order; tell whether the peer has done so too within this time, and so has read everything."""
        code = aiohttp.WSCloseCode.PROTOCOL_ERROR if reason else aiohttp.WSCloseCode.OK
        return await _close(self._client, code, reason.encode()[:120], within_s=within_s)


def tunnel_url(gateway: str) -> str:
    """Return the address of a gateway's tunnel. The scheme may be `ws`, `wss`, `http` or `https`; the path is optional.

    Raises:
        ValueError: this is not the address of a gateway.
    """
    parts = urlsplit(gateway)
    scheme = _SCHEMES.get(parts.scheme.lower())
    if parts.username is not None:  # the message must not repeat a password
        raise ValueError(
            "the address of a gateway has no user and password: its key is set apart, in SEGUE_SIDECAR_KEY"
        )
    if scheme is None or parts.hostname is None or parts.query or parts.fragment:
        raise ValueError(f"{gateway!r} is not the address of a gateway, such as wss://gateway.example.com")
    _ = parts.port  # raises ValueError for one that is out of range
    path = parts.path.rstrip("/")
    return urlunsplit((scheme, parts.netloc, path if path.endswith(_PATH) else path + _PATH, "", ""))


def frame_bytes(size: int, *, masked: bool) -> int:
    """Return how many bytes a message of this size takes as one WebSocket frame."""
    head = 2 if size <= _SHORT else 4 if size <= _MEDIUM else 10
    return size + head + 4 * masked


async def only_link() -> LinkIntroduction:
    """Introduce the only link of a session, whose upgrade request has no packet."""
    return LinkIntroduction(1, b"")


def _protocol_factory(loop: asyncio.AbstractEventLoop) -> partial[ResponseHandler]:
    protocol: type[ResponseHandler] = PacketProtocol
    return partial(protocol, loop=loop)


class _Connector(aiohttp.TCPConnector):
    """Connects, with TLS and through a proxy if need be, and asks then for the first packet of the link."""

    def __init__(self, context: ssl.SSLContext, introduce: Introduce, resolver: AbstractResolver | None) -> None:
        super().__init__(ssl=context, force_close=True, resolver=resolver)
        self._factory = _protocol_factory(self._loop)
        self._introduce = introduce

    async def _create_connection(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Trace],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - the interface is aiohttp's
    ) -> ResponseHandler:
        return await _introduced(await super()._create_connection(req, traces, timeout), req, self._introduce)


class OpenSocketConnector(aiohttp.UnixConnector):
    """A connector over one socket that is connected already, and that requests use one after the other."""

    def __init__(self, through: sockets.socket) -> None:
        super().__init__("", limit=1)
        self._through = through

    async def _create_connection(self, _req: aiohttp.ClientRequest, *_how: object) -> ResponseHandler:
        _, protocol = await self._loop.create_unix_connection(self._factory, sock=self._through)
        return protocol


class _OpenSocketLinkConnector(OpenSocketConnector):
    """The same for one link, whose first packet it asks for."""

    def __init__(self, through: sockets.socket, introduce: Introduce) -> None:
        super().__init__(through)
        self._factory = _protocol_factory(self._loop)
        self._introduce = introduce

    async def _create_connection(self, req: aiohttp.ClientRequest, *_how: object) -> ResponseHandler:
        return await _introduced(await super()._create_connection(req), req, self._introduce)


async def _introduced(
    protocol: ResponseHandler, request: aiohttp.ClientRequest, introduce: Introduce
) -> ResponseHandler:
    """Put the first packet of the link into the upgrade request, which is the next that goes over this connection."""
    try:
        number, packet = await introduce()
    except BaseException:
        protocol.close()
        raise
    request.headers[LINK_HEADER] = str(number)
    if 0 < len(packet) <= MAX_HELLO_BYTES:
        request.headers[HELLO_HEADER] = encode_hello(packet)
    return protocol


@asynccontextmanager
async def connected(
    url: str,
    session_name: str,
    settings: ConnectorSettings,
    context: ssl.SSLContext,
    *,
    through: sockets.socket | None = None,
    introduce: Introduce = only_link,
    resolver: AbstractResolver | None = None,
) -> AsyncIterator[TunnelSocket]:
    """Open the WebSocket around a block. `through`: a socket that leads to the gateway, instead of a new connection.

    `introduce` is called when there is a connection, right before the upgrade is asked for. The first packet travels
    with the request, unless it is too large; the socket tells whether the gateway has taken it (`took_hello`).

    Raises:
        GatewayUnreachableError, GatewayRefusedError: it was not opened.
    """
    headers = {"Segue-Session": session_name}
    if settings.key is not None:
        headers["Authorization"] = f"Bearer {settings.key}"
    proxy = settings.proxy if settings.proxy is not None and settings.proxy.leads_to(url) else None
    accepted: list[_Acceptance] = []
    connector = (
        _Connector(context, introduce, resolver) if through is None else _OpenSocketLinkConnector(through, introduce)
    )
    check = _upgrade_check(accepted, has_key=settings.key is not None)
    no_limit = aiohttp.ClientTimeout(total=None)  # the link knows when it is dead
    async with aiohttp.ClientSession(
        connector=connector, middlewares=(check,), trust_env=False, timeout=no_limit
    ) as client:
        try:
            async with asyncio.timeout(settings.connect_s):
                socket = await client.ws_connect(
                    url,
                    protocols=(SUBPROTOCOL,),
                    headers=headers,
                    proxy=None if proxy is None else proxy.url,
                    proxy_headers=None if proxy is None else proxy.headers,
                    max_msg_size=MAX_PACKET_BYTES + 1,  # aiohttp refuses a message of exactly the limit it is given
                    timeout=aiohttp.ClientWSTimeout(ws_close=_LONGEST_CLOSE_S),
                )
        except aiohttp.WSServerHandshakeError as error:
            raise GatewayUnreachableError(
                f"this is no gateway: {error.message}", accepted[-1].answer if accepted else None
            ) from None
        except TimeoutError:
            raise GatewaySilentError(f"no answer within {settings.connect_s:g} s") from None
        except (aiohttp.ClientError, OSError) as error:
            raise GatewayUnreachableError(_message_of(error)) from None
        try:
            if socket.protocol != SUBPROTOCOL:
                raise GatewayUnreachableError(f"what answers does not speak {SUBPROTOCOL}", accepted[-1].answer)
            yield TunnelSocket(socket, accepted[-1])
        finally:
            await _close(socket, aiohttp.WSCloseCode.OK, b"", within_s=_CLOSE_S)


async def _close(
    socket: aiohttp.ClientWebSocketResponse[bool], code: aiohttp.WSCloseCode, message: bytes, *, within_s: float
) -> bool:
    """Close a socket that is open; tell whether its peer has answered."""
    try:
        async with asyncio.timeout(within_s):
            closed = await socket.close(code=code, message=message)
    except TimeoutError:
        return False
    return closed and socket.close_code != aiohttp.WSCloseCode.ABNORMAL_CLOSURE


def _upgrade_check(accepted: list[_Acceptance], *, has_key: bool) -> aiohttp.ClientMiddlewareType:
    """Return what reads an answer before aiohttp does, which would follow a redirect and drop a refusal's reason.

    An upgrade that is accepted is added to the list.
    """

    async def check(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        response = await handler(request)
        try:
            connection, answer = await _accepted(response, has_key=has_key)
        except BaseException:
            response.close()
            raise
        took_hello = bool(answer.epoch) and HELLO_HEADER in request.headers
        accepted.append(_Acceptance(*connection, answer, took_hello))
        return response

    return check


async def _accepted(
    response: aiohttp.ClientResponse, *, has_key: bool
) -> tuple[tuple[asyncio.Transport, ResponseHandler], UpgradeReply]:
    """Return the connection of an accepted upgrade; raise what any other answer means."""
    if response.status == _SWITCHING_PROTOCOLS:
        connection = response.connection
        transport = None if connection is None else connection.transport
        protocol = None if connection is None else connection.protocol
        if transport is None or protocol is None:
            raise GatewayUnreachableError("the connection is gone already")
        return (transport, protocol), _answer_of(response)
    answer = _answer_of(response, await _refusal_body(response))
    read = read_answer(answer.status, answer.body)
    if read.verdict is None:
        raise GatewayUnreachableError(read.reason, answer)
    raise GatewayRefusedError(read.verdict, explain(read.verdict, read.reason, has_key=has_key), answer)


def _answer_of(response: aiohttp.ClientResponse, body: bytes = b"") -> UpgradeReply:
    lines = response.headers
    return UpgradeReply(
        status=response.status,
        body=body,
        content_type=lines.get("Content-Type", ""),
        server=lines.get("Server", ""),
        via=lines.get("Via", ""),
        location=lines.get("Location", ""),
        date=lines.get("Date", ""),
        epoch=lines.get(EPOCH_HEADER, ""),
    )


async def _refusal_body(response: aiohttp.ClientResponse) -> bytes:
    """Return the body if it may be a gateway's refusal. A page of something else may never end."""
    if response.content_type != "application/json":
        return b""
    try:
        return await response.content.readexactly(_MAX_ANSWER_BYTES)
    except asyncio.IncompleteReadError as whole:
        return whole.partial


def _message_of(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return f"the proxy answered with status {error.status} instead of connecting to the gateway"
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return f"the gateway's certificate is not trusted: {error.certificate_error}"
    if isinstance(error, aiohttp.ClientConnectorError):
        whom = "the proxy " if isinstance(error, aiohttp.ClientProxyConnectionError) else ""
        return f"cannot connect to {whom}{error.host}:{error.port}: {connection_failure(error)}"
    return str(error) or type(error).__name__
