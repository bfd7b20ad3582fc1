"""One turn from its create to its response, through every fault that can be mended.

Its shell feeds it what happens (`connected`, `received`, `failed`, `woken`, `retrieved`) and carries out the effects
that it returns, in order. Before any effect but `Emit`, the shell closes the stream that it reads. Whatever happens
below, the events that are emitted are one stream: of one response, each event once, with one end. Not here: what a
fault means (`recovery`), and I/O.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from segue.client.capabilities import PLAIN_SERVER, ServerCapabilities
from segue.client.continuation import Continuation, CreatePlan, plan_create
from segue.client.create_request import CreateOptions, write_create
from segue.client.errors import ClientError
from segue.client.recovery import (
    LONGEST_WAIT_S,
    MOST_WEBSOCKET_FAILURES,
    Action,
    Decision,
    Progress,
    RecoveryState,
    ServerLife,
    TurnFault,
    backoff_s,
    decide,
    is_passing,
    is_websocket_failure,
)
from segue.client.settings import TransportKind
from segue.client.shown_stream import ShownStream
from segue.client.stream_events import (
    WHOLE_RESPONSE,
    ClientEvent,
    ClientResponse,
    ResponseCreated,
    ResponseEnd,
    ResponseFinished,
    UnknownEvent,
    read_event,
    read_response,
)
from segue.client.transports.interface import Connected
from segue.client.turn_effects import (
    Connect,
    DeliveredCreate,
    Emit,
    Finish,
    GiveUp,
    Moment,
    RecoveryStep,
    Retrieve,
    SendCreate,
    SendResume,
    SleepFor,
    SwitchToHttp,
    TurnEffects,
    TurnInput,
)
from segue.client.turn_errors import error_of, failed_response, lost_continuation, other_response
from segue.protocol.codec import with_field
from segue.protocol.items import join
from segue.protocol.requests import LeanForm

#: Of the time for which a server keeps a turn without a follower, the part that a client relies on: the server's clock
#: began when it lost its client, and the repeat takes time to arrive.
_SURE_PART = 0.8
#: A clock that was set back proves nothing, so that no key counts as held.
_LONG_AGO_S = 1e9
#: How often a stored response that is still running is looked at, without a deadline.
_MOST_LOOKS = 150
_RUNNING = frozenset({"in_progress", "queued"})
_EPOCH_CHANGED = "epoch_changed"


_Flight = Literal["none", "connect", "create", "repeat", "resume", "retrieve"]


class TurnMachine:
    """One turn. `kind` is the transport to begin with; failures of earlier turns count on."""

    def __init__(self, request: TurnInput, *, kind: TransportKind, websocket_failures: int = 0) -> None:
        self._request = request
        self._settings = request.settings
        self.kind = kind
        self.websocket_failures = websocket_failures
        self._shown = ShownStream()
        self._server = Connected(0, PLAIN_SERVER)
        self._flight: _Flight = "none"
        self._delivered = False
        #: The fault of a delivered create whose outcome is open.
        self._open: TurnFault | None = None
        self._life: ServerLife = "unknown"
        self._plan: CreatePlan | None = None
        self._options = CreateOptions()
        self._epoch: str | None = None
        self._resume_s = 0.0
        self._replayed = False
        self.own_field = request.own_field
        self._key_void = False
        self._resume_void = False
        self._not_stored = False
        self._attempts = 0
        self._looks = 0
        self._deadline = float("inf")
        #: When the server was last known to have a reader for the turn, if it has taken it; by both clocks.
        self._alive_at = Moment(0.0)
        self._attached = False  # the connection that is read is such a reader
        self._pending: tuple[Decision, TurnFault] | None = None
        self.ended = False

    @property
    def progress(self) -> Progress:
        """How far the turn has come."""
        return self._shown.progress if self._delivered else "not_sent"

    @property
    def _before(self) -> str | None:
        """The id of the response that this one continues."""
        return None if self._request.continuation is None else self._request.continuation.response_id

    @property
    def response_id(self) -> str | None:
        """The id of the response, once it is known."""
        return self._shown.response_id

    @property
    def kept_id(self) -> str | None:
        """The id of the response, if its server may run it on without a reader, because that was asked for."""
        kept = self._options.resume or self._options.idempotency_key is not None
        return self._shown.response_id if kept and self._delivered and not self.ended else None

    def remaining_s(self, now: float) -> float:
        """Return how much time the turn has left."""
        return self._deadline - now

    def delivered(self, moment: Moment) -> DeliveredCreate | None:
        """Return what a later process must know of this turn; None if nothing was delivered."""
        if not self._delivered:
            return None
        plan = self._plan
        return DeliveredCreate(
            previous_response_id=None if plan is None else plan.previous_response_id,
            replayed=self._replayed,
            own_field=self.own_field,
            options=self._options,
            epoch=self._epoch,
            resume_s=self._resume_s,
            response_id=self._shown.response_id,
            silent_s=self._silent_s(moment),
        )

    # --- inputs ------------------------------------------------------------------------------------------------------

    def start(self, moment: Moment) -> TurnEffects:
        """Begin the turn, or find out what became of it."""
        self._alive_at = moment
        if self._settings.turn_timeout_s is not None:
            self._deadline = moment.now + self._settings.turn_timeout_s
        if self._request.delivered is None:
            return self._first_connect()
        self._restore(self._request.delivered, moment)
        return self._decide(TurnFault(kind="connection_lost", transport=self.kind), moment)

    def connected(self, server: Connected, moment: Moment) -> TurnEffects:
        """Go on over a connection."""
        self._flight = "none"
        self._server = server
        if self._open is None:
            return self._send("create", moment)
        epoch = server.capabilities.epoch
        self._life = "same" if epoch is not None and epoch == self._epoch else "other"
        return self._decide(self._open, moment)

    def received(self, data: bytes, moment: Moment) -> TurnEffects:
        """Take the JSON of one event."""
        if self.ended:
            return ()
        event = read_event(data)
        if event is None:
            return self._unreadable(moment)
        if self._shown.is_stray(event, self._before):
            return ()
        self._alive_at, self._attached = moment, True
        if self._is_of_another(event):
            return self._give_up(other_response(self._shown.response_id))
        if not self._shown.is_new(event):
            return ()
        return self._end(event, moment) if isinstance(event, ResponseEnd) else self._show(event, moment)

    def failed(self, fault: TurnFault, moment: Moment) -> TurnEffects:
        """Take a fault of whatever was last asked for."""
        if self.ended:
            return ()
        flight, self._flight = self._flight, "none"
        self._attempts += 1
        self.websocket_failures += is_websocket_failure(fault)
        if fault.silent_s is not None and self._attached and flight in {"create", "repeat", "resume"}:
            self._note_life(moment.now - fault.silent_s)
        if self._settles_nothing(flight, fault):
            return self._decide(self._open or fault, moment)
        if flight == "create" and fault.delivered == "no":
            self._delivered = False
        if fault.kind not in {"refused", "failed"}:
            self._life = "unknown"
        return self._decide(fault, moment, repeated=flight in {"repeat", "resume"})

    def woken(self, moment: Moment) -> TurnEffects:
        """Go on after a wait."""
        assert self._pending is not None, "nothing waits"
        (decision, fault), self._pending = self._pending, None
        return self._carry_out(decision.action, fault, moment)

    def retrieved(self, document: bytes, moment: Moment) -> TurnEffects:
        """Take a stored response in place of the rest of its stream."""
        self._flight = "none"
        end = read_response(document)
        if end is None or end.response_id != self._shown.response_id:
            self._not_stored = True
            return self._decide(self._open or TurnFault(kind="unreadable", transport="http"), moment)
        if end.status in _RUNNING:
            return self._look_again(moment)
        return self._adopt(end)

    # --- decisions ---------------------------------------------------------------------------------------------------

    def _settles_nothing(self, flight: _Flight, fault: TurnFault) -> bool:
        """Note what a fault rules out. Return whether the question is still what became of the create."""
        refused = fault.kind == "refused" and not is_passing(fault)
        if flight == "retrieve":
            self._not_stored |= refused
            return True
        if flight == "resume" and refused:
            # The turn was dropped, and its key with it: a repeat would run it again.
            self._resume_void = self._key_void = True
            return True
        if flight == "repeat" and fault.code == _EPOCH_CHANGED:
            self._life = "other"
            return True
        return False

    def _decide(self, fault: TurnFault, moment: Moment, *, repeated: bool = False) -> TurnEffects:
        decision = decide(fault, self._state(moment, repeated=repeated))
        step = RecoveryStep(fault=fault, progress=self.progress, decision=decision)
        if decision.error is not None:
            error = error_of(decision.error, fault, progress=self.progress, response_id=self._shown.response_id)
            return (step, *self._give_up(error))
        if decision.wait_s:
            self._pending = decision, fault
            return (step, SleepFor(decision.wait_s, for_network=decision.for_network))
        return (step, *self._carry_out(decision.action, fault, moment))

    def _state(self, moment: Moment, *, repeated: bool) -> RecoveryState:
        settings, shown, options = self._settings, self._shown, self._options
        return RecoveryState(
            progress=self.progress,
            mode=settings.transport,
            history=settings.history,
            server=self._life,
            repeated=repeated,
            by_id=self._plan is not None and self._plan.previous_response_id is not None,
            replayed=self._replayed,
            keyed=self._is_key_held(moment),
            resumable=options.resume and shown.numbered and not self._resume_void,
            retrievable=settings.store and shown.response_id is not None and not self._not_stored,
            own_field=self._request.static.wants_reasoning and self.own_field,
            attempts=self._attempts,
            most_attempts=settings.most_attempts,
            websocket_failures=self.websocket_failures,
            remaining_s=self._deadline - moment.now,
            fraction=moment.fraction,
        )

    def _is_key_held(self, moment: Moment) -> bool:
        """Return whether the server still holds the key, and whether what it would send again can be told.

        A turn without a follower is stopped after `resume_s`, and then its key is free again. A lean stream may join
        its texts in other places when it is sent again.
        """
        if self._options.idempotency_key is None or self._key_void or not self._shown.numbered:
            return False
        if self._options.lean and self._shown.output_shown:
            return False
        return self._silent_s(moment) < self._resume_s * _SURE_PART

    def _note_life(self, now: float) -> None:
        """Note a sign of life that one clock dates. If the machine slept since the last one, it was after this one."""
        since_s = now - self._alive_at.now
        if since_s > 0:
            self._alive_at = Moment(now, unix=self._alive_at.unix + since_s)

    def _silent_s(self, moment: Moment) -> float:
        """Return how long ago the server surely had a reader; of two clocks, the one that says longer is believed."""
        return max(moment.now - self._alive_at.now, moment.unix - self._alive_at.unix)

    def _carry_out(self, action: Action, fault: TurnFault, moment: Moment) -> TurnEffects:  # noqa: PLR0911 - one return for each action
        match action:
            case "send":
                return self._send_anew()
            case "leave_out":
                self.own_field = False
                return self._send_anew()
            case "replay":
                self._replayed, self._plan = True, None
                return self._send_anew() if self._open is None else self._connect(fresh=True)
            case "use_http":
                return self._use_http(fault, moment)
            case "ask":
                self._open, self._life = fault if self._open is None else self._open, "unknown"
                return self._connect(fresh=True)
            case "repeat":
                return self._send("repeat", moment)
            case "resume":
                return self._resume(fault)
            case "retrieve":
                self._open = fault
                return self._retrieve()
            case "give_up":
                raise AssertionError("giving up has an error")

    def _use_http(self, fault: TurnFault, moment: Moment) -> TurnEffects:
        self.kind = "http"
        if not self._delivered:
            return (SwitchToHttp(), *self._send_anew())
        self._open = msgspec.structs.replace(self._open or fault, transport="http")
        return (SwitchToHttp(), *self._decide(self._open, moment))

    def _send_anew(self) -> TurnEffects:
        self._delivered, self._open, self._life, self._plan = False, None, "unknown", None
        return self._connect()

    # --- effects -----------------------------------------------------------------------------------------------------

    def _first_connect(self) -> TurnEffects:
        """Connect over HTTP if too many turns before have ended in a broken WebSocket."""
        unreliable = self.websocket_failures >= MOST_WEBSOCKET_FAILURES
        if self.kind == "http" or self._settings.transport != "auto" or not unreliable:
            return self._connect()
        self.kind = "http"
        return (SwitchToHttp(), *self._connect())

    def _connect(self, *, fresh: bool = False) -> TurnEffects:
        self._flight = "connect"
        continuation = self._request.continuation
        near = None if continuation is None else continuation.connection
        return (Connect(kind=self.kind, near=near, fresh=fresh),)

    def _send(self, flight: Literal["create", "repeat"], moment: Moment) -> TurnEffects:
        """Deliver the create: the first time as planned for the connection, again exactly as before."""
        request, server = self._request, self._server
        if self._plan is None:
            self._plan = plan_create(
                request.continuation, request.history, request.items,
                mode="replay" if self._replayed else self._settings.history,
                connection=server.connection, capabilities=server.capabilities,
            )  # fmt: skip
        if self._plan is None:
            return self._give_up(lost_continuation())
        if flight == "create":
            self._promise(server.capabilities)
            self._alive_at, self._attached = moment, True
            options = self._options
        else:
            self._attached = False  # until it is answered: it may never arrive
            self._shown.come_again()
            options = msgspec.structs.replace(self._options, epoch=self._epoch)
        self._flight, self._delivered = flight, True
        body = write_create(
            request.static, self._plan.items, previous_response_id=self._plan.previous_response_id,
            own_include=self.own_field, generate=request.generate, options=options,
        )  # fmt: skip
        return (SendCreate(kind=self.kind, body=body, connection=server.connection),)

    def _promise(self, offered: ServerCapabilities) -> None:
        """Ask for what the server offers. A key without an epoch could be one of another life: it is not used."""
        extensions, known = offered.extensions, offered.epoch is not None
        lean: LeanForm = self._settings.lean and "lean" in extensions
        if lean and "compact" in extensions:
            lean = "compact"
        if not self._request.generate:
            self._options = CreateOptions(lean=lean)
            return
        key = self._request.key if known and "idempotency" in extensions else None
        self._options = CreateOptions(idempotency_key=key, resume=known and "resume" in extensions, lean=lean)
        self._epoch, self._resume_s = offered.epoch, offered.resume_s

    def _resume(self, fault: TurnFault) -> TurnEffects:
        assert self._shown.response_id is not None, "only a response that has begun is resumed"
        self._open, self._flight, self._attached = fault, "resume", False
        self._shown.come_again()
        return (
            SendResume(
                kind=self.kind,
                response_id=self._shown.response_id,
                starting_after=self._shown.last_number,
                connection=self._server.connection,
                lean=self._options.lean,
            ),
        )

    def _retrieve(self) -> TurnEffects:
        assert self._shown.response_id is not None, "only a response whose id is known is retrieved"
        self._flight = "retrieve"
        return (Retrieve(self._shown.response_id),)

    def _look_again(self, moment: Moment) -> TurnEffects:
        self._looks += 1
        wait_s = backoff_s(self._looks, 0.5 + moment.fraction / 2)
        fault = self._open or TurnFault(kind="connection_lost", transport=self.kind)
        if self._looks > _MOST_LOOKS or wait_s >= self._deadline - moment.now:
            error = error_of("outcome_unknown", fault, progress=self.progress, response_id=self._shown.response_id)
            return self._give_up(error)
        self._pending = Decision(action="retrieve", why="It is still running.", wait_s=wait_s), fault
        return (SleepFor(min(wait_s, LONGEST_WAIT_S)),)

    # --- the stream --------------------------------------------------------------------------------------------------

    def _show(self, event: ClientEvent, moment: Moment) -> TurnEffects:
        missing = self._shown.missing_before(event)
        if missing is None:
            return self._give_up(other_response(self._shown.response_id))
        self._attempts = 0
        self._shown.note(event)
        return self._unreadable(moment) if self._shown.too_large else (*map(Emit, missing), Emit(event))

    def _unreadable(self, moment: Moment) -> TurnEffects:
        return self.failed(TurnFault(kind="unreadable", transport=self.kind), moment)

    def _is_of_another(self, event: ClientEvent | ResponseEnd) -> bool:
        known = self._shown.response_id
        if known is None or not isinstance(event, ResponseCreated | ResponseEnd):
            return False
        return event.response_id != known

    def _end(self, end: ResponseEnd, moment: Moment) -> TurnEffects:
        if end.status in _RUNNING:
            return self._unreadable(moment)
        if end.type == WHOLE_RESPONSE or end.status not in {"completed", "incomplete"}:
            return self._adopt(end)
        if not self._shown.begun:  # of whatever it is the end, nobody has seen its beginning
            return self._unreadable(moment)
        if not end.output and self._shown.has_gap:
            return self.failed(TurnFault(kind="stream_ended", transport=self.kind), moment)
        return self._finish(end)

    def _adopt(self, end: ResponseEnd) -> TurnEffects:
        """Take a whole response in place of the rest of its stream, or a response that ended badly."""
        if end.status not in {"completed", "incomplete"}:
            failed = UnknownEvent(raw=end.raw, sequence_number=end.sequence_number, type=f"response.{end.status}")
            told = failed_response(end.error_code or end.status, end.error_message, end.response_id)
            shown = () if end.type == WHOLE_RESPONSE else (Emit(failed),)
            return (*shown, *self._give_up(told))
        rest = self._shown.rest_of(end)
        if rest is None:
            return self._give_up(other_response(self._shown.response_id))
        kind = f"response.{end.status}"
        number = self._shown.next_number()
        raw = b'{"type":"%b","sequence_number":%d,"response":%b}' % (kind.encode(), number, end.document)
        as_event = msgspec.structs.replace(end, raw=raw, sequence_number=number)
        return (*map(Emit, rest), *self._finish(as_event))

    def _finish(self, end: ResponseEnd) -> TurnEffects:
        self.ended, self.websocket_failures = True, 0
        output, document, raw = end.output, end.document, end.raw
        if not output and self._shown.items:  # a lean stream: the items came before
            output = self._shown.items
            document = with_field(document, "output", msgspec.Raw(join(output)))
            raw = with_field(raw, "response", msgspec.Raw(document))
        response = ClientResponse(
            id=end.response_id,
            status=end.status,
            output=output,
            raw=document,
            usage=end.usage,
            incomplete_reason=end.incomplete_reason,
        )
        event = ResponseFinished(raw=raw, sequence_number=end.sequence_number, response=response)
        continuation = Continuation(
            response_id=end.response_id,
            stored=self._settings.store and end.stored is not False,
            connection=self._server.connection if self.kind == "websocket" and self._flight != "none" else None,
            epoch=self._server.capabilities.epoch,
        )
        items = (*self._request.items, *output)
        return (Emit(event), Finish(response=response, items=items, continuation=continuation))

    def _give_up(self, error: ClientError) -> TurnEffects:
        self.ended = True
        return (GiveUp(error),)

    def _restore(self, delivered: DeliveredCreate, moment: Moment) -> None:
        self._delivered, self._options, self._epoch = True, delivered.options, delivered.epoch
        self._replayed, self.own_field, self._resume_s = delivered.replayed, delivered.own_field, delivered.resume_s
        self._alive_at = _before(moment, _silence(delivered.silent_s, self._request.alive_at, moment))
        self._shown.response_id = delivered.response_id
        new, parent = self._request.items, delivered.previous_response_id
        items = new if parent is not None else (*self._request.history.items, *new)
        self._plan = CreatePlan(items=items, previous_response_id=parent)


def _before(moment: Moment, seconds: float) -> Moment:
    return Moment(moment.now - seconds, unix=moment.unix - seconds)


def _silence(told_s: float, alive_at: float | None, moment: Moment) -> float:
    """Return for how long nothing was heard of what an earlier process delivered, as far as anybody can tell."""
    if alive_at is None:
        return told_s
    return moment.unix - alive_at if moment.unix >= alive_at else _LONG_AGO_S
