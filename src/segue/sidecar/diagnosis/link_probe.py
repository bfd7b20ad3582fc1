"""A probe of the way to one gateway: it goes as the sidecar does, step by step, and stops at the first fault.

Every step has a time limit. The key is sent to what the sidecar would send it to, and only after TLS has verified it.
Not here: what is made of what was seen (`link_checks`).
"""

from __future__ import annotations

import asyncio
import errno
import secrets
import socket
import ssl
import time
from collections.abc import Callable
from datetime import UTC, datetime
from urllib.parse import urlsplit

import msgspec

from segue.sidecar.connector import (
    ConnectorSettings,
    GatewayRefusedError,
    GatewaySilentError,
    GatewayUnreachableError,
    TunnelSocket,
    connected,
    tunnel_url,
)
from segue.sidecar.diagnosis.link_checks import LinkObservation, LinkPath, SeenCertificate, fault_of_answer
from segue.sidecar.diagnosis.link_faults import LinkFault
from segue.sidecar.proxy import Proxy
from segue.sidecar.tls_sessions import verifying_context
from segue.tunnel.client import TunnelClient
from segue.tunnel.events import LinkFailed, Welcomed

_DEFAULT_PORTS = {"ws": 80, "wss": 443}
_MAX_HEAD_BYTES = 16 * 1024
_MAX_ADDRESSES = 8
_PROXY_AUTHENTICATION_REQUIRED = 407

#: OpenSSL's numbers of what is wrong with a certificate (X509_V_ERR_…, `openssl verify`); all others: not trusted.
_NOT_YET_VALID, _HAS_EXPIRED, _HOSTNAME_MISMATCH, _IP_MISMATCH = 9, 10, 62, 64
#: What OpenSSL says where the peer's first bytes are not TLS.
_NOT_TLS = frozenset({"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNKNOWN_PROTOCOL", "RECORD_LAYER_FAILURE"})


class _FaultFound(Exception):
    """The way ends here."""

    def __init__(self, fault: LinkFault) -> None:
        super().__init__(fault.kind)
        self.fault = fault


def path_to(gateway: str, settings: ConnectorSettings) -> LinkPath:
    """Return the way to a gateway.

    Raises:
        ValueError: this is not the address of a gateway.
    """
    url = tunnel_url(gateway)
    parts = urlsplit(url)
    proxy = _proxy_to(url, settings)
    hop = None if proxy is None else urlsplit(proxy.url)
    return LinkPath(
        url=url,
        host=parts.hostname or "",
        port=parts.port or _DEFAULT_PORTS[parts.scheme],
        encrypted=parts.scheme == "wss",
        proxy=None if hop is None else (hop.hostname or "", hop.port or _DEFAULT_PORTS["ws"]),
        has_key=settings.key is not None,
    )


async def observe_link(
    gateway: str, settings: ConnectorSettings, *, clock: Callable[[], float] = time.time
) -> LinkObservation:
    """Go the way to a gateway, and return what was seen. `connect_s` of the settings limits each step.

    Raises:
        ValueError: this is not the address of a gateway.
    """
    path = path_to(gateway, settings)
    probe = _Probe(path, settings, clock)
    try:
        await probe.go()
    except _FaultFound as found:
        return probe.seen(found.fault)
    return probe.seen(None)


