"""The connections of clients: how many there may be, how long each may take, and which give way to others.

A connection that has not sent a whole request head is *fresh*, with TLS from before its handshake on, and one between
two requests is *idle*. Both cost their client nothing, so they have deadlines, and when there are too many connections,
one of them gives way to a new one: one of an address that has more connections than the new one's, or else the oldest.
So a flood displaces itself, and not others. If all are busy, some more are taken in, but only for what operators ask;
the others are refused. Not here: TLS (`tls_port`), how long a body may take (`api.request_body`), and connections in
WebSocket mode, which have timers of their own.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
import ssl
from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from itertools import islice
from typing import Any, Literal, Protocol, cast

import msgspec
from aiohttp import web
from aiohttp._websocket.helpers import websocket_mask  # no public name has it
from aiohttp.http_exceptions import LineTooLong
from aiohttp.http_websocket import WebSocketReader
from aiohttp.web_protocol import RequestHandler

from segue.gateway.address_shares import AddressGroup, AddressShares, address_group
from segue.gateway.client_certificate import ClientCertificate, client_certificate
from segue.gateway.tenant_shares import TenantShares
from segue.gateway.transport import watch_peer
from segue.http.client_frames import ClientFrames, LargeTexts
from segue.peer_credentials.lookup import PeerUsers, peer_users
from segue.protocol.events import http_error
from segue.protocol.problems import Problem

#: Beyond the limit, for the endpoints of operators.
RESERVED = 16
#: A fresh connection that is younger than this does not give way to one of the same address: its request is on the way.
YOUNG_S = 0.25
#: This part of all connections that are not busy is fresh only in a flood.
_FLOOD = 0.75
#: Among so many of the oldest ones it is looked for whose address has most. A flood has most of them.
_LOOKED_AT = 64
#: Heads of frames for which aiohttp closes as it should for a fault: one with a reserved bit with 1002, and one that is
#: larger than any limit with 1009.
_BAD_FRAMES: Mapping[Literal["protocol", "size"], bytes] = {
    "protocol": b"\x70\x80",
    "size": b"\x81\x7f" + (1 << 62).to_bytes(8, "big"),
}
_REFUSAL = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nContent-Length: %d\r\n"
    b"Retry-After: 1\r\nConnection: close\r\n\r\n%b"
)


class UnreadRequestReply(web.Response):
    """The answer to a request that aiohttp could not read, or outside of the application, whose hooks it goes past."""

    def __init__(self, status: int, problem: Problem, kind: str) -> None:
        super().__init__(status=status, body=http_error(problem, kind), content_type="application/json")
        self.force_close()

    async def _prepare_headers(self) -> None:
        await super()._prepare_headers()
        self.headers.popall("Server", None)  # it tells attackers the versions


def _unread_request(status: int, error: BaseException | None) -> UnreadRequestReply:
    """Answer in the shape of all errors; aiohttp would quote the request, credentials included, in plain text.

    Which API was meant is not known: its path may be what could not be read.
    """
    if isinstance(error, LineTooLong):
        message = f"The request line, or a header line, is longer than {error.args[1]} bytes."
        return UnreadRequestReply(431, Problem("request_head_too_large", message), "invalid_request_error")
    if status < HTTPStatus.INTERNAL_SERVER_ERROR:
        problem = Problem("invalid_value", "This is no correct HTTP/1.1 request.")
        return UnreadRequestReply(status, problem, "invalid_request_error")
    return UnreadRequestReply(status, Problem("server_error", "The gateway failed. Try again."), "server_error")


def too_many_connections() -> Problem:
    """Return why a connection is refused, or a request on one that is for operators."""
    return Problem("server_overloaded", "There are too many connections at the moment. Try again.", retry_after_s=1)


class AcceptLimits(msgspec.Struct, frozen=True):
    """`most` connections; times in seconds."""

    most: int
    head_s: float
    idle_s: float


class HeldConnection(Protocol):
    """What can be told to end."""

    def force_close(self) -> None:
        """End it at once."""


class Connections:
    """All connections of one gateway. `clock` is any clock, in seconds; `users`: whose they are."""

    def __init__(self, limits: AcceptLimits, clock: Callable[[], float], users: PeerUsers | None = None) -> None:
        self.users = peer_users() if users is None else users
        self._limits = limits
        self._clock = clock
        self._open: dict[HeldConnection, AddressGroup] = {}
        self._shares = AddressShares()
        self._fresh: dict[HeldConnection, float] = {}  # since when, the oldest first
        self._idle: dict[HeldConnection, None] = {}  # in the order in which they became idle
        self._tenants = TenantShares(limits.most)
        self.reserved: set[HeldConnection] = set()
        """Those beyond the limit: they are only for what operators ask."""

    def __len__(self) -> int:
        return len(self._open)

    def accept(self, connection: HeldConnection, peer: object = None) -> bool:
        """Take in a new connection of a peer; return False if there is no room for it."""
        group = address_group(peer)
        while len(self._open) >= self._limits.most and (leaving := self._next_to_leave(group)) is not None:
            self._drop(leaving)
        if len(self._open) >= self._limits.most + RESERVED:
            return False
        if len(self._open) >= self._limits.most:
            self.reserved.add(connection)
        self._open[connection] = group
        self._shares.add(group)
        self._fresh[connection] = self._clock()
        return True

    def succeed(self, before: HeldConnection, connection: HeldConnection) -> bool:
        """Give a connection the place of what it was before; return False if that has lost it."""
        if before not in self._open:
            return False
        self._open[connection] = self._open.pop(before)
        if before in self.reserved:
            self.reserved.remove(before)
            self.reserved.add(connection)
        self._fresh.pop(before, None)
        self._fresh[connection] = self._clock()
        return True

    def busy(self, connection: HeldConnection) -> None:
        """Note that a connection has sent the head of a request."""
        self._fresh.pop(connection, None)
        self._idle.pop(connection, None)
        self._tenants.wake(connection)

    def begin(self, connection: HeldConnection, tenant: str) -> bool:
        """Note whose the request on a connection is; return False if its tenant has too many under way."""
        return connection not in self._open or self._tenants.begin(connection, tenant)

    def idle(self, connection: HeldConnection) -> None:
        """Note that a connection has its reply."""
        if connection in self._open:
            self._idle[connection] = None
            self._tenants.rest(connection)

    def closed(self, connection: HeldConnection) -> None:
        """Note that a connection is gone."""
        self.busy(connection)
        self._tenants.closed(connection)
        group = self._open.pop(connection, None)
        if group is not None:
            self._shares.remove(group)
        self.reserved.discard(connection)

    async def sweep(self) -> None:
        """Close, at an interval, the connections that have not sent a head in time."""
        while True:
            await asyncio.sleep(min(1.0, self._limits.head_s / 4))
            self.close_overdue()

    def close_overdue(self) -> None:
        """Close the connections that have not sent a head in time. aiohttp closes those that are idle for too long."""
        since = self._clock() - self._limits.head_s
        for connection in [one for one, at in self._fresh.items() if at <= since]:
            self._drop(connection)

    def serve(self, server: web.Server, options: Mapping[str, Any]) -> Callable[[HeldConnection | None], Connection]:
        """Return what makes the protocol of each accepted connection; `options` are aiohttp's.

        It is given what has the place of the connection already, if anything has.
        """
        make_request, loop = server.request_factory, asyncio.get_running_loop()

        def begin_request(message: Any, payload: Any, protocol: Any, *rest: Any) -> web.BaseRequest:  # noqa: ANN401 - aiohttp's
            self.busy(protocol)
            return make_request(message, payload, protocol, *rest)

        server.request_factory = begin_request

        def connection(before: HeldConnection | None) -> Connection:
            return Connection(self, server, before, loop=loop, keepalive_timeout=self._limits.idle_s, **options)

        return connection

    def _next_to_leave(self, group: AddressGroup) -> HeldConnection | None:
        """Return the connection that gives way to a new one of a group, if one does.

        It is of the largest share, and never of one that is smaller than that of the new one. Within a share, an old
        fresh one goes before an idle one, and a young one goes only for a smaller share, or in a flood: if nearly all
        that are not busy are fresh. Of idle ones, it is one of the tenant that has most of them.
        """
        ours, since = self._shares.of(group), self._clock() - YOUNG_S
        fresh, idle = self._of_largest_share(self._fresh), self._of_largest_share(self._idle)
        ranked = [] if idle is None else [(self._share(idle), 1, idle)]
        if fresh is not None:
            goes = self._fresh[fresh] <= since or (
                idle is not None and self._is_flooded() and self._share(idle) >= ours
            )
            ranked.append((self._share(fresh) if goes else self._share(fresh) - 1, 2 if goes else 0, fresh))
        best = max(ranked, key=lambda rank: rank[:2], default=None)
        return None if best is None or best[0] < ours else best[2]

    def _is_flooded(self) -> bool:
        return len(self._fresh) > _FLOOD * (len(self._fresh) + len(self._idle))

    def _of_largest_share(self, waiting: Iterable[HeldConnection]) -> HeldConnection | None:
        """Return which of the oldest of these connections is of the address, and the tenant, that has most."""
        oldest = islice(waiting, _LOOKED_AT)
        if len(self._shares) == 1:  # on a loopback address, or behind a proxy
            return max(oldest, key=self._tenants.idle_beside, default=None)
        return max(oldest, key=lambda one: (self._share(one), self._tenants.idle_beside(one)), default=None)

    def _share(self, connection: HeldConnection) -> int:
        return self._shares.of(self._open[connection])

    def _drop(self, connection: HeldConnection) -> None:
        self.closed(connection)
        connection.force_close()


class FramedConnection(RequestHandler):
    """A connection as aiohttp serves it, but for the frames of a WebSocket; it may be one within this process."""

    __slots__ = ("_texts",)

    def __init__(self, server: web.Server, **options: Any) -> None:  # noqa: ANN401 - aiohttp's
        super().__init__(server, **options)
        self._texts: LargeTexts | None = None

    def take_large_texts(self, most_bytes: int) -> LargeTexts:
        """Keep the large texts of the WebSocket that this will be apart: aiohttp joins a text within one call."""
        self._texts = LargeTexts(most_bytes, secrets.token_bytes(16), websocket_mask)
        return self._texts

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer a request that cannot be read, or is not answered by the application."""
        super().handle_error(request, status, exc, message)  # it ends a reply that has begun
        return _unread_request(status, exc)

    def set_parser(self, parser: WebSocketReader, data_received_cb: Callable[[], None] | None = None) -> None:
        """Read frames from now on, masked ones."""
        reader = _MaskedFrames(parser, self._texts, self.pause_reading)
        super().set_parser(cast("WebSocketReader", reader), data_received_cb)


