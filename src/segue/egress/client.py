"""Sends a request to where its route says, with the bytes it came with, and gives back the answer as it comes.

What is added is of this hop only: Host, Content-Length, and for a WebSocket its handshake. No redirect is followed, no
proxy is asked, no cookie kept, and nothing is sent twice: a request whose connection failed after its first byte was
written has an unknown outcome, and that is said. Not here: which target a request has, and who may ask.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import httpcore

from segue.delta.heads import Kind, RequestHead, end_to_end
from segue.egress.errors import NETWORK_ERRORS, EgressError, egress_error
from segue.egress.inprocess import InProcess
from segue.egress.network import Network, StaleConnectionError, keep_alive_options
from segue.egress.reply import Lease, Reply, reply_head
from segue.egress.routes import SELF, Resolved, Target, Where
from segue.egress.websocket import Socket, handshake, is_accepted

#: A body goes out in pieces, so that encrypting 64 MB does not hold up everybody else.
_BODY_PIECE_BYTES: Final = 256 * 1024
_NOTHING: Final[Mapping[str, object]] = {}
_NO_PORT: Final = 80


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How long is waited for a target, and how much goes to it at once."""

    connect_s: float = 15.0
    """For a TCP connection, and again for TLS."""
    silence_s: float | None = None
    """For the next byte of an answer. A model may think for an hour, and how long an agent waits is its own affair."""
    requests: int = 1000
    """To one target at once; the next waits for one of them to end, as long as for a connection."""
    idle_connections: int = 20
    """That are kept for the next request."""
    idle_s: float = 4.0
    """How long one is kept: less than any server does (Node and uvicorn: 5 s), so that none closes it just when a
    request, which must not be sent twice, goes out on it."""
    message_bytes: int = 64 * 1024 * 1024
    """Largest message of a WebSocket that comes in."""
    close_s: float = 5.0
    """For the other side's part of closing a WebSocket."""


