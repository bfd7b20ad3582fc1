"""The state machine of one WebSocket connection: what follows from each message, ended turn and deadline.

Theory. A connection has lanes. A lane runs one turn at a time and queues the rest, first in, first out. A refusal
waits for its place in that order too, so that a client can match replies to requests by counting. Lanes are independent
of each other, except that the number of turns that may run at once is shared: a lane that would exceed it is *ready*,
and ready lanes start in the order in which they became ready. The default lane exists from the start; a name makes a
lane when it is first used, for the life of the connection. The connection as a whole has a phase: it is open, then
closing, then closed. It is closing when its age limit is reached or the gateway drains: running turns end, waiting
requests are refused in their place, and nothing new starts.

A request that continues a response of *another* lane is a fork. When it is accepted, its parent is held for it, so it
does not matter what happens in the parent's lane while the fork waits. A failed turn makes its own lane forget the
parent, but no other lane: a fork that fails leaves the parent where it is.

Both machines are tables: `LANE` and `PHASE`. `IMPOSSIBLE` lists the inputs that a state cannot get; one of them is a
mistake of the caller, and nothing that a *client* sends can lead there. Methods return effects, in the order in which
the shell must carry them out; `now` is any monotonic clock in seconds. Not here: sockets, timers,
histories, and what a turn does while it runs.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from enum import Enum
from typing import NamedTuple

import msgspec

from segue.protocol.codec import size_of
from segue.protocol.lanes import BOUNDS, DEFAULT_LANE, LaneBounds
from segue.protocol.problems import Problem, connection_limit, shutting_down, stream_limit, turn_stopped, unsupported
from segue.protocol.requests import ClientMessage, Create, Resume, Steer, Stop, parse_message

CLOSE_GOING_AWAY = 1001
CLOSE_UNSUPPORTED_DATA = 1003
CLOSE_SERVICE_RESTART = 1012


class ConnectionLimits(msgspec.Struct, frozen=True):
    """Bounds of one connection. Its queues may exceed theirs by one message, since reading stops only after that."""

    max_age_s: float = 3600.0
    idle_timeout_s: float = 600.0
    max_queued: int = 64
    max_queued_bytes: int = 16 * 1024 * 1024
    lanes: LaneBounds = BOUNDS["openai"]


# --- effects ---------------------------------------------------------------------------------------------------------


class Hold(msgspec.Struct, frozen=True):
    """Keep this response, if another lane has it now, until the request with this number is over.

    It comes before all other effects of its message. The shell must carry it out before anything else can happen.
    """

    lane: str
    number: int
    response_id: str


class Start(msgspec.Struct, frozen=True):
    """Run this turn, or resume one; report its end with `Session.ended`. `number` counts the requests."""

    lane: str
    request: Create | Resume
    number: int


class SendError(msgspec.Struct, frozen=True):
    """Send this problem as an `error` frame."""

    lane: str
    problem: Problem


class SubmitSteer(msgspec.Struct, frozen=True):
    """Queue a steer, or answer why not (`steering`): it is about a running turn, so it waits for no other request."""

    steer: Steer


class Release(msgspec.Struct, frozen=True):
    """Let go of what is held for the request with this number: it will not run."""

    number: int


class StopTurn(msgspec.Struct, frozen=True):
    """Stop the running turn of this lane, and report its end like any other."""

    lane: str


class Evict(msgspec.Struct, frozen=True):
    """Forget this response if it is the lane's latest, since a continuation of it failed there."""

    lane: str
    response_id: str


class Cancel(msgspec.Struct, frozen=True):
    """Stop the running turns: the client is gone. Do not report their ends with `Session.ended`."""


class Close(msgspec.Struct, frozen=True):
    """Close the socket. It is the last effect of a connection."""

    code: int
    reason: str


Effect = Hold | Release | Start | SendError | SubmitSteer | StopTurn | Evict | Cancel | Close


# --- tables ----------------------------------------------------------------------------------------------------------


class _IdentityHashed(Enum):
    """An enum of the tables below. It hashes by identity: Enum's own hash costs a Python call in every transition."""

    __hash__ = object.__hash__


class LaneState(_IdentityHashed):
    """Whether a lane runs a turn."""

    IDLE = "idle"
    READY = "ready"  # a turn waits, because as many turns as are allowed run in other lanes
    RUNNING = "running"


