"""The state machine of a connection: its tables, each rule by itself, and all of them against a naive model."""

from __future__ import annotations

import json
from collections import deque
from itertools import product
from unittest.mock import ANY

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.protocol.lanes import BOUNDS, DEFAULT_LANE, LaneBounds
from segue.protocol.problems import (
    Problem,
    connection_limit,
    invalid_stream_id,
    shutting_down,
    stream_limit,
    turn_stopped,
    unsupported,
)
from segue.protocol.requests import Create, Resume, Steer, parse_message
from segue.protocol.session import (
    CLOSE_GOING_AWAY,
    CLOSE_SERVICE_RESTART,
    CLOSE_UNSUPPORTED_DATA,
    IMPOSSIBLE,
    LANE,
    PHASE,
    Cancel,
    Close,
    ConnectionLimits,
    Effect,
    Evict,
    Hold,
    LaneInput,
    LaneState,
    LocalProtocolError,
    Phase,
    PhaseInput,
    Release,
    SendError,
    Session,
    Start,
    StopTurn,
    SubmitSteer,
)
from tests.strategies import examples, hostile_texts

LIMITS = ConnectionLimits(max_age_s=600, idle_timeout_s=60, max_queued=3, max_queued_bytes=1000)
AGED = connection_limit(10)
END_OF_AGE = Close(CLOSE_GOING_AWAY, "age limit reached")
END_OF_IDLENESS = Close(CLOSE_GOING_AWAY, "idle for too long")
END_OF_GATEWAY = Close(CLOSE_SERVICE_RESTART, "shutting down")


def message(text: str = "hi", **fields: object) -> str:
    return json.dumps({"type": "response.create", "model": "m", "input": text, **fields})


def start(text: str) -> Start:
    parsed = parse_message(text)
    assert isinstance(parsed.request, Create)
    return Start(parsed.lane, parsed.request, ANY)


def reply(text: str) -> SendError:
    parsed = parse_message(text)
    assert isinstance(parsed.request, Problem)
    return SendError(parsed.lane, parsed.request)


def running(*queued: str, parent: str | None = None) -> Session:
    """A session at the time 0 that runs a turn, with messages waiting behind it."""
    session = Session(LIMITS, 0)
    session.receive(message("first", previous_response_id=parent), 0)
    for text in queued:
        assert session.receive(text, 0) == []
    return session


def end(
    session: Session, outcome: LaneInput = LaneInput.SUCCEEDED, now: float = 1, lane: str = DEFAULT_LANE
) -> list[Effect]:
    return session.ended(lane, outcome, now)


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


@pytest.mark.parametrize("outcome", [LaneInput.SUCCEEDED, LaneInput.FAILED, LaneInput.CANCELLED, LaneInput.ADMITTED])
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
        (['"' + "é" * 498 + 'x"'], False),
    ],
    ids=["none", "two", "three", "900 bytes", "over 1000 bytes", "twice over 500 bytes", "1000 bytes", "999 bytes"],
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
    assert session.timeout(600) == [SendError(DEFAULT_LANE, AGED), END_OF_AGE]
    assert session.closed


def test_an_old_connection_lets_its_turn_end() -> None:
    """The error comes after the turn's last event."""
    session = running()
    assert session.timeout(600) == []
    assert not session.closed
    assert end(session) == [SendError(DEFAULT_LANE, AGED), END_OF_AGE]


def test_an_old_connection_refuses_what_waits_each_in_its_place() -> None:
    """And what still comes; every message has one answer."""
    session = running(A, BAD)
    session.timeout(600)
    assert session.receive(B, 601) == []
    assert end(session) == [*[SendError(DEFAULT_LANE, AGED)] * 3, END_OF_AGE]


@pytest.mark.parametrize("outcome", [LaneInput.SUCCEEDED, LaneInput.FAILED, LaneInput.CANCELLED])
def test_a_draining_connection_ends_what_runs(outcome: LaneInput) -> None:
    """However it ends."""
    session = running()
    assert session.drain() == []
    assert end(session, outcome) == [SendError(DEFAULT_LANE, shutting_down()), END_OF_GATEWAY]


def test_a_draining_connection_closes_at_once_if_nothing_runs() -> None:
    """It is told why."""
    assert Session(LIMITS, 0).drain() == [SendError(DEFAULT_LANE, shutting_down()), END_OF_GATEWAY]


def test_what_closes_a_connection_first_is_what_it_is_told() -> None:
    """Draining an old connection, or an old draining one, changes nothing."""
    old, draining = running(), running()
    assert (old.timeout(600), old.drain(), old.timeout(700)) == ([], [], [])
    assert end(old) == [SendError(DEFAULT_LANE, AGED), END_OF_AGE]
    assert (draining.drain(), draining.drain(), draining.timeout(600)) == ([], [], [])
    assert end(draining) == [SendError(DEFAULT_LANE, shutting_down()), END_OF_GATEWAY]


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