class Egress:
    """The way out to all targets. `own` makes the protocol of one connection to the gateway's own server.

    Each request to it may carry `extra`, which that server's transport gives out by `get_extra_info`: what is known
    about the caller already. Connections are shared by requests whose extras are equal, and by no others; values must
    be hashable, and there should be few, such as one for each tenant.
    """

    def __init__(
        self,
        *,
        limits: Limits | None = None,
        tls: ssl.SSLContext | None = None,
        network: httpcore.AsyncNetworkBackend | None = None,
        own: Callable[[], asyncio.Protocol] | None = None,
        entropy: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._limits = limits or Limits()
        self._tls = tls or client_tls()
        self._network = Network(network)
        self._own = own
        self._entropy = entropy
        self._ways: dict[object, _Way] = {}

    async def open(
        self, resolved: Resolved, head: RequestHead, body: bytes | None, *, extra: Mapping[str, object] = _NOTHING
    ) -> Reply:
        """Send a request and return its answer as soon as the head is there. Close the answer, or read it to its end.

        Raises:
            EgressError: there is no answer.
        """
        content = () if body is None else ((b"Content-Length", b"%d" % len(body)),)
        response, lease = await self._send(resolved, head, content, body=body, extra=extra)
        return Reply(response, reply_head(response), lease=lease, method=head.method)

    async def connect(
        self, resolved: Resolved, head: RequestHead, *, extra: Mapping[str, object] = _NOTHING
    ) -> Socket | Reply:
        """Ask for a WebSocket; return it, or the answer that refuses it.

        Raises:
            EgressError: there is no answer.
        """
        key, lines = handshake(self._entropy)
        response, lease = await self._send(resolved, head, lines, kind="websocket", extra=extra)
        answer = reply_head(response, "websocket")
        if response.status != 101:  # noqa: PLR2004 - Switching Protocols
            return Reply(response, answer, lease=lease, method=head.method)
        if not is_accepted(key, response.headers):
            await lease.aclose()
            message = f"{lease.name} switched to something that is not the WebSocket which was asked for"
            raise EgressError("upstream_protocol_error", message, sent=True)
        return Socket(
            response, answer, lease=lease, message_bytes=self._limits.message_bytes, close_s=self._limits.close_s
        )

    async def aclose(self) -> None:
        """Close all connections; what still uses one fails."""
        for way in self._ways.values():
            await way.pool.aclose()
        self._ways.clear()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _send(
        self,
        resolved: Resolved,
        head: RequestHead,
        added: tuple[tuple[bytes, bytes], ...],
        *,
        body: bytes | None = None,
        kind: Kind = "http",
        extra: Mapping[str, object],
    ) -> tuple[httpcore.Response, Lease]:
        way = self._way(resolved.target, extra)
        await self._admit(way)
        try:
            request = httpcore.Request(
                head.method,
                httpcore.URL(scheme=way.scheme, host=way.host, port=way.port, target=resolved.path),
                headers=[(b"Host", way.authority), *end_to_end(head.lines, kind), *added],
                content=_Body(body or b""),
            )
            response = await self._exchange(way, request)
        except BaseException:
            way.slots.release()
            raise
        return response, Lease(response, way.name, way.slots.release)

    async def _admit(self, way: _Way) -> None:
        try:
            async with asyncio.timeout(self._limits.connect_s):
                await way.slots.acquire()
        except TimeoutError:
            message = f"{self._limits.requests} requests to {way.name} are under way already: try again later"
            raise EgressError("upstream_busy", message, sent=False) from None

    async def _exchange(self, way: _Way, request: httpcore.Request) -> httpcore.Response:
        waits = {"connect": self._limits.connect_s, "read": self._limits.silence_s, "write": self._limits.silence_s}
        while True:
            progress = _Progress()
            request.extensions = {"timeout": waits, "trace": progress}
            try:
                return await way.pool.handle_async_request(request)
            except NETWORK_ERRORS as error:
                # A kept connection that was dead before the first byte: it is gone now, and the next one may live.
                if not (progress.was_kept and progress.was_stale):
                    raise egress_error(error, way.name, sent=progress.sent) from error

    def _way(self, target: Where, extra: Mapping[str, object]) -> _Way:
        key: object = target
        if target == SELF:
            key = (SELF, frozenset(extra.items()))
        elif target.prefix:
            key = Target(scheme=target.scheme, host=target.host, port=target.port)
        if key not in self._ways:
            self._ways[key] = self._own_way(extra) if target == SELF else self._way_out(target)
        return self._ways[key]

    def _way_out(self, target: Target) -> _Way:
        return _Way(
            name=target.authority.decode("ascii"),
            scheme=target.scheme.encode("ascii"),
            host=target.host.encode("ascii"),
            port=target.port,
            authority=target.authority,
            pool=self._pool(self._network, keep_alive_options()),
            slots=asyncio.Semaphore(self._limits.requests),
        )

    def _own_way(self, extra: Mapping[str, object]) -> _Way:
        if self._own is None:
            message = "this route leads to the gateway's own API, and there is none here: give the route another target"
            raise EgressError("upstream_unreachable", message, sent=False)
        return _Way(
            name="the gateway's own API",
            scheme=b"http",
            host=b"localhost",
            port=_NO_PORT,
            authority=b"localhost",
            pool=self._pool(Network(InProcess(self._own, extra)), None),
            slots=asyncio.Semaphore(self._limits.requests),
        )

    def _pool(
        self, network: httpcore.AsyncNetworkBackend, options: list[httpcore.SOCKET_OPTION] | None
    ) -> httpcore.AsyncConnectionPool:
        # That no more than so many run at once is seen to by `_Way.slots`: a request that is cancelled while it waits
        # in the pool's own queue may leave a place there taken for ever.
        return httpcore.AsyncConnectionPool(
            ssl_context=self._tls,
            max_connections=None,
            max_keepalive_connections=self._limits.idle_connections,
            keepalive_expiry=self._limits.idle_s,
            http1=True,
            http2=False,
            network_backend=network,
            socket_options=options,
        )


def client_tls(cafile: Path | None = None) -> ssl.SSLContext:
    """Return how servers are verified: by the system's authorities, or by those of a file."""
    return ssl.create_default_context(cafile=cafile)


@dataclass(frozen=True, kw_only=True)
class _Way:
    """The connections to one server, and how many may be in use."""

    name: str
    scheme: bytes
    host: bytes
    port: int
    authority: bytes
    pool: httpcore.AsyncConnectionPool
    slots: asyncio.Semaphore


class _Body:
    """The body of a request, which can be begun again."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for start in range(0, len(self._body), _BODY_PIECE_BYTES):
            yield self._body[start : start + _BODY_PIECE_BYTES]


class _Progress:
    """How far a request came, by what httpcore traces."""

    def __init__(self) -> None:
        self.was_kept = True
        self.was_stale = False
        self.sent = False

    async def __call__(self, name: str, info: Mapping[str, object]) -> None:
        """Take note of one step."""
        match name:
            case "connection.connect_tcp.started":
                self.was_kept = False
            case "http11.send_request_headers.started":
                self.sent = True
            case "http11.send_request_headers.failed" if isinstance(info["exception"], StaleConnectionError):
                self.was_stale, self.sent = True, False
            case _:
                pass
