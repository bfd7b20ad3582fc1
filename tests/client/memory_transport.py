"""Transports in memory to a played server: for tests of sessions, with faults where a test puts them.

Not here: the server (`played_server`), and real sockets (`tests/client/transports`).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from typing import Any

import msgspec

from segue.client.capabilities import ServerCapabilities
from segue.client.client import AsyncClient
from segue.client.recovery import TurnFault
from segue.client.session import AsyncSession, SessionHost
from segue.client.settings import ConnectionSettings, TransportKind
from segue.client.transports.interface import Connected, TransportFault
from segue.client.turn import RecoveryObserver, ServerLinks
from segue.client.turn_effects import RecoveryStep
from segue.protocol.requests import LeanForm
from tests.client.played_server import PlayedServer, text_of

#: What meets a request: a fault in place of its answer, or how many events come before the connection is lost.
Trouble = TurnFault | int | None


class MemoryStream:
    """The events of one answer. With `hold`, the last of them waits until the test lets it go."""

    def __init__(self, events: Iterable[bytes], end: TurnFault | None, hold: asyncio.Event | None) -> None:
        self._events = deque(events)
        self._end = end
        self._hold = hold
        self.closed = False
        self.wire_sent_bytes = 10
        self.wire_received_bytes = 0

    def __aiter__(self) -> MemoryStream:
        return self

    async def __anext__(self) -> bytes:
        if self._hold is not None and len(self._events) == 1:
            await self._hold.wait()
        if self._events:
            data = self._events.popleft()
            self.wire_received_bytes += len(data)
            return data
        if self._end is not None:
            raise TransportFault(self._end)
        raise StopAsyncIteration

    async def aclose(self) -> None:
        self.closed = True


class MemoryTransport:
    """One transport to the server. `troubles` meet its requests in order."""

    def __init__(self, server: PlayedServer, kind: TransportKind) -> None:
        self.server = server
        self.kind = kind
        self.troubles: deque[Trouble] = deque()
        self.refusals: deque[TurnFault] = deque()  # of connects
        self.hold: asyncio.Event | None = None
        self.streams: list[MemoryStream] = []
        self.answered = asyncio.Event()
        self.released: list[int] = []
        self.forgotten: list[str] = []
        self.closed = False
        self._connection = 0

    def drop(self) -> None:
        """Break the connection."""
        self._connection = 0

    async def connect(self, *, lane: int, near: int | None = None, fresh: bool = False) -> Connected:
        if self.refusals:
            raise TransportFault(self.refusals.popleft())
        capabilities: ServerCapabilities = self.server.capabilities()
        if self.kind == "http":
            return Connected(0, capabilities)
        if not self._connection:
            self.server.connections += 1
            self._connection = self.server.connections
        return Connected(self._connection, capabilities)

    async def create(self, body: bytes, *, lane: int, connection: int) -> MemoryStream:
        trouble = self._trouble()
        made = self.server.create(body, connection)
        if isinstance(made, TurnFault):
            raise TransportFault(msgspec.structs.replace(made, transport=self.kind))
        return self._stream(list(made.events), trouble)

    async def resume(
        self, response_id: str, starting_after: int, *, lane: int, connection: int, lean: LeanForm = False
    ) -> MemoryStream:
        trouble = self._trouble()
        found = self.server.resume(response_id, starting_after, connection)
        if isinstance(found, TurnFault):
            raise TransportFault(found)
        return self._stream(found, trouble)

    async def retrieve(self, response_id: str) -> bytes:
        found = self.server.retrieve(response_id)
        if isinstance(found, TurnFault):
            raise TransportFault(found)
        return found

    async def forget(self, response_id: str) -> None:
        self.forgotten.append(response_id)
        if self.refusals:
            raise TransportFault(self.refusals.popleft())

    def release(self, lane: int) -> None:
        self.released.append(lane)

    async def aclose(self) -> None:
        self.closed = True

    def _trouble(self) -> int | None:
        trouble = self.troubles.popleft() if self.troubles else None
        if isinstance(trouble, TurnFault):
            raise TransportFault(trouble)
        return trouble

    def _stream(self, events: list[bytes], cut: int | None) -> MemoryStream:
        end = None
        if cut is not None:
            self.drop()
            end = TurnFault(kind="connection_lost", transport=self.kind, silent_s=0.1)
        self.streams.append(MemoryStream(events[:cut], end, self.hold))
        self.answered.set()
        return self.streams[-1]


class MemoryLinks:
    """Both transports to one server, and what a client makes of them."""

    def __init__(self, **rules: Any) -> None:  # noqa: ANN401 - the rules of the server
        self.server = PlayedServer(**rules)
        self.http = MemoryTransport(self.server, "http")
        self.websocket = MemoryTransport(self.server, "websocket")

    def open(self, settings: ConnectionSettings | None = None) -> ServerLinks:
        return ServerLinks(self.http, self.websocket)

    def host(self, observer: RecoveryObserver | None = None) -> SessionHost:
        return SessionHost("http://played/v1", self.open(), observer)


def client_of(links: MemoryLinks, steps: list[RecoveryStep] | None = None) -> AsyncClient:
    return AsyncClient("http://played/v1", links=links.open, on_recovery=None if steps is None else steps.append)


def texts(session: AsyncSession) -> tuple[str, ...]:
    return tuple(text_of(msgspec.json.decode(item)) for item in session.history)


async def say(session: AsyncSession, text: str) -> str:
    return (await session.send(text).response()).output_text
