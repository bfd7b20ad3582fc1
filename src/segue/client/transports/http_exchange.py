"""HTTP requests to one server with aiohttp, and what it means that one got no answer, or another than was asked for.

TLS is verified, redirects are never followed, no proxy is taken from the environment, and no cookie is kept. Nothing is
decompressed here; what is compressed was asked for (`http`). Every body that is read has a bound. Not here: what is
asked for (`http`, `capabilities_reader`).
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import ssl
import time
from collections.abc import Mapping, Sequence

import aiohttp
from aiohttp.client_middlewares import ClientMiddlewareType
from multidict import CIMultiDictProxy
from yarl import URL

from segue import __version__
from segue.client.recovery import Delivered, TurnFault
from segue.client.settings import ConnectionSettings, TransportKind
from segue.client.transports.interface import TransportFault
from segue.client.transports.server_errors import MAX_BODY_BYTES, WordReader, body_kind
from segue.http_client.body import JsonBody
from segue.http_client.connector import DesyncSafeConnector
from segue.http_client.reply_body import read_start
from segue.http_client.wire_meter import WireMeter, meter_of

_SCHEMES = {"ws": "http", "wss": "https", "http": "http", "https": "https"}
_PIECE_BYTES = 64 * 1024
#: An agent runs its tools between two turns. Many servers and load balancers keep a connection for 60 seconds.
_KEEPALIVE_S = 55.0
#: What is below is a success (RFC 9110, 15.3).
_REDIRECTS = 300
#: What no header line can hold (RFC 9110, 5.5), and what is no text.
_UNSENDABLE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f\ud800-\udfff]")
_SECRET_HEADER = re.compile(r"auth|key|token|secret|cookie|credential|password|signature", re.IGNORECASE)


class ServerExchanges:
    """What all requests to one server share: its address, the headers, the connections, and their meter."""

    def __init__(self, settings: ConnectionSettings, *, tls: ssl.SSLContext | None = None) -> None:
        url = URL(settings.base_url)
        if url.user is not None or url.password is not None:
            raise ValueError("The base URL must not hold a user name or a password: give the key as api_key.")
        if url.scheme not in _SCHEMES or not url.host:
            raise ValueError(f"The base URL {settings.base_url!r} is no URL of a server: it needs http:// or https://.")
        self.settings = settings
        self.base_url = url.with_scheme(_SCHEMES[url.scheme])
        self._proxy = _proxy_of(settings.proxy)
        self.meter = WireMeter()
        self.words = WordReader(_secrets(settings))
        self._headers = _headers(settings)
        self._tls = tls
        self._connector: DesyncSafeConnector | None = None
        self._session: aiohttp.ClientSession | None = None

    def responses_url(self, *, response_id: str | None = None) -> URL:
        """Return where responses are made, or where one is; a query of the base URL, such as a version, is kept."""
        parts = ("responses",) if response_id is None else ("responses", response_id)
        return self.base_url.joinpath(*parts).with_query(self.base_url.query)

    @property
    def deflated(self) -> bool:
        """Whether compression is offered: by default, where the server is not on this machine."""
        deflate = self.settings.deflate
        return not _is_loopback(self.base_url.host or "") if deflate is None else deflate

    @property
    def session(self) -> aiohttp.ClientSession:
        """The session of plain requests; it is made when the first one is."""
        if self._session is None:
            self._session = self.new_session()
        return self._session

    def new_session(self, middlewares: Sequence[ClientMiddlewareType] = ()) -> aiohttp.ClientSession:
        """Return another session over the same connections. Its caller closes it; the connections stay."""
        if self._connector is None:
            self._connector = DesyncSafeConnector(self.meter, tls=self._tls, keepalive_s=_KEEPALIVE_S, staggered=True)
        return aiohttp.ClientSession(
            connector=self._connector,
            connector_owner=False,
            headers=self._headers,
            proxy=self._proxy,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            timeout=aiohttp.ClientTimeout(total=None, connect=self.settings.connect_timeout_s),
            middlewares=middlewares,
        )

    async def aclose(self) -> None:
        """Close all connections."""
        session, connector = self._session, self._connector
        self._session = self._connector = None
        try:
            if session is not None:
                await session.close()
        finally:
            if connector is not None:
                await connector.close()

    async def send(
        self, method: str, url: URL, *, accept: str, body: JsonBody | None = None, coding: str = "identity"
    ) -> aiohttp.ClientResponse:
        """Send a request, and return its answer when the head has come. Raises `TransportFault`."""
        headers = {"Accept": accept, "Accept-Encoding": coding}
        try:
            async with asyncio.timeout(self.settings.idle_timeout_s):
                return await self.session.request(method, url, data=body, headers=headers, allow_redirects=False)
        except BaseException as error:
            transport = None if body is None else body.transport
            if body is not None:
                body.abort()
            if not isinstance(error, OSError | aiohttp.ClientError):
                raise
            delivered: Delivered = "no" if body is not None and transport is None else "maybe"
            fault = fault_of(error, "http", delivered=delivered, silent_s=silence_of(transport))
            raise TransportFault(fault) from error

    async def read(self, response: aiohttp.ClientResponse, limit: int) -> bytes:
        """Read a body to its end and release the connection. Raises `TransportFault`, also for a body over `limit`."""
        pieces: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self.settings.idle_timeout_s):
                while piece := await response.content.read(_PIECE_BYTES):
                    pieces.append(piece)
                    size += len(piece)
                    if size > limit:
                        raise TransportFault(
                            TurnFault(kind="unreadable", transport="http", message="The answer is too large.")
                        )
        except (OSError, aiohttp.ClientError) as error:
            raise TransportFault(fault_of(error, "http")) from error
        finally:
            response.release()  # closes the connection if the body has not ended
        return b"".join(pieces)

    async def refusal(self, response: aiohttp.ClientResponse) -> TransportFault:
        """Return the fault of an answer that is not what was asked for. Closes the connection."""
        try:
            data = await read_start(response, limit=MAX_BODY_BYTES, patience_s=self.settings.connect_timeout_s)
        finally:
            response.close()
        return self.refused(response.status, response.headers, data, transport="http")

    def refused(
        self, status: int, headers: CIMultiDictProxy[str], data: bytes, *, transport: TransportKind
    ) -> TransportFault:
        """Return the fault of a plain HTTP answer."""
        words = self.words.read_body(data, headers, time.time())
        kind = body_kind(headers.get("Content-Type", ""), data)
        if status >= _REDIRECTS or words.code is not None:
            return TransportFault(words.fault("refused", transport, status=status, body_kind=kind))
        # not its words: of a success, they may be the model's
        return TransportFault(TurnFault(kind="unreadable", transport=transport, status=status, body_kind=kind))


def fault_of(
    error: OSError | aiohttp.ClientError,
    transport: TransportKind,
    *,
    delivered: Delivered = "maybe",
    silent_s: float | None = None,
) -> TurnFault:
    """Return what it means that a request ended with this error."""
    match error:
        case aiohttp.ClientHttpProxyError():
            text = f"The proxy answered with status {error.status} instead of connecting to the server."
            return TurnFault(kind="connect_failed", transport=transport, delivered="no", message=text)
        case aiohttp.ConnectionTimeoutError() | aiohttp.ClientConnectorError() | aiohttp.ClientSSLError():
            return TurnFault(kind="connect_failed", transport=transport, delivered="no", message=_reason(error))
        case TimeoutError():
            return TurnFault(kind="timeout", transport=transport, delivered=delivered, silent_s=silent_s)
        case aiohttp.ClientConnectionError() | OSError() | aiohttp.ClientPayloadError():
            return TurnFault(kind="connection_lost", transport=transport, delivered=delivered, silent_s=silent_s)
        case _:
            message = "What the server sent is no valid HTTP."
            return TurnFault(kind="unreadable", transport=transport, delivered=delivered, message=message)


def silence_of(transport: asyncio.BaseTransport | None) -> float | None:
    """Return how long ago the last byte came on a connection."""
    meter = meter_of(transport)
    return None if meter is None else asyncio.get_running_loop().time() - meter.received_at


def _reason(error: OSError | aiohttp.ClientError) -> str:
    """Say in plain words why there is no connection."""
    match error:
        case aiohttp.ClientConnectorCertificateError() | aiohttp.ClientSSLError():
            return "The server's TLS certificate or handshake is not valid."
        case aiohttp.ClientProxyConnectionError():
            return "The proxy cannot be reached."
        case aiohttp.ClientConnectorDNSError():
            return "The server's name cannot be resolved."
        case aiohttp.ConnectionTimeoutError():
            return "The connection was not made in time."
        case _:
            return "The server cannot be reached."


def _proxy_of(text: str | None) -> URL | None:
    """Return the address of a proxy. What is wrong with it is said without it, since it may hold a password."""
    if not text:
        return None
    try:
        proxy = URL(text)
    except ValueError:
        proxy = URL()
    if proxy.scheme != "http" or not proxy.host:
        raise ValueError("The proxy must be an HTTP proxy, such as http://HOST:PORT.")
    return proxy


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _headers(settings: ConnectionSettings) -> Mapping[str, str]:
    lines = {"user-agent": ("User-Agent", f"segue/{__version__}")}
    if settings.api_key is not None:
        lines["authorization"] = ("Authorization", f"Bearer {settings.api_key}")
    lines |= {name.lower(): (name, value) for name, value in settings.headers}
    for name, value in lines.values():
        if _UNSENDABLE.search(name + value):  # such as the line end of a file that holds the key
            what = "api_key" if value == f"Bearer {settings.api_key}" else f"header {name!r}"
            raise ValueError(f"The {what} cannot be sent: it holds a line break or another control character.")
    return dict(lines.values())


def _secrets(settings: ConnectionSettings) -> tuple[str, ...]:
    """Return what the server must not be quoted with: the key, and headers that hold a key by their names."""
    values = tuple(value.rpartition(" ")[2] for name, value in settings.headers if _SECRET_HEADER.search(name))
    return values if settings.api_key is None else (settings.api_key, *values)
