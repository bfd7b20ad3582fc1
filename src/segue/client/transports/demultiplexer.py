"""Which lane of a WebSocket each message is for: pure.

Events of a named lane carry its `stream_id`, those of the default lane none. An error without one is the answer to the
default lane's create, or about the connection. If nobody can tell whose error it is, no lane is told that it was
refused: a turn that is taken for refused is sent again, and would be paid twice. A lane that was abandoned stays busy
until the server ends its turn; its events are dropped. Compact events are handed on as the events that they stand for.
Not here: the socket, and queues (`websocket`).
"""

from __future__ import annotations

import msgspec

from segue.client.recovery import FaultKind, TurnFault
from segue.client.transports.event_scan import ScannedEvent, scan
from segue.client.transports.server_errors import ServerWords, WordReader
from segue.protocol.compact_events import CompactKind, CompactReader, read_frame
from segue.protocol.lanes import DEFAULT_LANE

#: The connection takes no more creates: too old, or its server is going away.
CONNECTION_LIMIT = "websocket_connection_limit_reached"

_CREATED, _FAILED = "response.created", "response.failed"


class Deliver(msgspec.Struct, frozen=True, gc=False):
    """Hand an event to its lane; the last one ends the lane's turn."""

    lane: str
    data: bytes
    last: bool


class FailLane(msgspec.Struct, frozen=True):
    """End the lane's turn with a fault."""

    lane: str
    fault: TurnFault


class RetireConnection(msgspec.Struct, frozen=True):
    """Send no further create on this connection; what runs may end."""


class BreakConnection(msgspec.Struct, frozen=True):
    """Close the connection: what came cannot be given to anybody. Every turn that runs ends with `fault`."""

    fault: TurnFault


RoutingEffect = Deliver | FailLane | RetireConnection | BreakConnection


class _LaneTurn:
    __slots__ = ("abandoned", "compact", "created", "started")

    def __init__(self, *, created: bool) -> None:
        self.compact = CompactReader()
        self.created = created
        self.started = False
        self.abandoned = False


class Demultiplexer:
    """The turns that run on one connection, by lane."""

    def __init__(self, words: WordReader) -> None:
        self._words = words
        self._turns: dict[str, _LaneTurn] = {}
        self._says_lanes = False

    @property
    def running(self) -> list[str]:
        """The lanes whose turns run, abandoned ones too."""
        return list(self._turns)

    @property
    def waiting(self) -> list[str]:
        """The lanes of which nothing has come yet."""
        return [lane for lane, turn in self._turns.items() if not turn.started]

    def begin(self, lane: str, *, resumed: bool = False) -> None:
        """Note that a create, or a resume, is about to be sent in a lane that runs none."""
        assert lane not in self._turns, "a lane runs one turn at a time"
        self._turns[lane] = _LaneTurn(created=resumed)

    def abandon(self, lane: str) -> None:
        """Drop what still comes for the lane's turn."""
        turn = self._turns.get(lane)
        if turn is not None:
            turn.abandoned = True

    def forget(self, lane: str) -> None:
        """Note that the lane's turn is over, or was never sent."""
        self._turns.pop(lane, None)

    def receive(self, data: bytes, now: float) -> list[RoutingEffect]:
        """Take one message; `now` is the unix time, for dates in `Retry-After`."""
        if data.startswith(b"["):
            return self._receive_compact(data)
        event = scan(data)
        if event is None:
            return self._broken("The server sent a message that is no event.")
        if event.error:
            words = self._words.read_event(data, now) or ServerWords()
            return self._fail(event, words)
        self._says_lanes = self._says_lanes or bool(event.lane)
        lane = event.lane if event.lane in self._turns else self._untagged(event)
        if lane is None:
            if not event.lane and self._turns and not self._says_lanes and event.of_response:
                return self._broken("The server sent an event without stream_id while no request without one runs.")
            return []  # of a turn that is over
        return self._deliver(lane, event, data)

    def _deliver(self, lane: str, event: ScannedEvent, data: bytes) -> list[RoutingEffect]:
        turn = self._turns[lane]
        turn.started = turn.started or event.of_response
        turn.created = turn.created or event.type == _CREATED
        # A proxy that repeats the end of the turn before may do so when this one is under way.
        last = event.terminal and (turn.created or event.type == _FAILED)
        if last:
            del self._turns[lane]
        return [] if turn.abandoned else [Deliver(lane, data, last)]

    def _receive_compact(self, data: bytes) -> list[RoutingEffect]:
        """Take a compact event. One that cannot be read ends its turn, since what follows builds on it."""
        frame = read_frame(data)
        if frame is None:
            return self._broken("The server sent a message that is no event.")
        turn = self._turns.get(frame.lane)
        if turn is None:
            return []  # of a turn that is over
        if turn.abandoned:
            if frame.kind == CompactKind.ENDED:
                del self._turns[frame.lane]
            return []
        read = turn.compact.read(frame)
        event = None if read is None else scan(read)
        if read is None or event is None:
            turn.abandoned = True
            message = "An event does not fit those before it: one of them has not come."
            return [FailLane(frame.lane, TurnFault(kind="unreadable", transport="websocket", message=message))]
        return self._deliver(frame.lane, event, read)

    def _untagged(self, event: ScannedEvent) -> str | None:
        """Return the one lane that an event without `stream_id` can be for, if the default lane runs no turn.

        A server that has said lanes before means the default lane, whose turn is over.
        """
        forgets = not event.lane and not self._says_lanes
        return next(iter(self._turns)) if forgets and len(self._turns) == 1 else None

    # --- errors ------------------------------------------------------------------------------------------------------

    def _fail(self, event: ScannedEvent, words: ServerWords) -> list[RoutingEffect]:
        retire: list[RoutingEffect] = [RetireConnection()] if words.code == CONNECTION_LIMIT else []
        if event.lane:
            return retire + self._fail_lane(event.lane, words)
        if len(self._turns) <= 1:
            return retire + [effect for lane in self.running for effect in self._fail_lane(lane, words)]
        if retire:
            return retire + self._refuse_one(words)
        if DEFAULT_LANE in self._turns:
            return self._fail_lane(DEFAULT_LANE, words)
        return [BreakConnection(words.fault("connection_lost", "websocket"))]

    def _fail_lane(self, lane: str, words: ServerWords) -> list[RoutingEffect]:
        turn = self._turns.pop(lane, None)
        if turn is None or turn.abandoned:
            return []
        kind: FaultKind = "failed" if turn.started else "refused"
        return [FailLane(lane, words.fault(kind, "websocket"))]

    def _refuse_one(self, words: ServerWords) -> list[RoutingEffect]:
        """The connection takes no more creates: that refuses a create that has not begun, and ends no turn that has."""
        waiting = [lane for lane, turn in self._turns.items() if not turn.started]
        if len(waiting) == 1:
            return self._fail_lane(waiting[0], words)
        for lane in waiting:
            del self._turns[lane]
        return [FailLane(lane, words.fault("connection_lost", "websocket")) for lane in waiting]

    def _broken(self, message: str) -> list[RoutingEffect]:
        return [BreakConnection(TurnFault(kind="unreadable", transport="websocket", message=message))]