class Connection(FramedConnection):
    """One connection of a client."""

    __slots__ = ("_before", "_certificate", "_connections", "_own")

    def __init__(
        self,
        connections: Connections,
        server: web.Server,
        before: HeldConnection | None = None,
        **options: Any,  # noqa: ANN401 - aiohttp's
    ) -> None:
        super().__init__(server, **options)
        self._connections = connections
        self._before = before
        self._own: bool | None = None
        self._certificate: ClientCertificate | Literal["unread"] | None = "unread"

    @property
    def certificate(self) -> ClientCertificate | None:
        """The certificate of the client, verified; None if it has shown none."""
        if self._certificate == "unread":
            self._certificate = self._read_certificate()
        return self._certificate

    def _read_certificate(self) -> ClientCertificate | None:
        tls: ssl.SSLObject | None = None if self.transport is None else self.transport.get_extra_info("ssl_object")
        der, shown = (None, None) if tls is None else (tls.getpeercert(binary_form=True), tls.getpeercert())
        return client_certificate(der, shown) if der and shown else None  # empty: nothing has verified it

    @property
    def own(self) -> bool:
        """Whether its other end is a program of the gateway's own user, as far as the platform tells; asked once."""
        if self._own is None:
            self._own = self._is_own()
        return self._own

    def _is_own(self) -> bool:
        if not self._connections.users.known:
            return True
        end: socket.socket | None = None if self.transport is None else self.transport.get_extra_info("socket")
        if end is not None and end.family == socket.AF_UNIX:
            return True  # it has been looked at when it was accepted (`user_socket`)
        return self._connections.users.is_own(end)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to serve, or say that there is no room."""
        before, self._before = self._before, None
        if before is None:
            has_room = self._connections.accept(self, transport.get_extra_info("peername"))
        else:
            has_room = self._connections.succeed(before, self)
        if has_room:
            watch_peer(transport)
            super().connection_made(transport)
            return
        stream = cast("asyncio.Transport", transport)  # uvloop's are no subclass
        body = http_error(too_many_connections(), "server_error")
        stream.write(_REFUSAL % (len(body), body))
        stream.close()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Forget it."""
        self._connections.closed(self)
        super().connection_lost(exc)

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send the rest of a reply; from then on the connection is idle."""
        finished = await super().finish_response(request, resp, start_time)
        self._connections.idle(self)
        return finished


class _MaskedFrames:
    """Reads the frames of a WebSocket until one breaks the protocol. `pause` stops reading from the client.

    While a large text waits, nothing more is read than aiohttp asks for: it does so with each message that is taken.
    """

    __slots__ = ("_frames", "_pause", "_reader", "_texts")

    def __init__(self, reader: WebSocketReader, texts: LargeTexts | None, pause: Callable[[], None]) -> None:
        self._reader = reader
        self._texts = texts
        self._pause = pause
        self._frames = ClientFrames(texts)

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        frames = self._frames
        result: tuple[bool, bytes] = self._reader.feed_data(frames.passed(data))
        if self._texts is not None and self._texts.arrived:
            self._pause()
        return result if frames.fault is None else self._reader.feed_data(_BAD_FRAMES[frames.fault])

    def feed_eof(self) -> None:
        self._reader.feed_eof()


def large_texts(request: web.BaseRequest, most_bytes: int) -> LargeTexts:
    """Keep the large texts of the WebSocket that a request asks for apart, and return where they will be."""
    assert isinstance(request.protocol, FramedConnection), "the gateway makes all of them"
    return request.protocol.take_large_texts(most_bytes)


def certificate_of(request: web.BaseRequest) -> ClientCertificate | None:
    """Return the certificate of the client at the other end of a request's connection."""
    return request.protocol.certificate if isinstance(request.protocol, Connection) else None
