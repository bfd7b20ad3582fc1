"""Whatever goes wrong, no turn is paid for twice, and what the client says about it is true.

The turn is run against a model of a server that is as pure as the turn itself. What can happen is drawn: when
a connection breaks, on which side of the server it did, restarts, refusals, silences. The server counts its runs.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Literal

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.client.capabilities import PLAIN_SERVER, ServerCapabilities
from segue.client.continuation import Continuation
from segue.client.create_request import encode_static
from segue.client.errors import OutcomeUnknownError, ResponseFailedError
from segue.client.local_history import EMPTY_HISTORY, read_items
from segue.client.recovery import FaultKind, TurnFault
from segue.client.settings import SessionSettings, TransportMode
from segue.client.stream_events import OutputTextDelta, ResponseCreated, ResponseFinished
from segue.client.transports.interface import Connected
from segue.client.turn_effects import (
    Connect,
    Emit,
    Finish,
    GiveUp,
    Moment,
    Retrieve,
    SendCreate,
    SendResume,
    SleepFor,
    SwitchToHttp,
    TurnEffect,
    TurnInput,
)
from segue.client.turn_machine import TurnMachine
from segue.testing.response_events import Json, ResponseIdentity, response_events, said
from tests.strategies import examples

HISTORY = EMPTY_HISTORY.append(read_items("Hello")).append(read_items({"role": "assistant", "content": "Hi."}))
NEW = read_items("And?")
PARENT = "resp_parent"
RESUME_S = 60.0
Kind = Literal["gateway", "stored", "plain"]
#: Stands among the effects where the client is killed.
KILLED = SwitchToHttp()


class Run(msgspec.Struct, kw_only=True):
    """One run of the model; the server stops it if it is not done, and nobody has followed it for too long."""

    events: list[Json]
    done_at: float
    key: str | None
    stored: bool
    followed_at: float
    dropped: bool = False

    def fail(self) -> None:
        """Let the turn end at once, and badly: its stored response and its events say so."""
        response = {**self.events[0]["response"], "status": "failed", "error": {"code": "oops", "message": "No."}}
        self.events = [*self.events[:2], {"type": "response.failed", "sequence_number": 2, "response": response}]
        self.stored, self.done_at = False, self.followed_at


class Answer(msgspec.Struct):
    """What a request gets: events, or a refusal."""

    events: list[Json]
    run: Run | None = None
    refusal: TurnFault | None = None


class Server:
    """A gateway with keys and logs, a server that stores and retrieves, or one that does neither."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.runs: list[Run] = []
        self.memory: list[Run] = []  # what a restart loses
        self.epoch = 1
        self.connections = {1: PARENT}  # what each connection can continue

    @property
    def capabilities(self) -> ServerCapabilities:
        if self.kind != "gateway":
            return PLAIN_SERVER
        extensions = frozenset({"idempotency", "resume", "epoch"})
        return ServerCapabilities(extensions=extensions, epoch=str(self.epoch), resume_s=RESUME_S, events_s=600.0)

    def restart(self) -> None:
        self.epoch += 1
        self.memory.clear()
        self.connections.clear()

    def tidy(self, now: float) -> None:
        """Stop what nobody has followed for too long; its key is free again."""
        for run in list(self.memory):
            if now < run.done_at and now - run.followed_at >= RESUME_S:
                run.dropped = True
                self.memory.remove(run)

    def create(self, body: Json, connection: int, now: float, *, lasts_s: float) -> Answer:
        self.tidy(now)
        asked = body.get("segue", {})
        if asked.get("epoch", str(self.epoch)) != str(self.epoch):
            return Answer([], refusal=refused(412, "epoch_changed"))
        known = next((run for run in self.memory if run.key and run.key == asked.get("idempotency_key")), None)
        if known is not None:
            return Answer(known.events, known)
        parent = body.get("previous_response_id")
        if parent is not None and parent not in (self.connections.get(connection), *self.lasting):
            return Answer([], refusal=refused(400, "previous_response_not_found"))
        sent = [json.dumps(item) for item in body["input"]]
        whole = [*map(bytes.decode, HISTORY.items), *map(bytes.decode, NEW)]
        assert len(sent) == (len(whole) if parent is None else len(NEW)), "the history is not the session's"
        return self._run(body, asked.get("idempotency_key"), now, lasts_s=lasts_s)

    @property
    def lasting(self) -> set[str]:
        return {PARENT} if self.kind == "stored" else set()

    def _run(self, body: Json, key: str | None, now: float, *, lasts_s: float) -> Answer:
        ident = f"resp_{len(self.runs)}"
        identity = ResponseIdentity(create={"model": "m", "store": body["store"]}, response_id=ident, created_at=1)
        item = {"id": f"msg_{ident}", **said(f"This is what {ident} has to say.")}
        run = Run(
            events=response_events(identity, [item]),
            done_at=now + lasts_s,
            key=key,
            stored=body["store"] and self.kind != "plain",
            followed_at=now,
        )
        self.runs.append(run)
        if self.kind == "gateway":
            self.memory.append(run)
        return Answer(run.events, run)

    def resume(self, response_id: str, after: int, now: float) -> Answer:
        self.tidy(now)
        run = next((run for run in self.memory if run.events[0]["response"]["id"] == response_id), None)
        if run is None:
            return Answer([], refusal=refused(404, "response_not_found"))
        return Answer([event for event in run.events if event["sequence_number"] > after], run)

    def retrieve(self, response_id: str, now: float) -> Json | None:
        self.tidy(now)
        for run in self.runs:
            if run.events[0]["response"]["id"] == response_id and run.stored and not run.dropped:
                gone = self.kind == "stored" and run.followed_at < now < run.done_at
                return None if gone else run.events[-1 if now >= run.done_at else 0]["response"]
        return None


