"""What a door must do: read a request of one provider API, and write the events of a turn as that API's reply.

A door is the other side of a dialect. It gives the executor the same checked `Create` that `/v1/responses` does, and is
given the same events. There is one stream of a turn: a reply that is not streamed is made of what was fed. Where the
turn's upstream speaks the door's API, the request passes through (`Create.native`), and the provider's events come as
`SOURCE` events beside those of the turn: the writer sends them instead, with the gateway's id. Not here: quotas,
sockets and headers (`gateway.api.doors`), and which HTTP status a problem has (`gateway.error_mapping`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, Protocol

import msgspec

from segue.protocol.events import Event
from segue.protocol.ids import ResponseId
from segue.protocol.problems import Problem
from segue.protocol.request_size import RequestLimits
from segue.protocol.requests import Create
from segue.protocol.turns import Finished

#: Tells of a model whether its upstream speaks the API of the door.
Speaks = Callable[[str], bool]


class DoorRequest(msgspec.Struct, frozen=True):
    """A request, read and checked; a door's own has more of what its writer needs."""

    create: Create


class DoorWriter(Protocol):
    """Writes the reply of one turn. Every event but the terminal one is fed, and then the result of the turn."""

    def feed(self, events: Sequence[Event]) -> bytes:
        """Return a batch of events as server-sent events of this API; nothing, if they mean nothing there."""

    def finish(self, finished: Finished) -> bytes:
        """Return the end of the stream of a turn that has not failed. It is committed by now."""

    def failed(self, problem: Problem, *, kind: str, status: int) -> bytes:
        """Return the end of the stream of a turn that failed: an error, with the type and status of HTTP's."""

    def whole(self, finished: Finished) -> bytes | Problem:
        """Return the reply as one JSON object, or why it cannot be told. The turn has not failed."""


class Door(Protocol):
    """One API as clients speak it."""

    @property
    def name(self) -> Literal["chat", "messages"]:
        """The word for it in the configuration."""

    def passed_headers(self, headers: Sequence[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
        """Return those header lines of a client that go on with a request that passes through."""

    def read(self, body: bytes, *, speaks: Speaks, limits: RequestLimits) -> DoorRequest | Problem:
        """Read the body of a request. It may be called in another thread."""

    def writer(self, asked: DoorRequest, response_id: ResponseId, created_at: int) -> DoorWriter:
        """Make the writer of one reply; time in unix seconds."""