@settings(max_examples=examples(500))
@given(st.lists(hostile_texts, max_size=5))
def test_nothing_that_a_client_sends_raises(texts: list[str]) -> None:
    """Each message is answered or started, in the order of its lane; a steer is handed on at once."""
    session = Session(ConnectionLimits(), 0)
    effects = deque(effect for text in texts for effect in session.receive(text, 0))
    done: dict[str, list[Effect]] = {}
    while effects:
        effect = effects.popleft()
        assert isinstance(effect, Start | SendError | SubmitSteer | Hold)
        if isinstance(effect, Start):
            effects += end(session, lane=effect.lane)
        if not isinstance(effect, Hold):
            done.setdefault("steer" if isinstance(effect, SubmitSteer) else effect.lane, []).append(effect)
    expected: dict[str, list[Effect]] = {}
    for text in texts:
        parsed = parse_message(text)
        if isinstance(parsed.request, Steer):
            expected.setdefault("steer", []).append(SubmitSteer(parsed.request))
        else:
            answer = start(text) if isinstance(parsed.request, Create) else reply(text)
            expected.setdefault(parsed.lane, []).append(answer)
    assert done == expected


# -------------------------------------------------------------------------------------------------------------- lanes


def named(lane: str, text: str = "hi", **fields: object) -> str:
    return message(text, stream_id=lane, **fields)


def serial() -> Session:
    return Session(ConnectionLimits(lanes=BOUNDS["serial"]), 0)


def test_lanes_run_at_the_same_time() -> None:
    """And each keeps its own order."""
    session = Session(LIMITS, 0)
    assert session.receive(named("a"), 0) == [start(named("a"))]
    assert session.receive(named("b", "1"), 0) == [start(named("b", "1"))]
    assert session.receive(A, 0) == [start(A)]
    assert session.receive(named("b", "2"), 0) == []
    assert end(session, lane="a") == []
    assert end(session, lane="b") == [start(named("b", "2"))]
    assert list(session.lanes) == [DEFAULT_LANE, "a", "b"]


def test_a_refusal_waits_in_its_own_lane_only() -> None:
    """What names no lane, or none that could be one, waits in the default lane."""
    session = running()
    bad = named("a", "hi", temperature=9)
    assert session.receive(bad, 0) == [reply(bad)]
    assert session.receive(named("a b"), 0) == []
    assert session.receive(named("a"), 0) == [start(named("a"))]
    assert end(session) == [SendError(DEFAULT_LANE, invalid_stream_id())]


def test_no_more_turns_run_than_may_and_the_rest_starts_in_its_order() -> None:
    """Lanes go on in the order in which they had to wait; who has just run waits behind them."""
    session = Session(ConnectionLimits(lanes=LaneBounds(8, 2)), 0)
    for lane in "abcd":
        session.receive(named(lane, "1"), 0)
    session.receive(named("a", "2"), 0)
    assert end(session, lane="a") == [start(named("c", "1"))]
    assert end(session, lane="b") == [start(named("d", "1"))]
    assert end(session, lane="d") == [start(named("a", "2"))]
    assert end(session, lane="c") == []


def test_a_refusal_of_a_lane_that_waits_for_others_comes_in_its_place() -> None:
    """Not before the turn that is before it."""
    session = Session(ConnectionLimits(lanes=LaneBounds(8, 1)), 0)
    session.receive(named("a"), 0)
    bad = named("b", temperature=9)
    assert session.receive(named("b"), 0) == []
    assert session.receive(bad, 0) == []
    assert end(session, lane="a") == [start(named("b"))]
    assert end(session, lane="b") == [reply(bad)]


def test_a_connection_has_a_number_of_names_for_life() -> None:
    """The default lane is not counted; the refusal carries the refused name; a used name stays good."""
    session = Session(ConnectionLimits(lanes=LaneBounds(2, 16)), 0)
    for lane in "ab":
        session.receive(named(lane), 0)
        end(session, lane=lane)
    assert session.receive(named("c"), 0) == [SendError("c", stream_limit(2))]
    assert session.receive(named("a"), 0) == [start(named("a"))]
    assert session.receive(A, 0) == [start(A)]


def test_a_bad_request_uses_up_its_name() -> None:
    """The name is looked at before the body."""
    session = Session(ConnectionLimits(lanes=LaneBounds(1, 16)), 0)
    session.receive(named("a", temperature=9), 0)
    assert session.receive(named("b"), 0) == [SendError("b", stream_limit(1))]


def test_without_lanes_a_name_is_refused_on_the_default_lane() -> None:
    """In its place; whoever has no lanes never sends a frame with a name."""
    session = serial()
    session.receive(A, 0)
    assert session.receive(named("a"), 0) == []
    (refusal,) = end(session)
    assert isinstance(refusal, SendError)
    assert (refusal.lane, refusal.problem.code, refusal.problem.param) == (
        DEFAULT_LANE,
        "unsupported_parameter",
        "stream_id",
    )
    assert list(session.lanes) == [DEFAULT_LANE]