def refused(status: int, code: str, retry_after_s: float | None = None) -> TurnFault:
    return TurnFault(kind="refused", transport="http", status=status, code=code, retry_after_s=retry_after_s)


class Simulation:
    """A turn and its server, in a world that the draws decide."""

    def __init__(self, draw: st.DataObject, *, kind: Kind, mode: TransportMode, store: bool) -> None:
        self.draw = draw
        self.server = Server(kind)
        self.now = 0.0
        self.connection = 1
        self.emitted: list[object] = []
        self.end: Finish | GiveUp | None = None
        chosen = SessionSettings(
            model="m", transport=mode, store=store, turn_timeout_s=draw.draw(st.sampled_from([None, 5.0, 1e4]))
        )
        continuation = Continuation(response_id=PARENT, stored=store, connection=1, epoch="1")
        self.request = TurnInput(
            static=encode_static(chosen),
            settings=chosen,
            history=HISTORY,
            items=NEW,
            key="key",
            continuation=continuation,
        )
        self.machine = TurnMachine(self.request, kind="http" if mode == "http" else "websocket")

    def chosen(self, *options: str) -> str:
        return self.draw.draw(st.sampled_from(options))

    def moment(self) -> Moment:
        return Moment(self.now, 0.5)

    def run(self) -> None:
        """Carry the turn's effects out until it ends."""
        effects = list(self.machine.start(self.moment()))
        for _ in range(300):
            following: list[TurnEffect] = []
            for effect in effects:
                following += self.carry_out(effect)
            if self.end is not None:
                return
            effects = following
        raise AssertionError("the turn does not end")

    def carry_out(self, effect: TurnEffect) -> Iterator[TurnEffect]:
        match effect:
            case SwitchToHttp() if effect is KILLED:
                yield from self.revive()
            case Emit():
                self.emitted.append(effect.event)
            case Finish() | GiveUp():
                assert self.end is None, "a turn ends once"
                self.end = effect
            case Connect():
                yield from self.connect(effect)
            case SendCreate():
                yield from self.send_create(effect)
            case SendResume():
                yield from self.answered(
                    self.server.resume(effect.response_id, effect.starting_after, self.now), effect.kind
                )
            case Retrieve():
                yield from self.retrieve(effect)
            case SleepFor():
                self.now += effect.seconds
                yield from self.machine.woken(self.moment())
            case _:
                pass

    def connect(self, effect: Connect) -> Iterator[TurnEffect]:
        what = self.chosen("well", "well", "well", "fails", "restart")
        if what == "restart":
            self.server.restart()
        if what == "fails":
            fault = TurnFault(kind="connect_failed", transport=effect.kind, delivered="no")
            yield from self.machine.failed(fault, self.moment())
            return
        if effect.kind == "websocket" and self.connection not in self.server.connections:
            self.connection += 1
            self.server.connections[self.connection] = ""
        number = self.connection if effect.kind == "websocket" else 0
        yield from self.machine.connected(Connected(number, self.server.capabilities), self.moment())

    def send_create(self, effect: SendCreate) -> Iterator[TurnEffect]:
        what = self.chosen(
            "well",
            "well",
            "well",
            "gone",
            "lost on the way",
            "restart",
            "429",
            "503",
            "500",
            "500 after it ran",
            "limit",
            "silence",
            "fails",
        )
        body = json.loads(effect.body)
        if what == "restart":
            self.server.restart()
        if effect.kind == "websocket" and effect.connection not in self.server.connections:
            what = "gone"
        if what == "gone":
            yield from self.machine.failed(
                TurnFault(kind="connection_gone", transport=effect.kind, delivered="no"), self.moment()
            )
        elif what == "lost on the way":
            yield from self.lose(effect.kind, None)
        elif what == "500 after it ran":
            self.server.create(body, effect.connection, self.now, lasts_s=0.0)
            yield from self.machine.failed(refused(500, "oops"), self.moment())
        elif what in ("429", "503", "500", "limit"):
            told = {
                "429": refused(429, "rate_limit_exceeded", 1.0),
                "503": refused(503, "busy", 1.0),
                "500": refused(500, "oops"),
            }
            limit = refused(400, "websocket_connection_limit_reached")
            yield from self.machine.failed(told.get(what, limit), self.moment())
        else:
            lasts_s = 0.0 if what == "well" else 100.0
            answer = self.server.create(body, effect.connection, self.now, lasts_s=lasts_s)
            if what == "fails" and answer.run is not None and answer.run.done_at > self.now:
                answer.run.fail()
                answer.events = answer.run.events
            yield from self.answered(answer, effect.kind)

    def answered(self, answer: Answer, kind: Literal["http", "websocket"]) -> Iterator[TurnEffect]:
        """Send the events as far as they get."""
        if answer.refusal is not None:
            yield from self.machine.failed(msgspec.structs.replace(answer.refusal, transport=kind), self.moment())
            return
        assert answer.run is not None
        breaks = self.chosen("never", "never", "lost", "lost and restart", "ends early")
        count = len(answer.events)
        if answer.run.done_at > self.now and breaks == "never":
            self.now = answer.run.done_at
        if breaks != "never":
            count = self.draw.draw(st.integers(0, max(0, count - 1)))
        answer.run.followed_at = self.now
        for event in answer.events[:count]:
            yield from self.machine.received(json.dumps(event).encode(), self.moment())
            if self.machine.ended:
                return
        if breaks == "lost and restart":
            self.server.restart()
        if breaks == "ends early":
            yield from self.machine.failed(TurnFault(kind="stream_ended", transport=kind), self.moment())
        else:
            yield from self.lose(kind, answer.run)

    def lose(self, kind: Literal["http", "websocket"], run: Run | None) -> Iterator[TurnEffect]:
        """Break the connection: the server noticed at once, and the client perhaps only after a silence."""
        self.server.connections.pop(self.connection, None)
        silent_s = self.draw.draw(st.sampled_from([0.0, 1.0, 20.0, 70.0]))
        if run is not None and self.server.kind == "stored" and self.now < run.done_at:
            run.dropped = True
        self.now += silent_s
        if self.chosen("lost", "lost", "killed") == "killed":
            yield KILLED
            return
        why: FaultKind = "timeout" if self.chosen("lost", "timeout") == "timeout" else "connection_lost"
        fault = TurnFault(kind=why, transport=kind, silent_s=silent_s)
        yield from self.machine.failed(fault, self.moment())

    def revive(self) -> Iterator[TurnEffect]:
        """Kill the client: another process takes the turn over, and shows it from its beginning."""
        request = msgspec.structs.replace(self.request, delivered=self.machine.delivered(self.moment()))
        self.machine = TurnMachine(request, kind=self.machine.kind)
        self.emitted.clear()
        yield from self.machine.start(self.moment())

    def retrieve(self, effect: Retrieve) -> Iterator[TurnEffect]:
        what = self.chosen("well", "well", "fails", "restart")
        if what == "restart":
            self.server.restart()
        found = self.server.retrieve(effect.response_id, self.now)
        if what == "fails":
            yield from self.machine.failed(TurnFault(kind="connection_lost", transport="http"), self.moment())
        elif found is None:
            yield from self.machine.failed(refused(404, "response_not_found"), self.moment())
        else:
            yield from self.machine.retrieved(json.dumps(found).encode(), self.moment())


