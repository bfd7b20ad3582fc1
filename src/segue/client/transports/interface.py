"""What a session needs of a transport. A transport carries; it does not decide.

Each session has a lane: a number that a transport maps to a connection, and on a shared one to a `stream_id`. Each
connection has a number of its own, since an unstored response lives only on the connection that made it. Not here: how
HTTP and WebSocket do it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

import msgspec

from segue.client.capabilities import ServerCapabilities
from segue.client.recovery import TurnFault
from segue.client.settings import TransportKind
from segue.protocol.requests import LeanForm


class Connected(msgspec.Struct, frozen=True):
    """Where the next request of a lane goes: the number of the connection, and what its server offers.

    Over HTTP the number is 0: no response lives on a connection there.
    """

    connection: int
    capabilities: ServerCapabilities


class TransportFault(Exception):
    """Raised by a transport when something went wrong; `fault` says what, as a value."""

    def __init__(self, fault: TurnFault) -> None:
        super().__init__(fault.kind)
        self.fault = fault


class EventStream(Protocol):
    """The events of one create or one resume: the JSON of one event each. It ends after the terminal event.

    Anything else raises `TransportFault`, an `error` event too. A server that answers JSON in place of a stream yields
    that one document: the response object.
    """

    @property
    def wire_sent_bytes(self) -> int:
        """What the socket carried for the request, as near as the transport can tell."""
        ...

    @property
    def wire_received_bytes(self) -> int:
        """What the socket carried of the answer so far, as near as the transport can tell."""
        ...

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Return the iterator, which is the stream itself."""
        ...

    async def __anext__(self) -> bytes:
        """Return the JSON of the next event."""
        ...

    async def aclose(self) -> None:
        """Stop reading: of a stream that has not ended, this cancels the turn as far as the transport can."""
        ...


class ResponsesTransport(Protocol):
    """One way to a Responses server. All methods but `release` raise `TransportFault`."""

    @property
    def kind(self) -> TransportKind:
        """Which transport it is."""
        ...

    async def connect(self, *, lane: int, near: int | None = None, fresh: bool = False) -> Connected:
        """Make sure that the lane has a connection, and say which.

        `near` is the connection of the response that the lane will continue: the lane goes there if it has no
        connection yet and there is room. `fresh` asks the server anew what it offers, past everything that is known.
        """
        ...

    async def create(self, body: bytes, *, lane: int, connection: int) -> EventStream:
        """Send a create on this connection, or on none (`connection_gone`). `body` is one JSON object."""
        ...

    async def resume(
        self, response_id: str, starting_after: int, *, lane: int, connection: int, lean: LeanForm = False
    ) -> EventStream:
        """Ask for the events of a response after a number; -1 means all. `lean` asks for as little as a lean create."""
        ...

    async def retrieve(self, response_id: str) -> bytes:
        """Return a stored response object, by `GET /responses/{id}`."""
        ...

    async def forget(self, response_id: str) -> None:
        """Delete a response, by `DELETE /responses/{id}`: a server that runs it for nobody stops it."""
        ...

    def release(self, lane: int) -> None:
        """Forget a lane: its session is over."""
        ...

    async def aclose(self) -> None:
        """Close all connections."""
        ...
