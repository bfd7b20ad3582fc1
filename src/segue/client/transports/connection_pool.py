"""Responses over WebSockets: which connection each lane goes to.

Lanes share a connection where the server offers that, as many as may run at once; else each has its own. A lane stays
where it is, since its unstored responses live there, until the connection is over or too old: a connection is renewed
before the server ends it. A lane that continues a response of another connection goes there if there is room. Not here:
one connection (`websocket`), the handshake (`upgrade`), and HTTP, by which stored responses are retrieved (`http`).
"""

from __future__ import annotations

import asyncio
import ssl
from contextlib import nullcontext
from typing import Literal

from segue.client.recovery import TurnFault
from segue.client.settings import ConnectionSettings
from segue.client.transports.http import HttpTransport
from segue.client.transports.interface import Connected, EventStream, TransportFault
from segue.client.transports.upgrade import open_socket
from segue.client.transports.websocket import LaneConnection, SocketLimits
from segue.http_client.wire_meter import WireMeter
from segue.protocol.codec import encode
from segue.protocol.requests import LeanForm

#: How old a connection may become if its server does not say.
_DEFAULT_AGE_S = 3600.0
#: A connection is renewed when this much of its time is over, since what is sent last must arrive before the end.
_RENEWED_AT = 11 / 12


class WebSocketTransport:
    """One server over WebSockets. It opens its first connection when the first lane asks for one."""

    def __init__(
        self,
        settings: ConnectionSettings,
        *,
        tls: ssl.SSLContext | None = None,
        limits: SocketLimits | None = None,
    ) -> None:
        self._http = HttpTransport(settings, tls=tls)
        self._server = self._http.server
        self._limits = SocketLimits(heartbeat_s=settings.heartbeat_s) if limits is None else limits
        self._connections: dict[int, LaneConnection] = {}
        self._opened = 0
        self._opening = asyncio.Lock()
        self._shared = True  # until a server turns out to have no lanes
        self._closing: set[asyncio.Task[None]] = set()

    @property
    def kind(self) -> Literal["websocket"]:
        """Which transport it is."""
        return "websocket"

    @property
    def meter(self) -> WireMeter:
        """What all connections have carried."""
        return self._server.meter

    async def connect(self, *, lane: int, near: int | None = None, fresh: bool = False) -> Connected:  # noqa: ARG002 - every connection says anew what its server offers
        """Make sure that the lane has a seat on a connection that lives and is young. Raises `TransportFault`."""
        found = self._seat(lane, near)
        if found is None:
            # One at a time: who waits may find room on the connection that is being opened.
            async with self._opening if self._shared else nullcontext():
                found = self._seat(lane, near) or await self._open(lane)
        return Connected(found.number, found.capabilities)

    async def create(self, body: bytes, *, lane: int, connection: int) -> EventStream:
        """Send a create. `body` is a JSON object with at least one member."""
        return await self._request(b'{"type":"response.create",', body, lane=lane, connection=connection)

    async def resume(
        self, response_id: str, starting_after: int, *, lane: int, connection: int, lean: LeanForm = False
    ) -> EventStream:
        """Ask for the events of a response after a number; -1 means all."""
        members = {"response_id": response_id, "starting_after": starting_after}
        body = encode(members | ({"lean": lean} if lean else {}))
        return await self._request(b'{"type":"segue.resume",', body, lane=lane, connection=connection, resumed=True)

    async def retrieve(self, response_id: str) -> bytes:
        """Return a stored response object, by HTTP."""
        return await self._http.retrieve(response_id)

    async def forget(self, response_id: str) -> None:
        """Delete a response, by HTTP."""
        await self._http.forget(response_id)

    def release(self, lane: int) -> None:
        """Free the seat of a lane. One connection without lanes is kept for the next one."""
        for connection in self._connections.values():
            connection.seats.leave(lane)
        self._prune()

    async def aclose(self) -> None:
        """Close all connections."""
        connections = tuple(self._connections.values())
        self._connections.clear()
        try:
            await asyncio.gather(*(connection.aclose() for connection in connections), *self._closing)
        finally:
            for connection in connections:
                connection.drop()
            await self._http.aclose()

    # --- private -----------------------------------------------------------------------------------------------------

    async def _request(
        self, start: bytes, body: bytes, *, lane: int, connection: int, resumed: bool = False
    ) -> EventStream:
        found = self._connections.get(connection)
        if found is None:
            raise TransportFault(TurnFault(kind="connection_gone", transport="websocket", delivered="no"))
        return await found.request(lane, start, body, resumed=resumed)

    async def _open(self, lane: int) -> LaneConnection:
        opened = await open_socket(self._server)
        self._opened += 1
        connection = LaneConnection(self._opened, opened, self._server.words, self._limits)
        self._connections[connection.number] = connection
        self._shared = opened.capabilities.lanes.names > 0
        connection.seats.sit(lane, connection.busy)
        return connection

    def _seat(self, lane: int, near: int | None) -> LaneConnection | None:
        """Return the connection where the lane has a seat, or gets one; None if there is none."""
        self._prune()
        usable = [connection for connection in self._connections.values() if self._is_usable(connection)]
        for connection in self._connections.values():
            if lane in connection.seats.lanes:
                if connection in usable:
                    return connection
                connection.seats.leave(lane)
        nearest = [one for one in usable if one.number == near and one.seats.has_room(one.busy, near=True)]
        for connection in nearest or [one for one in usable if one.seats.has_room(one.busy)]:
            connection.seats.sit(lane, connection.busy)
            return connection
        return None

    def _is_usable(self, connection: LaneConnection) -> bool:
        """Tell whether another request may be sent: the connection is open, and neither too old nor unused too long."""
        if connection.closed or connection.retired:
            return False
        now, offered = asyncio.get_running_loop().time(), connection.capabilities
        age_s = _DEFAULT_AGE_S if offered.connection_age_s is None else offered.connection_age_s
        if now - connection.opened_at >= age_s * _RENEWED_AT:
            return False
        idle_s = offered.connection_idle_s
        return idle_s is None or bool(connection.busy) or now - connection.used_at < idle_s * _RENEWED_AT

    def _prune(self) -> None:
        """Close connections that nobody needs: that are over, or that have no lane, but for one that is usable."""
        spare = None
        for number, connection in tuple(self._connections.items()):
            if connection.closed or (not connection.seats.lanes and not connection.busy):
                if spare is None and self._is_usable(connection) and connection.seats.has_room(()):
                    spare = connection
                    continue
                del self._connections[number]
                task = asyncio.get_running_loop().create_task(connection.aclose())
                self._closing.add(task)
                task.add_done_callback(self._closing.discard)