class _Probe:
    """One walk: its fields are what has been seen so far."""

    def __init__(self, path: LinkPath, settings: ConnectorSettings, clock: Callable[[], float]) -> None:
        self._path = path
        self._settings = settings
        self._clock = clock
        self._limit_s = settings.connect_s
        self._seen = LinkObservation(path=path, now=clock())

    def seen(self, fault: LinkFault | None) -> LinkObservation:
        return msgspec.structs.replace(self._seen, fault=fault)

    def _note(self, **fields: object) -> None:
        self._seen = msgspec.structs.replace(self._seen, **fields)

    async def go(self) -> None:
        addresses = await self._resolve()
        context = await asyncio.to_thread(verifying_context, self._settings.cafile, self._settings.identity)
        connection = await self._connect(addresses)
        try:
            proxy = _proxy_to(self._path.url, self._settings)
            if proxy is not None:
                await self._ask_proxy(connection, proxy)
            if self._path.encrypted:
                await self._start_tls(connection, context)
        finally:
            connection.close()
        await self._upgrade(context)

    async def _resolve(self) -> list[str]:
        """Return the addresses of the gateway, or of the proxy, which resolves the gateway's name itself."""
        host, port = self._path.proxy or (self._path.host, self._path.port)
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._limit_s):
                found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except TimeoutError:
            raise _FaultFound(LinkFault("name_silent", f"{self._limit_s:g} s")) from None
        except OSError as error:
            raise _FaultFound(LinkFault("name_unknown", error.strerror or str(error))) from None
        except UnicodeError:
            raise _FaultFound(LinkFault("name_unknown", "it is not a name that DNS can hold")) from None
        addresses = list(dict.fromkeys(str(row[4][0]) for row in found))[:_MAX_ADDRESSES]
        self._note(addresses=tuple(addresses))
        return addresses

    async def _connect(self, addresses: list[str]) -> socket.socket:
        """Connect to the first address that answers."""
        port = self._path.port if self._path.proxy is None else self._path.proxy[1]
        loop = asyncio.get_running_loop()
        began_at = time.perf_counter()  # the clock of the event loop may be coarse
        problem: OSError = TimeoutError()
        for address in addresses:
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            connection = socket.socket(family, socket.SOCK_STREAM)
            try:
                connection.setblocking(False)  # noqa: FBT003 - the signature of the socket module
                async with asyncio.timeout(self._limit_s / len(addresses)):
                    await loop.sock_connect(connection, (address, port))
            except OSError as error:  # a timeout is one
                connection.close()
                problem = error
            except BaseException:
                connection.close()
                raise
            else:
                self._note(connected_s=time.perf_counter() - began_at)
                return connection
        raise _FaultFound(self._fault_of_connection(problem))

    def _fault_of_connection(self, error: OSError) -> LinkFault:
        is_proxied = self._path.proxy is not None
        if isinstance(error, TimeoutError) or error.errno == errno.ETIMEDOUT:
            return LinkFault("proxy_silent" if is_proxied else "tcp_silent", f"{self._limit_s:g} s")
        words = error.strerror or str(error)
        if is_proxied:
            return LinkFault("proxy_unreachable", words)
        return LinkFault("tcp_refused" if isinstance(error, ConnectionRefusedError) else "tcp_unreachable", words)

    async def _ask_proxy(self, connection: socket.socket, proxy: Proxy) -> None:
        """Have the proxy connect to the gateway (RFC 9110, 9.3.6)."""
        authority = self._path.gateway
        lines = [f"CONNECT {authority} HTTP/1.1", f"Host: {authority}"]
        lines += [f"{name}: {value}" for name, value in proxy.headers.items()]
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._limit_s):
                await loop.sock_sendall(connection, "".join(f"{line}\r\n" for line in (*lines, "")).encode())
                head = await _read_head(connection)
        except TimeoutError:
            raise _FaultFound(LinkFault("proxy_silent", f"{self._limit_s:g} s")) from None
        except OSError as error:
            raise _FaultFound(LinkFault("proxy_unreachable", error.strerror or str(error))) from None
        status = _status_of(head)
        if status is None:
            raise _FaultFound(LinkFault("proxy_is_none"))
        if status == _PROXY_AUTHENTICATION_REQUIRED:
            raise _FaultFound(LinkFault("proxy_wants_login", str(status)))
        if status >= 300 or status < 200:  # noqa: PLR2004 - any success
            raise _FaultFound(LinkFault("proxy_refuses", str(status)))

    async def _start_tls(self, connection: socket.socket, context: ssl.SSLContext) -> None:
        try:
            async with asyncio.timeout(self._limit_s):
                _, writer = await asyncio.open_connection(
                    sock=connection, ssl=context, server_hostname=self._path.host, limit=_MAX_HEAD_BYTES
                )
        except TimeoutError:
            raise _FaultFound(LinkFault("tls_silent", f"{self._limit_s:g} s")) from None
        except ssl.SSLCertVerificationError as error:
            raise _FaultFound(self._fault_of_certificate(error)) from None
        except ssl.SSLError as error:
            reason = error.reason or ""
            raise _FaultFound(
                LinkFault("tls_none" if reason in _NOT_TLS else "tls_failed", reason.replace("_", " ").lower())
            ) from None
        except OSError:
            raise _FaultFound(LinkFault("tls_closed")) from None
        certificate = _certificate_of(writer.get_extra_info("peercert"))
        writer.transport.abort()
        self._note(certificate=certificate)

    def _fault_of_certificate(self, error: ssl.SSLCertVerificationError) -> LinkFault:
        here = datetime.fromtimestamp(self._clock(), UTC)
        match error.verify_code:
            case code if code == _HAS_EXPIRED:
                return LinkFault("tls_expired", f"{here:%Y-%m-%d %H:%M} UTC")
            case code if code == _NOT_YET_VALID:
                return LinkFault("tls_not_yet_valid", f"{here:%Y-%m-%d %H:%M} UTC")
            case code if code in {_HOSTNAME_MISMATCH, _IP_MISMATCH}:
                return LinkFault("tls_wrong_name", error.verify_message)
            case _:
                return LinkFault("tls_untrusted", error.verify_message)

    async def _upgrade(self, context: ssl.SSLContext) -> None:
        """Open the tunnel's WebSocket as a sidecar does, and exchange its first packets."""
        try:
            async with connected(self._path.url, secrets.token_hex(16), self._settings, context) as opened:
                self._note(answer=opened.answer, now=self._clock())
                await self._greet(opened)
        except GatewayRefusedError as error:
            fault = None
            if error.answer is not None:
                self._note(answer=error.answer, now=self._clock())
                fault = fault_of_answer(error.answer, self._path)
            raise _FaultFound(fault or LinkFault("gateway_refuses", str(error))) from None
        except GatewaySilentError:
            raise _FaultFound(LinkFault("upgrade_silent", f"{self._limit_s:g} s")) from None
        except GatewayUnreachableError as error:
            if error.answer is None:
                raise _FaultFound(LinkFault("upgrade_closed", str(error))) from None
            self._note(answer=error.answer, now=self._clock())
            fault = fault_of_answer(error.answer, self._path)
            raise _FaultFound(fault or LinkFault("no_tunnel", str(error))) from None

    async def _greet(self, opened: TunnelSocket) -> None:
        loop = asyncio.get_running_loop()
        tunnel, began_at = TunnelClient(), time.perf_counter()
        tunnel.link_opened(loop.time())
        hello = tunnel.next_packet(loop.time())
        assert hello is not None, "a link begins with a HELLO"
        try:
            async with asyncio.timeout(self._limit_s):
                await opened.send(hello)
                packet = await opened.receive()
        except TimeoutError:
            raise _FaultFound(LinkFault("no_messages", f"{self._limit_s:g} s")) from None
        except ConnectionError:
            packet = None
        if packet is None:
            raise _FaultFound(LinkFault("no_tunnel", "it has closed the connection"))
        for event in tunnel.receive(packet, loop.time()):
            if isinstance(event, LinkFailed):
                raise _FaultFound(LinkFault("no_tunnel", event.reason))
            if isinstance(event, Welcomed):
                self._note(welcome_s=time.perf_counter() - began_at)
                return
        raise _FaultFound(LinkFault("no_tunnel", "its first packet does not greet"))


