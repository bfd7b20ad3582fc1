"""The state machine of a connection: its tables, each rule by itself, and all of them against a naive model."""

from __future__ import annotations

import json
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from segue.protocol.problems import Problem, connection_limit, shutting_down
from segue.protocol.requests import Create, parse_message
from segue.protocol.session import (
    CLOSE_GOING_AWAY,
    CLOSE_SERVICE_RESTART,
    CLOSE_UNSUPPORTED_DATA,
    DEFAULT_LANE,
    IMPOSSIBLE,
    LANE,
    PHASE,
    Cancel,
    Close,
    Effect,
    Evict,
    LaneInput,
    LaneState,
    Limits,
    LocalProtocolError,
    Phase,
    PhaseInput,
    Reply,
    Session,
    Start,
)
from tests.strategies import hostile_texts

LIMITS = Limits(max_age_s=600, idle_timeout_s=60, max_queued=3, max_queued_bytes=1000)
AGED = connection_limit(10)
END_OF_AGE = Close(CLOSE_GOING_AWAY, "age limit reached")
END_OF_IDLENESS = Close(CLOSE_GOING_AWAY, "idle for too long")
END_OF_GATEWAY = Close(CLOSE_SERVICE_RESTART, "shutting down")


def message(text: str = "hi", **fields: object) -> str:
    return json.dumps({"type": "response.create", "model": "m", "input": text, **fields})


def start(text: str) -> Start:
    create = parse_message(text)
    assert isinstance(create, Create)
    return Start(DEFAULT_LANE, create)


def reply(text: str) -> Reply:
    problem = parse_message(text)
    assert isinstance(problem, Problem)
    return Reply(DEFAULT_LANE, problem)


def running(*queued: str, parent: str | None = None) -> Session:
    """A session at the time 0 that runs a turn, with messages waiting behind it."""
    session = Session(LIMITS, 0)
    session.receive(message("first", previous_response_id=parent), 0)
    for text in queued:
        assert session.receive(text, 0) == []
    return session


def end(session: Session, outcome: LaneInput = LaneInput.SUCCEEDED, now: float = 1) -> list[Effect]:
    return session.ended(DEFAULT_LANE, outcome, now)


A, B, BAD = message("a"), message("b"), "{"

# ------------------------------------------------------------------------------------------------------------- tables


def test_every_input_of_a_lane_is_in_the_table_or_impossible() -> None:
    """And in no more than one of them."""
    every = set(product(LaneState, LaneInput))
    assert LANE.keys() | IMPOSSIBLE == every
    assert LANE.keys() & IMPOSSIBLE == set()


def test_every_input_of_a_connection_is_in_the_table() -> None:
    """Nothing that happens to a connection is impossible."""
    assert set(PHASE) == set(product(Phase, PhaseInput))


def test_a_closed_connection_stays_closed() -> None:
    """Whatever happens."""
    assert {PHASE[Phase.CLOSED, event] for event in PhaseInput} == {Phase.CLOSED}


@pytest.mark.parametrize("outcome", [LaneInput.SUCCEEDED, LaneInput.FAILED, LaneInput.CANCELLED])
def test_what_is_impossible_is_a_mistake_of_the_shell(outcome: LaneInput) -> None:
    """No turn can end in a lane that runs none."""
    with pytest.raises(LocalProtocolError, match=outcome.value):
        end(Session(LIMITS, 0), outcome)


# -------------------------------------------------------------------------------------------------- turns and refusals


def test_a_request_to_an_idle_lane_starts_at_once() -> None:
    """With what was parsed from it."""
    assert Session(LIMITS, 0).receive(A, 0) == [start(A)]


def test_a_bad_message_to_an_idle_lane_is_answered_at_once() -> None:
    """And the connection goes on."""
    session = Session(LIMITS, 0)
    assert session.receive(BAD, 0) == [reply(BAD)]
    assert session.receive(A, 0) == [start(A)]


def test_a_lane_runs_one_turn_and_answers_in_order() -> None:
    """A refusal waits for its place, so that replies can be matched by counting."""
    session = running(BAD, A, BAD, B)
    assert end(session) == [reply(BAD), start(A)]
    assert end(session) == [reply(BAD), start(B)]
    assert end(session) == []


@pytest.mark.parametrize(
    ("outcome", "parent", "expected"),
    [
        (LaneInput.SUCCEEDED, "resp_1", []),
        (LaneInput.CANCELLED, "resp_1", []),
        (LaneInput.FAILED, "resp_1", [Evict(DEFAULT_LANE, "resp_1")]),
        (LaneInput.FAILED, None, []),
    ],
)
def test_only_a_failed_continuation_evicts_its_parent(
    outcome: LaneInput, parent: str | None, expected: list[Effect]
) -> None:
    """Before the next turn starts, which may name the same parent."""
    session = running(A, parent=parent)
    assert end(session, outcome) == [*expected, start(A)]