class LaneInput(_IdentityHashed):
    """What can happen to a lane."""

    REQUEST = "request"  # a create, or the problem that a message turned out to be
    SUCCEEDED = "succeeded"  # completed or incomplete: the response may be continued
    FAILED = "failed"  # refused with a problem, or response.failed
    CANCELLED = "cancelled"  # the turn was stopped, which is nobody's fault
    ADMITTED = "admitted"  # a turn of another lane ended, and this lane has waited longest


class Action(_IdentityHashed):
    """What a transition asks of the lane."""

    QUEUE = "queue"
    NEXT = "next"  # start what waits first in the queue, or become ready
    EVICT = "evict"  # forget the parent that the failed turn named


LANE: dict[tuple[LaneState, LaneInput], tuple[LaneState, tuple[Action, ...]]] = {
    (LaneState.IDLE, LaneInput.REQUEST): (LaneState.IDLE, (Action.QUEUE, Action.NEXT)),
    (LaneState.READY, LaneInput.REQUEST): (LaneState.READY, (Action.QUEUE,)),
    (LaneState.READY, LaneInput.ADMITTED): (LaneState.IDLE, (Action.NEXT,)),
    (LaneState.RUNNING, LaneInput.REQUEST): (LaneState.RUNNING, (Action.QUEUE,)),
    (LaneState.RUNNING, LaneInput.SUCCEEDED): (LaneState.IDLE, (Action.NEXT,)),
    # Open Responses, WebSocket: a continuation that fails with 4xx or 5xx evicts the id it referenced.
    (LaneState.RUNNING, LaneInput.FAILED): (LaneState.IDLE, (Action.EVICT, Action.NEXT)),
    (LaneState.RUNNING, LaneInput.CANCELLED): (LaneState.IDLE, (Action.NEXT,)),
}


_ENDS = frozenset({LaneInput.SUCCEEDED, LaneInput.FAILED, LaneInput.CANCELLED})


class Phase(_IdentityHashed):
    """How far a connection is from its end."""

    OPEN = "open"
    CLOSING = "closing"
    CLOSED = "closed"


class PhaseInput(_IdentityHashed):
    """What can happen to a connection as a whole."""

    EXPIRE = "expire"  # the age limit is reached
    DRAIN = "drain"  # the gateway is shutting down
    QUIET = "quiet"  # no turn runs and none waits
    IDLE = "idle"  # quiet for too long
    DISCONNECT = "disconnect"


PHASE: dict[tuple[Phase, PhaseInput], Phase] = {
    (Phase.OPEN, PhaseInput.EXPIRE): Phase.CLOSING,
    (Phase.OPEN, PhaseInput.DRAIN): Phase.CLOSING,
    (Phase.OPEN, PhaseInput.QUIET): Phase.OPEN,
    (Phase.OPEN, PhaseInput.IDLE): Phase.CLOSED,
    (Phase.OPEN, PhaseInput.DISCONNECT): Phase.CLOSED,
    (Phase.CLOSING, PhaseInput.EXPIRE): Phase.CLOSING,
    (Phase.CLOSING, PhaseInput.DRAIN): Phase.CLOSING,
    (Phase.CLOSING, PhaseInput.QUIET): Phase.CLOSED,
    (Phase.CLOSING, PhaseInput.IDLE): Phase.CLOSED,
    (Phase.CLOSING, PhaseInput.DISCONNECT): Phase.CLOSED,
    (Phase.CLOSED, PhaseInput.EXPIRE): Phase.CLOSED,
    (Phase.CLOSED, PhaseInput.DRAIN): Phase.CLOSED,
    (Phase.CLOSED, PhaseInput.QUIET): Phase.CLOSED,
    (Phase.CLOSED, PhaseInput.IDLE): Phase.CLOSED,
    (Phase.CLOSED, PhaseInput.DISCONNECT): Phase.CLOSED,
}

#: A turn cannot end in a lane that runs none, and only a lane that is ready is admitted.
IMPOSSIBLE = frozenset(
    {
        *((state, event) for state in (LaneState.IDLE, LaneState.READY) for event in LaneInput if event in _ENDS),
        *((state, LaneInput.ADMITTED) for state in (LaneState.IDLE, LaneState.RUNNING)),
    }
)


# What each message and each end of a turn looks at. Python 3.11 takes ten times as long to find a member by its class.
_IDLE, _READY, _RUNNING = LaneState.IDLE, LaneState.READY, LaneState.RUNNING
_REQUEST, _ADMITTED = LaneInput.REQUEST, LaneInput.ADMITTED
_QUEUE, _NEXT, _EVICT = Action.QUEUE, Action.NEXT, Action.EVICT
_OPEN, _CLOSING, _CLOSED = Phase.OPEN, Phase.CLOSING, Phase.CLOSED


