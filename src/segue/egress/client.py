"""The client: it sends a request to its target with the bytes it came with, and returns the answer as it comes.

It adds only lines of this hop: Host, Content-Length, and the handshake of a WebSocket. It follows no redirect, uses no
proxy, keeps no cookie, and sends nothing twice: if a connection fails after the first byte of a request was written,
the outcome is unknown, and the error says so. Not here: which target a request has (`segue.http.routes`), and who may
send one.
"""

from __future__ import annotations

import asyncio
import base64
import os
import ssl
from collections.abc import Callable, Mapping
from functools import partial
from types import TracebackType
from typing import Final, Self

import httpcore

from segue.egress.asyncio_network import AsyncioNetwork
from segue.egress.connection import OutboundRequest
from segue.egress.errors import NETWORK_ERRORS, EgressError, egress_error
from segue.egress.inprocess import ProtocolFactory, connect_in_process
from segue.egress.limits import EgressLimits
from segue.egress.network import client_tls, connect
from segue.egress.pool import ConnectionPool, Lease
from segue.egress.reply import StreamedReply
from segue.egress.websocket import OutboundWebSocket
from segue.http.head_writing import encode_request_head
from segue.http.heads import ExchangeKind, Line, ReplyHead, RequestHead, end_to_end
from segue.http.routes import SELF, Resolved, RouteTarget, Target
from segue.http.websocket import handshake_lines, is_accepted

#: The length of the random key of a WebSocket handshake (RFC 6455, 4.1).
_KEY_BYTES: Final = 16
_NOTHING: Final[Mapping[str, object]] = {}