def test_a_fork_holds_its_parent_when_it_is_accepted() -> None:
    """Whether it starts at once or waits."""
    session = Session(LIMITS, 0)
    session.receive(named("a"), 0)
    fork = named("b", previous_response_id="resp_1")
    hold, begun = session.receive(fork, 0)
    assert hold == Hold("b", 2, "resp_1")
    assert isinstance(begun, Start)
    assert begun == start(fork)
    assert begun.number == 2
    assert session.receive(fork, 0) == [Hold("b", 3, "resp_1")]


def test_nothing_is_held_where_there_is_one_lane() -> None:
    """It cannot be a fork."""
    text = message(previous_response_id="resp_1")
    assert Session(LIMITS, 0).receive(text, 0) == [start(text)]
    assert serial().receive(text, 0) == [start(text)]


@pytest.mark.parametrize("busy", [False, True])
def test_a_steer_waits_for_no_request(busy: bool) -> None:
    """It is handed on at once, whatever runs: what becomes of it is said elsewhere, and never a bare error."""
    session = running() if busy else Session(LIMITS, 0)
    text = json.dumps({"type": "response.steer", "previous_response_id": "resp_1", "input": "stop"})
    parsed = parse_message(text).request
    assert isinstance(parsed, Steer)
    assert session.receive(text, 0) == [SubmitSteer(parsed)]


def test_a_steer_without_a_response_is_a_bad_request() -> None:
    """There is nothing to give it back for."""
    text = json.dumps({"type": "response.steer", "input": "stop"})
    assert Session(LIMITS, 0).receive(text, 0) == [reply(text)]


def stop(lane: str) -> str:
    return json.dumps({"type": "segue.cancel"} | ({"stream_id": lane} if lane else {}))


def test_a_cancel_stops_what_runs_in_its_lane_and_what_waits_there_goes_on() -> None:
    session = Session(LIMITS, 0)
    session.receive(named("a"), 0)
    session.receive(named("b"), 0)
    session.receive(named("a", "2"), 0)
    assert session.receive(stop("a"), 0) == [StopTurn("a")]
    assert end(session, LaneInput.CANCELLED, lane="a") == [start(named("a", "2"))]


@pytest.mark.parametrize("lane", ["", "a", "unused"])
def test_a_cancel_where_nothing_runs_changes_nothing(lane: str) -> None:
    """The end of the turn has crossed it on the way."""
    session = Session(LIMITS, 0)
    session.receive(named("a"), 0)
    end(session, lane="a")
    assert session.receive(stop(lane), 0) == []
    assert list(session.lanes) == [DEFAULT_LANE, "a"]


def test_a_cancel_refuses_what_waits_for_other_lanes_when_its_place_comes() -> None:
    session = Session(ConnectionLimits(max_age_s=600, lanes=LaneBounds(8, 1)), 0)
    for lane in "abc":
        session.receive(named(lane), 0)
    assert session.receive(stop("b"), 0) == [Release(2)]
    assert end(session, lane="a") == [SendError("b", turn_stopped()), start(named("c"))]


def test_a_resume_takes_its_turn_in_a_lane() -> None:
    """Like a create; it has no parent that could be evicted or held."""
    session = Session(LIMITS, 0)
    text = json.dumps({"type": "segue.resume", "response_id": "resp_1", "stream_id": "a"})
    session.receive(named("a", previous_response_id="resp_2"), 0)
    assert session.receive(text, 0) == []
    assert end(session, lane="a") == [Start("a", Resume(response_id="resp_1"), 2)]
    assert end(session, LaneInput.FAILED, lane="a") == []


def test_a_closing_connection_tells_every_lane_and_then_all() -> None:
    """Refusals go where their requests were; the last word has no lane, since it is about the connection."""
    session = Session(ConnectionLimits(max_age_s=600, lanes=LaneBounds(8, 2)), 0)
    for lane in "abc":
        session.receive(named(lane), 0)
    session.receive(named("a", "2"), 0)
    aged = connection_limit(10)
    assert session.timeout(600) == [SendError("c", aged)]
    assert end(session, lane="a") == [SendError("a", aged)]
    assert end(session, lane="b") == [SendError(DEFAULT_LANE, aged), END_OF_AGE]


def test_a_turn_that_fails_forgets_its_parent_though_another_lane_goes_on() -> None:
    """Both are effects of the same end, the lane's own first."""
    session = Session(ConnectionLimits(lanes=LaneBounds(8, 1)), 0)
    session.receive(message("a", stream_id="one", previous_response_id="resp_1"), 0)
    waiting = message("b", stream_id="two")
    assert session.receive(waiting, 0) == []
    assert end(session, LaneInput.FAILED, lane="one") == [Evict("one", "resp_1"), start(waiting)]


def test_a_lane_that_cannot_be_had_is_refused_with_advice() -> None:
    advice = "this connection has only the default lane; leave it out, or open one connection per lane"
    assert serial().receive(message("a", stream_id="one"), 0) == [
        SendError(DEFAULT_LANE, unsupported("stream_id", advice))
    ]
