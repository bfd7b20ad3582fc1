"""The connections of clients: how many there may be, how long each may take, and which give way to others.

A connection that has not sent a whole request head is *fresh*, and one between two requests is *idle*. Both cost their
client nothing, so they have deadlines, and when there are too many connections, the oldest of them gives way to a new
one. If all are busy, some more are taken in, but only for what operators ask; the others are refused. Not here: how
long a body may take (`api.request_body`), and connections in WebSocket mode, which have timers of their own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, cast

import msgspec
from aiohttp import web
from aiohttp.http_websocket import WebSocketReader
from aiohttp.web_protocol import RequestHandler

from segue.http.websocket_masking import MaskCheck
from segue.protocol.events import http_error
from segue.protocol.problems import Problem

#: Beyond the limit, for the endpoints of operators.
RESERVED = 16
#: A fresh connection that is younger than this does not give way: its request is on the way.
YOUNG_S = 0.25
#: A frame head with a reserved bit, for which aiohttp closes with 1002, as it should for one that is not masked.
_BAD_FRAME = b"\x70\x80"
_REFUSAL = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nContent-Length: %d\r\n"
    b"Retry-After: 1\r\nConnection: close\r\n\r\n%b"
)


def too_many_connections() -> Problem:
    """Return why a connection is refused, or a request on one that is for operators."""
    return Problem("server_overloaded", "There are too many connections at the moment. Try again.", retry_after_s=1)


class AcceptLimits(msgspec.Struct, frozen=True):
    """`most` connections; times in seconds."""

    most: int
    head_s: float
    idle_s: float


class Connections:
    """All connections of one gateway. `clock` is any clock, in seconds."""

    def __init__(self, limits: AcceptLimits, clock: Callable[[], float]) -> None:
        self._limits = limits
        self._clock = clock
        self._open: set[Connection] = set()
        self._fresh: dict[Connection, float] = {}  # since when, the oldest first
        self._idle: dict[Connection, None] = {}  # in the order in which they became idle
        self.reserved: set[Connection] = set()
        """Those beyond the limit: they are only for what operators ask."""

    def __len__(self) -> int:
        return len(self._open)

    def accept(self, connection: Connection) -> bool:
        """Take in a new connection; return False if there is no room for it."""
        while len(self._open) >= self._limits.most and (leaving := self._next_to_leave()) is not None:
            self._drop(leaving)
        if len(self._open) >= self._limits.most + RESERVED:
            return False
        if len(self._open) >= self._limits.most:
            self.reserved.add(connection)
        self._open.add(connection)
        self._fresh[connection] = self._clock()
        return True

    def busy(self, connection: Connection) -> None:
        """Note that a connection has sent the head of a request."""
        self._fresh.pop(connection, None)
        self._idle.pop(connection, None)

    def idle(self, connection: Connection) -> None:
        """Note that a connection has its reply."""
        if connection in self._open:
            self._idle[connection] = None

    def closed(self, connection: Connection) -> None:
        """Note that a connection is gone."""
        self.busy(connection)
        self._open.discard(connection)
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

    def serve(self, server: web.Server, options: Mapping[str, Any]) -> Callable[[], Connection]:
        """Return what makes the protocol of each accepted connection; `options` are aiohttp's."""
        make_request, loop = server.request_factory, asyncio.get_running_loop()

        def begin_request(message: Any, payload: Any, protocol: Any, *rest: Any) -> web.BaseRequest:  # noqa: ANN401 - aiohttp's
            self.busy(protocol)
            return make_request(message, payload, protocol, *rest)

        server.request_factory = begin_request
        return lambda: Connection(self, server, loop=loop, keepalive_timeout=self._limits.idle_s, **options)

    def _next_to_leave(self) -> Connection | None:
        """Return the connection that gives way, if one does."""
        oldest = next(iter(self._fresh), None)
        if oldest is not None and self._clock() - self._fresh[oldest] >= YOUNG_S:
            return oldest
        return next(iter(self._idle), None)

    def _drop(self, connection: Connection) -> None:
        self.closed(connection)
        connection.force_close()


class Connection(RequestHandler):
    """One connection of a client, as aiohttp serves it."""

    __slots__ = ("_connections",)

    def __init__(self, connections: Connections, server: web.Server, **options: Any) -> None:  # noqa: ANN401 - aiohttp's
        super().__init__(server, **options)
        self._connections = connections

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to serve, or say that there is no room."""
        if self._connections.accept(self):
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

    def set_parser(self, parser: WebSocketReader, data_received_cb: Callable[[], None] | None = None) -> None:
        """Read frames from now on, masked ones."""
        super().set_parser(cast("WebSocketReader", _MaskedFrames(parser)), data_received_cb)


class _MaskedFrames:
    """Reads the frames of a WebSocket until one is not masked."""

    __slots__ = ("_check", "_reader")

    def __init__(self, reader: WebSocketReader) -> None:
        self._reader = reader
        self._check = MaskCheck()

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        check = self._check
        result: tuple[bool, bytes] = self._reader.feed_data(check.passed(data))
        return self._reader.feed_data(_BAD_FRAME) if check.violated else result

    def feed_eof(self) -> None:
        self._reader.feed_eof()