def test_a_parent_is_evicted_for_its_own_turn_only() -> None:
    """A failed turn without a parent does not blame that of the turn before it."""
    session = running(A, parent="resp_1")
    assert end(session) == [start(A)]
    assert end(session, LaneInput.FAILED) == []


def test_a_binary_message_closes_the_connection() -> None:
    """The protocol has none; nobody would read what still runs."""
    session = running(A)
    assert session.receive_binary() == [Cancel(), Close(CLOSE_UNSUPPORTED_DATA, "text messages only")]
    assert session.closed


# --------------------------------------------------------------------------------------------------------- saturation


@pytest.mark.parametrize(
    ("queued", "saturated"),
    [
        ([], False),
        ([A, BAD], False),
        ([A, BAD, A], True),
        ([message("x" * 900)], False),
        ([message("x" * 1000)], True),
        ([message("x" * 500), message("x" * 500)], True),
        (['"' + "é" * 499 + '"'], True),
        (['"' + "é" * 498 + '"'], False),
    ],
    ids=["none", "two", "three", "900 bytes", "over 1000 bytes", "twice over 500 bytes", "1000 bytes", "998 bytes"],
)
def test_a_full_queue_is_saturated(queued: list[str], saturated: bool) -> None:
    """By its messages, refusals included, or by their bytes on the wire."""
    assert running(*queued).saturated is saturated


def test_what_leaves_the_queue_makes_room() -> None:
    """Also a message that was larger than the whole queue may be."""
    session = running(message("x" * 5000))
    assert session.saturated
    end(session)
    assert not session.saturated


def test_a_message_that_starts_at_once_never_saturates() -> None:
    """It does not wait."""
    session = Session(LIMITS, 0)
    session.receive(message("x" * 5000), 0)
    assert not session.saturated


# ------------------------------------------------------------------------------------------------- age, idleness, end


def test_an_old_connection_says_so_and_closes() -> None:
    """The error first: clients know it, and connect again."""
    session = Session(LIMITS, 0)
    session.receive(BAD, 599)
    assert session.timeout(599.9) == []
    assert session.timeout(600) == [Reply(DEFAULT_LANE, AGED), END_OF_AGE]
    assert session.closed


def test_an_old_connection_lets_its_turn_end() -> None:
    """The error comes after the turn's last event."""
    session = running()
    assert session.timeout(600) == []
    assert not session.closed
    assert end(session) == [Reply(DEFAULT_LANE, AGED), END_OF_AGE]


def test_an_old_connection_refuses_what_waits_each_in_its_place() -> None:
    """And what still comes; every message has one answer."""
    session = running(A, BAD)
    session.timeout(600)
    assert session.receive(B, 601) == []
    assert end(session) == [*[Reply(DEFAULT_LANE, AGED)] * 3, END_OF_AGE]


@pytest.mark.parametrize("outcome", [LaneInput.SUCCEEDED, LaneInput.FAILED, LaneInput.CANCELLED])
def test_a_draining_connection_ends_what_runs(outcome: LaneInput) -> None:
    """However it ends."""
    session = running()
    assert session.drain() == []
    assert end(session, outcome) == [Reply(DEFAULT_LANE, shutting_down()), END_OF_GATEWAY]


def test_a_draining_connection_closes_at_once_if_nothing_runs() -> None:
    """It is told why."""
    assert Session(LIMITS, 0).drain() == [Reply(DEFAULT_LANE, shutting_down()), END_OF_GATEWAY]


def test_what_closes_a_connection_first_is_what_it_is_told() -> None:
    """Draining an old connection, or an old draining one, changes nothing."""
    old, draining = running(), running()
    assert (old.timeout(600), old.drain(), old.timeout(700)) == ([], [], [])
    assert end(old) == [Reply(DEFAULT_LANE, AGED), END_OF_AGE]
    assert (draining.drain(), draining.drain(), draining.timeout(600)) == ([], [], [])
    assert end(draining) == [Reply(DEFAULT_LANE, shutting_down()), END_OF_GATEWAY]


def test_an_idle_connection_is_closed_without_a_word() -> None:
    """There is nobody who asked."""
    session = Session(LIMITS, 0)
    session.receive(BAD, 10)
    assert session.timeout(69.9) == []
    assert session.timeout(70) == [END_OF_IDLENESS]
    assert session.closed


def test_a_running_turn_is_not_idle() -> None:
    """Idleness begins when the turn ends."""
    session = running()
    assert session.timeout(500) == []
    end(session, now=520)
    assert session.timeout(579) == []
    assert session.timeout(580) == [END_OF_IDLENESS]


def test_deadlines_are_those_that_are_due_next() -> None:
    """None once nothing can be due."""
    session = Session(LIMITS, 0)
    assert session.next_deadline() == 60
    session.receive(A, 30)
    assert session.next_deadline() == 600
    end(session, now=590)
    assert session.next_deadline() == 600
    session.receive(A, 595)
    session.timeout(600)
    assert session.next_deadline() is None
    end(session, now=601)
    assert session.next_deadline() is None