def _proxy_to(url: str, settings: ConnectorSettings) -> Proxy | None:
    return settings.proxy if settings.proxy is not None and settings.proxy.leads_to(url) else None


async def _read_head(connection: socket.socket) -> bytes:
    """Return what came up to the first empty line, or to the limit, or to the end."""
    loop, head = asyncio.get_running_loop(), b""
    while b"\r\n\r\n" not in head and len(head) < _MAX_HEAD_BYTES:
        data = await loop.sock_recv(connection, _MAX_HEAD_BYTES)
        if not data:
            break
        head += data
    return head


def _status_of(head: bytes) -> int | None:
    """Return the status of an HTTP response (RFC 9112, 4); None: it is none."""
    version, _, rest = head.partition(b" ")
    digits = rest[:3]
    is_status = version.startswith(b"HTTP/1.") and len(digits) == 3 and digits.isdigit()  # noqa: PLR2004 - three digits
    return int(digits) if is_status else None


def _certificate_of(shown: object) -> SeenCertificate | None:
    """Return what Python says of a certificate that it has verified (`ssl.SSLSocket.getpeercert`)."""
    if not isinstance(shown, dict) or not isinstance(shown.get("notAfter"), str):
        return None
    names = {name: value for row in shown.get("issuer", ()) for name, value in row}
    issuer = names.get("organizationName") or names.get("commonName") or "an authority without a name"
    return SeenCertificate(issuer, ssl.cert_time_to_seconds(shown["notAfter"]))