@pytest.mark.parametrize("kind", ["gateway", "stored", "plain"])
@given(mode=st.sampled_from(["http", "websocket", "auto"]), store=st.booleans(), draw=st.data())
@settings(max_examples=examples(2000))
def test_no_turn_is_paid_for_twice_and_every_error_is_true(
    kind: Kind, mode: TransportMode, store: bool, draw: st.DataObject
) -> None:
    world = Simulation(draw, kind=kind, mode=mode, store=store)
    world.run()
    runs, end = world.server.runs, world.end
    assert len(runs) <= 1, "the turn was paid for twice"
    if isinstance(end, GiveUp):
        if not isinstance(end.error, OutcomeUnknownError | ResponseFailedError):
            assert runs == [], f"{end.error!r} says that nothing ran"
        assert not any(isinstance(event, ResponseFinished) for event in world.emitted)
    else:
        assert end is not None
        output = runs[0].events[-1]["response"]["output"]
        assert [json.loads(item) for item in end.items[len(NEW) :]] == output
        assert isinstance(world.emitted[-1], ResponseFinished)
        deltas = "".join(event.delta for event in world.emitted if isinstance(event, OutputTextDelta))
        assert deltas == output[0]["content"][0]["text"]
        assert sum(isinstance(event, ResponseCreated) for event in world.emitted) == 1
    numbers = [event.sequence_number for event in world.emitted]  # type: ignore[attr-defined]  # all events have one
    assert numbers == sorted(set(numbers)), "an event was shown twice, or out of order"