def test_a_peer_that_is_gone_cancels_everything() -> None:
    """Dropping the connection is how a client cancels."""
    session = running(A)
    assert session.disconnected() == [Cancel()]
    assert session.closed


@settings(max_examples=500)
@given(st.lists(hostile_texts, max_size=5))
def test_nothing_that_a_client_sends_raises(texts: list[str]) -> None:
    """Each message is answered or started, in order."""
    session = Session(Limits(), 0)
    effects = [effect for text in texts for effect in session.receive(text, 0)]
    ended = 0
    while ended < sum(isinstance(effect, Start) for effect in effects):
        effects += end(session)
        ended += 1
    requests = [parse_message(text) for text in texts]
    lane = DEFAULT_LANE
    assert effects == [Start(lane, it) if isinstance(it, Create) else Reply(lane, it) for it in requests]


# --------------------------------------------------------------------------------------------------- the naive model


class SessionMachine(RuleBasedStateMachine):
    """Drives a session at random beside a model that keeps one list, and compares every effect."""

    @initialize()
    def connect(self) -> None:
        self.now = 0.0
        self.session = Session(LIMITS, self.now)
        self.waiting: list[str] = []
        self.turn: str | None = None
        self.farewell: Problem | None = None
        self.close: Close | None = None
        self.told = False
        self.closed = False
        self.active_at = 0.0

    def expect_pump(self) -> list[Effect]:
        """What the model says happens now: answers up to the next turn, then the end if it is due."""
        effects: list[Effect] = []
        while self.waiting and self.turn is None:
            text = self.waiting.pop(0)
            if self.farewell is not None:
                effects.append(Reply(DEFAULT_LANE, self.farewell))
                self.told = True
            elif isinstance(parse_message(text), Create):
                self.turn = text
                effects.append(start(text))
            else:
                effects.append(reply(text))
        if self.farewell is not None and self.turn is None:
            assert self.close is not None
            effects += [self.close] if self.told else [Reply(DEFAULT_LANE, self.farewell), self.close]
            self.closed = True
        return effects

    def expect_closing(self, farewell: Problem, close: Close) -> list[Effect]:
        if self.closed or self.farewell is not None:
            return []
        self.farewell, self.close = farewell, close
        return self.expect_pump()

    @rule(text=st.sampled_from([A, B, BAD, "[]", message(previous_response_id="resp_1"), message("x" * 400)]))
    def receive(self, text: str) -> None:
        if not self.closed:
            self.active_at = self.now
            self.waiting.append(text)
        expected = [] if self.closed else self.expect_pump()
        assert self.session.receive(text, self.now) == expected

    @precondition(lambda self: self.turn is not None or self.closed)
    @rule(outcome=st.sampled_from([LaneInput.SUCCEEDED, LaneInput.FAILED, LaneInput.CANCELLED]))
    def end_turn(self, outcome: LaneInput) -> None:
        expected: list[Effect] = []
        if not self.closed:
            assert self.turn is not None
            parent = json.loads(self.turn).get("previous_response_id")
            if outcome is LaneInput.FAILED and parent is not None:
                expected.append(Evict(DEFAULT_LANE, parent))
            self.turn, self.active_at = None, self.now
            expected += self.expect_pump()
        assert end(self.session, outcome, self.now) == expected

    @rule(seconds=st.sampled_from([0.5, 30.0, 60.0, 300.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        expected: list[Effect] = []
        if self.now >= 600 and self.farewell is None:
            expected = self.expect_closing(AGED, END_OF_AGE)
        elif not self.closed and self.turn is None and self.now >= self.active_at + 60:
            self.closed = True
            expected = [END_OF_IDLENESS]
        assert self.session.timeout(self.now) == expected

    @rule()
    def drain(self) -> None:
        expected = self.expect_closing(shutting_down(), END_OF_GATEWAY)
        assert self.session.drain() == expected

    @precondition(lambda self: self.now > 100)
    @rule(binary=st.booleans())
    def hang_up(self, binary: bool) -> None:
        last: list[Effect] = [Cancel()]
        if binary:
            last.append(Close(CLOSE_UNSUPPORTED_DATA, "text messages only"))
        expected = [] if self.closed else last
        self.closed = True
        assert (self.session.receive_binary() if binary else self.session.disconnected()) == expected

    @invariant()
    def agree(self) -> None:
        assert self.session.closed is self.closed
        if self.closed:
            assert self.session.next_deadline() is None
            return
        sizes = [len(text) for text in self.waiting]
        assert self.session.saturated is (len(sizes) >= LIMITS.max_queued or sum(sizes) >= LIMITS.max_queued_bytes)
        deadline = self.session.next_deadline()
        if self.turn is not None:
            assert deadline == (None if self.farewell is not None else 600)
        else:
            assert deadline == min(600, self.active_at + 60)


TestSessionMachine = SessionMachine.TestCase
TestSessionMachine.settings = settings(max_examples=200, stateful_step_count=30)