class LocalProtocolError(Exception):
    """The shell broke the contract of this module: a bug of ours, never the peer's doing."""


# --- the machine -----------------------------------------------------------------------------------------------------


class _QueuedRequest(NamedTuple):
    """A request that waits in a queue, with its size and its number."""

    what: Create | Resume | Problem
    size: int
    number: int


class _Lane:
    __slots__ = ("parent", "queue", "state")

    def __init__(self) -> None:
        self.state = _IDLE
        self.queue: deque[_QueuedRequest] = deque()
        self.parent: str | None = None  # what the running turn continues


class Session:
    """The state of one connection: no socket and no history, only what decides what happens next."""

    def __init__(self, limits: ConnectionLimits, now: float) -> None:
        self._limits = limits
        self._expires_at = now + limits.max_age_s
        self._active_at = now
        self._phase = _OPEN
        self._farewell: Problem | None = None
        self._farewell_said = False
        self._close = Close(CLOSE_GOING_AWAY, "")
        self._lanes: dict[str, _Lane] = {DEFAULT_LANE: _Lane()}
        self._ready: deque[str] = deque()  # the lanes that are ready; it is empty while more turns may run
        self._running = 0
        self._received = 0
        self._queued = 0
        self._queued_bytes = 0

    @property
    def closed(self) -> bool:
        """True once the connection is over; further input is ignored."""
        return self._phase is _CLOSED

    @property
    def accepting(self) -> bool:
        """True as long as new turns may begin."""
        return self._phase is _OPEN

    @property
    def saturated(self) -> bool:
        """True while the queue is full: the shell must stop reading, which is backpressure on the client."""
        return self._queued >= self._limits.max_queued or self._queued_bytes >= self._limits.max_queued_bytes

    @property
    def lanes(self) -> Iterable[str]:
        """The names of all lanes, in the order of their first use, the default lane first."""
        return self._lanes

    def receive(self, message: bytes | str, now: float, parsed: ClientMessage | None = None) -> list[Effect]:
        """Take one text message; `parsed` is what it says, if that was read already."""
        if self.closed:
            return []
        self._active_at = now
        parsed = parse_message(message) if parsed is None else parsed
        name, what = parsed.lane, parsed.request
        if isinstance(what, Steer):
            return [SubmitSteer(what)]
        if isinstance(what, Stop):
            return self._stop(name)
        if name not in self._lanes:
            bound = self._limits.lanes.names
            if not bound:
                advice = "this connection has only the default lane; leave it out, or open one connection per lane"
                name, what = DEFAULT_LANE, unsupported("stream_id", advice)
            elif len(self._lanes) > bound:
                return [SendError(name, stream_limit(bound))]
            else:
                self._lanes[name] = _Lane()
        self._received += 1
        request = _QueuedRequest(what, size_of(message), self._received)
        effects: list[Effect] = []
        if isinstance(what, Create) and what.previous_response_id is not None and len(self._lanes) > 1:
            effects.append(Hold(name, request.number, what.previous_response_id))
        return effects + self._drive(name, _REQUEST, request)

    def receive_binary(self) -> list[Effect]:
        """Take one binary message: the protocol has none (every message is text)."""
        if self.closed:
            return []
        self._phase = _CLOSED
        return [Cancel(), Close(CLOSE_UNSUPPORTED_DATA, "text messages only")]

    def ended(self, lane: str, outcome: LaneInput, now: float) -> list[Effect]:
        """Report that the turn started in `lane` is over, after its last event was handed to the socket."""
        if self.closed:
            return []
        self._active_at = now
        effects = self._drive(lane, outcome)
        while self._ready and self._running < self._limits.lanes.in_flight:
            effects += self._drive(self._ready.popleft(), _ADMITTED)
        return effects + self._settle()

    def drain(self) -> list[Effect]:
        """Let running turns end, refuse waiting requests in their turn, then close: the gateway is going away."""
        if self._phase is not _OPEN:
            return []
        return self._begin_closing(PhaseInput.DRAIN, shutting_down(), Close(CLOSE_SERVICE_RESTART, "shutting down"))

    def disconnected(self) -> list[Effect]:
        """Report that the peer is gone. A client cancels by dropping the connection."""
        if self.closed:
            return []
        self._phase = PHASE[self._phase, PhaseInput.DISCONNECT]
        return [Cancel()]

    def next_deadline(self) -> float | None:
        """Return when to call `timeout`, or None if no deadline is set. You may call it early."""
        if self._phase is not _OPEN:
            return None  # closed, or a turn still runs: its end closes the connection
        idle_at = self._active_at + self._limits.idle_timeout_s
        return self._expires_at if self._running else min(self._expires_at, idle_at)

    def timeout(self, now: float) -> list[Effect]:
        """Apply the age limit and the idle timeout if they are due at `now`."""
        if self._phase is _OPEN and now >= self._expires_at:
            problem = connection_limit(self._limits.max_age_s / 60)
            return self._begin_closing(PhaseInput.EXPIRE, problem, Close(CLOSE_GOING_AWAY, "age limit reached"))
        if self.closed or self._running or now < self._active_at + self._limits.idle_timeout_s:
            return []
        self._phase = PHASE[self._phase, PhaseInput.IDLE]
        return [Close(CLOSE_GOING_AWAY, "idle for too long")]

    # --- private -----------------------------------------------------------------------------------------------------

    def _stop(self, name: str) -> list[Effect]:
        """Stop what runs in a lane. What waits for other lanes is refused when its place in the order comes."""
        lane = self._lanes.get(name)
        if lane is None or lane.state is _IDLE:
            return []  # its end is on the way
        if lane.state is _RUNNING:
            return [StopTurn(name)]
        lane.queue[0] = lane.queue[0]._replace(what=turn_stopped())
        return [Release(lane.queue[0].number)]

    def _drive(self, name: str, event: LaneInput, request: _QueuedRequest | None = None) -> list[Effect]:
        lane = self._lanes[name]
        if (lane.state, event) in IMPOSSIBLE:
            raise LocalProtocolError(f"{event.value!r} in a lane that is {lane.state.value}")
        was = lane.state
        lane.state, actions = LANE[was, event]
        if was is _RUNNING and lane.state is _IDLE:
            self._running -= 1
        effects: list[Effect] = []
        for action in actions:
            if action is _NEXT:
                effects += self._start_next(name, lane, first=event is _ADMITTED)
            elif action is _QUEUE:
                assert request is not None, "only a request is queued"
                self._enqueue(lane, request)
            elif lane.parent is not None:
                assert action is _EVICT, "there is no other action"
                effects.append(Evict(name, lane.parent))
        return effects

    def _enqueue(self, lane: _Lane, request: _QueuedRequest) -> None:
        lane.queue.append(request)
        self._queued += 1
        self._queued_bytes += request.size

    def _dequeue(self, lane: _Lane) -> None:
        self._queued -= 1
        self._queued_bytes -= lane.queue.popleft().size

    def _start_next(self, name: str, lane: _Lane, *, first: bool) -> list[Effect]:
        """Answer the problems in the queue up to the next turn, and start that turn.

        Ready lanes go before this one, unless it is the `first` of them.
        """
        effects: list[Effect] = []
        while lane.queue:
            what, _, number = lane.queue[0]
            if self._phase is _CLOSING:
                effects.append(self._say_farewell(name))
            elif isinstance(what, Problem):
                effects.append(SendError(name, what))
            else:
                if self._running >= self._limits.lanes.in_flight or (self._ready and not first):
                    lane.state = _READY
                    self._ready.append(name)
                    return effects
                self._dequeue(lane)
                lane.state = _RUNNING
                lane.parent = what.previous_response_id if isinstance(what, Create) else None
                self._running += 1
                return [*effects, Start(name, what, number)]
            self._dequeue(lane)
        return effects

    def _begin_closing(self, event: PhaseInput, farewell: Problem, close: Close) -> list[Effect]:
        self._phase = PHASE[self._phase, event]
        self._farewell, self._close = farewell, close
        effects: list[Effect] = []
        while self._ready:  # nothing runs there, so their requests are refused now
            effects += self._drive(self._ready.popleft(), _ADMITTED)
        return effects + self._settle()

    def _settle(self) -> list[Effect]:
        """Close a closing connection once nothing runs; the error is sent at least once before."""
        if self._running:
            return []
        self._phase = PHASE[self._phase, PhaseInput.QUIET]
        if self._phase is not _CLOSED:
            return []
        return [self._close] if self._farewell_said else [self._say_farewell(DEFAULT_LANE), self._close]

    def _say_farewell(self, lane: str) -> SendError:
        """Refuse a request because the connection is closing; in the default lane, that tells all of it."""
        assert self._farewell is not None, "a closing connection has said why"
        self._farewell_said = self._farewell_said or lane == DEFAULT_LANE
        return SendError(lane, self._farewell)