class Egress:
    """The client for all targets. `own` makes the protocol of one connection to the gateway's own server.

    A request to that server may carry `extra`: what is already known of the caller. The server reads it from its
    transport by `get_extra_info`. Only requests with equal extras share a connection; values must be hashable, and
    there should be few different ones, such as one for each tenant.
    """

    def __init__(
        self,
        *,
        limits: EgressLimits | None = None,
        tls: ssl.SSLContext | None = None,
        network: httpcore.AsyncNetworkBackend | None = None,
        own: ProtocolFactory | None = None,
        entropy: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._limits = limits or EgressLimits()
        self._tls = tls
        self._network = network or AsyncioNetwork()
        self._own = own
        self._entropy = entropy
        self._pools: dict[object, ConnectionPool] = {}

    async def open(
        self,
        resolved: Resolved,
        head: RequestHead,
        body: bytes | None,
        *,
        extra: Mapping[str, object] = _NOTHING,
        pass_on: Callable[[StreamedReply], bool] | None = None,
    ) -> StreamedReply:
        """Send a request and return its answer as soon as its head is here. Close the answer, or read it to its end.

        `pass_on` is called with the answer, perhaps before it is returned, whenever something has come of it. It may
        `take` that, and returns False where who reads the answer has to go on.

        Raises:
            EgressError: there is no answer.
        """
        added = () if body is None else (Line(b"Content-Length", b"%d" % len(body)),)
        early = None if pass_on is None else _EarlyReply(head.method, pass_on)
        answer, lease = await self._ask(resolved, head, added, body=body or b"", extra=extra, early=early)
        if early is not None and early.reply is not None:
            return early.reply
        return StreamedReply(answer, lease=lease, method=head.method)

    async def connect(
        self, resolved: Resolved, head: RequestHead, *, extra: Mapping[str, object] = _NOTHING
    ) -> OutboundWebSocket | StreamedReply:
        """Open a WebSocket; return it, or the answer that refuses it.

        Raises:
            EgressError: there is no answer.
        """
        key = base64.b64encode(self._entropy(_KEY_BYTES))
        answer, lease = await self._ask(resolved, head, handshake_lines(key), kind="websocket", extra=extra)
        if answer.status != 101:  # noqa: PLR2004 - Switching Protocols
            return StreamedReply(answer, lease=lease, method=head.method, kind="websocket")
        if not is_accepted(key, answer.lines):
            await lease.aclose()
            message = f"{lease.name} switched to something that is not the WebSocket which was asked for"
            raise EgressError("upstream_protocol_error", message, sent=True)
        return OutboundWebSocket(answer, lease=lease, limits=self._limits)

    async def probe(self, target: Target, *, wait_s: float) -> None:
        """Connect to a target, with TLS if it is reached so, and close the connection: nothing is asked.

        Raises:
            EgressError: it cannot be reached.
        """
        try:
            stream = await connect(target, network=self._network, tls=await self._tls_for(target), wait_s=wait_s)
        except NETWORK_ERRORS as error:
            raise egress_error(error, target.authority.decode("ascii"), sent=False) from error
        await stream.aclose()

    async def _tls_for(self, target: Target) -> ssl.SSLContext | None:
        """Return what TLS to a target needs. To read the system's authorities takes long, and is done when needed."""
        if target.scheme == "http":
            return None
        if self._tls is None:
            self._tls = await asyncio.to_thread(client_tls)
        return self._tls

    async def aclose(self) -> None:
        """Close all connections; requests that still use one fail."""
        for pool in self._pools.values():
            await pool.aclose()
        self._pools.clear()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _ask(
        self,
        resolved: Resolved,
        head: RequestHead,
        added: tuple[Line, ...],
        *,
        body: bytes = b"",
        kind: ExchangeKind = "http",
        extra: Mapping[str, object],
        early: _EarlyReply | None = None,
    ) -> tuple[ReplyHead, Lease]:
        pool = self._pool(resolved.target, extra)
        lines = (Line(b"Host", pool.authority), *end_to_end(head.lines, kind), *added)
        request = _request(RequestHead(head.method, resolved.path, lines), kind, name=pool.name)
        lease = await self._lease(pool)
        pass_on = None if early is None else partial(early.pass_on, lease)
        try:
            return await lease.connection.ask(request, body, pass_on=pass_on), lease
        except NETWORK_ERRORS as error:
            await lease.aclose()
            raise egress_error(error, pool.name, sent=lease.connection.sent) from error
        except BaseException:
            await lease.aclose()
            raise

    async def _lease(self, pool: ConnectionPool) -> Lease:
        try:
            return Lease(pool, await pool.take())
        except TimeoutError:
            message = f"{self._limits.requests} requests to {pool.name} are under way already: try again later"
            raise EgressError("upstream_busy", message, sent=False) from None
        except NETWORK_ERRORS as error:
            raise egress_error(error, pool.name, sent=False) from error

    def _pool(self, target: RouteTarget, extra: Mapping[str, object]) -> ConnectionPool:
        key: object = (SELF, frozenset(extra.items()))
        if target != SELF:
            key = (target.scheme, target.host, target.port)
        if key not in self._pools:
            self._pools[key] = self._own_pool(extra) if target == SELF else self._pool_out(target)
        return self._pools[key]

    def _pool_out(self, target: Target) -> ConnectionPool:
        async def connection() -> httpcore.AsyncNetworkStream:
            tls = await self._tls_for(target)
            return await connect(target, network=self._network, tls=tls, wait_s=self._limits.connect_s)

        name = target.authority.decode("ascii")
        return ConnectionPool(connection, name=name, authority=target.authority, limits=self._limits)

    def _own_pool(self, extra: Mapping[str, object]) -> ConnectionPool:
        own = self._own
        if own is None:
            message = "this route leads to the gateway's own API, and there is none here: give the route another target"
            raise EgressError("upstream_unreachable", message, sent=False)

        async def connection() -> httpcore.AsyncNetworkStream:
            return connect_in_process(own, extra)

        return ConnectionPool(connection, name="the gateway's own API", authority=b"localhost", limits=self._limits)


class _EarlyReply:
    """The answer, made as soon as its head is here, for who passes it on before the task that asked is woken."""

    def __init__(self, method: bytes, pass_on: Callable[[StreamedReply], bool]) -> None:
        self.reply: StreamedReply | None = None
        self._method = method
        self._pass_on = pass_on

    def pass_on(self, lease: Lease, head: ReplyHead) -> bool:
        """Have what has come passed on; False: who reads has to go on."""
        if self.reply is None:
            self.reply = StreamedReply(head, lease=lease, method=self._method)
        return self._pass_on(self.reply)


def _request(head: RequestHead, kind: ExchangeKind, *, name: str) -> OutboundRequest:
    """Return the request, or refuse one that is none before anyone connects for it."""
    if head.method == b"CONNECT":  # RFC 9110, 9.3.6: it asks for a tunnel to a host, and a route names none
        raise EgressError("invalid_request", f"{name} was not asked: CONNECT is not passed on", sent=False)
    encoded = encode_request_head(head)
    if encoded is None:
        raise egress_error(httpcore.LocalProtocolError(), name, sent=False)
    return OutboundRequest(head.method, encoded, upgrades=kind == "websocket")
