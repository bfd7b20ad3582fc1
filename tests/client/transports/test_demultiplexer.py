"""Which lane each message is for, and whose an error is that does not say so."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.client.recovery import FaultKind, TurnFault
from segue.client.transports.demultiplexer import (
    CONNECTION_LIMIT,
    BreakConnection,
    Deliver,
    Demultiplexer,
    FailLane,
    RetireConnection,
    RoutingEffect,
)
from segue.client.transports.server_errors import WordReader
from tests.strategies import examples


def event(kind: str, lane: str = "", **more: object) -> bytes:
    return msgspec.json.encode({"type": kind, **({"stream_id": lane} if lane else {}), **more})


def error(code: str, lane: str = "") -> bytes:
    return event("error", lane, status=400, error={"code": code, "message": "m"})


def fault(kind: FaultKind, code: str) -> TurnFault:
    return TurnFault(kind=kind, transport="websocket", status=400, code=code, message="m")


CREATED, DELTA, COMPLETED = "response.created", "response.output_text.delta", "response.completed"


def running(*lanes: str, started: tuple[str, ...] = (), abandoned: tuple[str, ...] = ()) -> Demultiplexer:
    demultiplexer = Demultiplexer(WordReader())
    for lane in lanes:
        demultiplexer.begin(lane)
    for lane in started:
        demultiplexer.receive(event(CREATED, lane), 0.0)
    for lane in abandoned:
        demultiplexer.abandon(lane)
    return demultiplexer


def test_events_go_to_their_lanes_until_the_last() -> None:
    demultiplexer = running("", "a", "b")
    for lane in ("a", "", "b"):
        for kind in (CREATED, DELTA):
            data = event(kind, lane)
            assert demultiplexer.receive(data, 0.0) == [Deliver(lane, data, False)]
    for lane, kind in (("b", COMPLETED), ("", "response.failed"), ("a", "response.incomplete")):
        data = event(kind, lane)
        assert demultiplexer.receive(data, 0.0) == [Deliver(lane, data, True)]
        assert lane not in demultiplexer.running


@pytest.mark.parametrize("lane", ["", "a", "never"])
def test_events_of_a_turn_that_is_over_are_dropped(lane: str) -> None:
    assert running().receive(event(DELTA, lane), 0.0) == []
    assert running().receive(error("x", lane), 0.0) == []


def test_events_of_an_unknown_lane_are_dropped() -> None:
    assert running("a").receive(event(DELTA, "z"), 0.0) == []
    assert running("a").receive(error("x", "z"), 0.0) == []


def test_an_abandoned_lane_is_busy_until_its_turn_ends_and_silent() -> None:
    demultiplexer = running("a", "b", started=("a",), abandoned=("a",))
    assert demultiplexer.receive(event(DELTA, "a"), 0.0) == []
    assert demultiplexer.running == ["a", "b"]
    assert demultiplexer.receive(event(COMPLETED, "a"), 0.0) == []
    assert demultiplexer.running == ["b"]
    demultiplexer = running("a", abandoned=("a", "not there"))
    assert demultiplexer.receive(error("x", "a"), 0.0) == []
    assert demultiplexer.running == []


COMPACT = (b'[0,0,"resp_1",7]', b'[4,1,0,0,0,"msg_0000",4,"a"]', b'[1,"b"]', b"[3,3,2,null]")


def compact(data: bytes, lane: str) -> bytes:
    return b'["%b",%b' % (lane.encode(), data[1:]) if lane else data


@pytest.mark.parametrize("lane", ["", "a"])
def test_compact_events_are_handed_on_as_what_they_stand_for(lane: str) -> None:
    """Each lane by itself."""
    demultiplexer = running("", "a", "b")
    got: list[dict[str, Any]] = []
    for data in COMPACT:
        (delivered,) = demultiplexer.receive(compact(data, lane), 0.0)
        assert isinstance(delivered, Deliver)
        assert (delivered.lane, delivered.last) == (lane, data is COMPACT[-1])
        got.append(msgspec.json.decode(delivered.data))
    assert [one["type"] for one in got] == [CREATED, DELTA, DELTA, COMPLETED]
    assert [one["sequence_number"] for one in got] == [0, 4, 5, 8]
    assert [got[1]["item_id"], got[2]["item_id"]] == ["msg_10000"] * 2
    assert lane not in demultiplexer.running


def test_a_compact_event_that_does_not_fit_ends_its_turn_alone() -> None:
    """A delta has not come, say. What follows builds on it, so it is dropped; other turns go on."""
    demultiplexer = running("a", "b", started=("a",))
    (failed,) = demultiplexer.receive(compact(COMPACT[2], "a"), 0.0)
    assert isinstance(failed, FailLane)
    assert (failed.lane, failed.fault.kind) == ("a", "unreadable")
    assert demultiplexer.receive(compact(COMPACT[1], "a"), 0.0) == []
    assert demultiplexer.running == ["a", "b"]
    assert demultiplexer.receive(compact(COMPACT[3], "a"), 0.0) == []
    assert demultiplexer.running == ["b"]
    assert demultiplexer.receive(compact(COMPACT[1], "a"), 0.0) == [], "of a turn that is over"
    (broken,) = demultiplexer.receive(b"[]", 0.0)
    assert isinstance(broken, BreakConnection)


def test_the_only_turn_gets_what_comes_without_a_lane() -> None:
    """A server may forget to say the lane; with one turn, there is no doubt."""
    data = event(CREATED)
    demultiplexer = running("a")
    assert demultiplexer.receive(data, 0.0) == [Deliver("a", data, False)]
    assert demultiplexer.receive(error("x"), 0.0) == [FailLane("a", fault("failed", "x"))]


def test_with_several_named_turns_an_event_without_a_lane_is_nobodys() -> None:
    (effect,) = running("a", "b").receive(event(DELTA), 0.0)
    assert isinstance(effect, BreakConnection)
    assert effect.fault.kind == "unreadable"


@pytest.mark.parametrize("lanes", [("a",), ("a", "b")])
def test_of_a_server_that_says_lanes_an_event_without_one_is_the_default_lanes(lanes: tuple[str, ...]) -> None:
    """A second end of the default lane's turn, say: it is not the end of another lane's, and breaks nothing."""
    demultiplexer = running("", *lanes, started=("", "a"))
    demultiplexer.receive(event(COMPLETED), 0.0)
    assert demultiplexer.receive(event(COMPLETED), 0.0) == []
    assert demultiplexer.running == list(lanes)


@pytest.mark.parametrize("kind", [COMPLETED, "response.incomplete"])
def test_the_end_of_a_response_that_has_not_begun_ends_no_turn(kind: str) -> None:
    """It is the end of the turn before, once more: the answer to this create is still to come."""
    demultiplexer = running("")
    assert demultiplexer.receive(event(kind), 0.0) == [Deliver("", event(kind), False)]
    assert demultiplexer.receive(event(CREATED), 0.0) == [Deliver("", event(CREATED), False)]
    assert demultiplexer.receive(event(kind), 0.0) == [Deliver("", event(kind), True)]


def test_a_turn_may_fail_before_it_begins() -> None:
    failed = event("response.failed")
    assert running("").receive(failed, 0.0) == [Deliver("", failed, True)]


def test_a_stream_that_is_resumed_may_have_nothing_but_its_end() -> None:
    demultiplexer = Demultiplexer(WordReader())
    demultiplexer.begin("", resumed=True)
    assert demultiplexer.receive(event(COMPLETED), 0.0) == [Deliver("", event(COMPLETED), True)]


def test_what_is_about_no_response_is_passed_on_or_dropped_and_starts_nothing() -> None:
    """Services say their rate limits before the first event of a response."""
    limits = event("codex.rate_limits")
    demultiplexer = running("")
    assert demultiplexer.receive(limits, 0.0) == [Deliver("", limits, False)]
    assert demultiplexer.receive(error("x"), 0.0) == [FailLane("", fault("refused", "x"))]
    demultiplexer = running("a", "b")
    assert demultiplexer.receive(limits, 0.0) == []
    assert demultiplexer.running == ["a", "b"]


@pytest.mark.parametrize("data", [b"<html>", b"{}", b"\xff", b'{"type":1}'])
def test_what_is_no_event_breaks_the_connection(data: bytes) -> None:
    (effect,) = running("a").receive(data, 0.0)
    assert isinstance(effect, BreakConnection)
    assert effect.fault.kind == "unreadable"


@pytest.mark.parametrize("lane", ["", "a"])
def test_an_error_refuses_a_turn_before_its_first_event_and_fails_it_after(lane: str) -> None:
    demultiplexer = running(lane, "b")
    assert demultiplexer.receive(error("x", lane), 0.0) == [FailLane(lane, fault("refused", "x"))]
    demultiplexer = running(lane, "b", started=(lane,))
    assert demultiplexer.receive(error("x", lane), 0.0) == [FailLane(lane, fault("failed", "x"))]
    assert demultiplexer.running == ["b"]


def test_an_error_without_a_lane_is_the_default_lanes_if_that_runs() -> None:
    demultiplexer = running("", "a", started=("a",))
    assert demultiplexer.receive(error("x"), 0.0) == [FailLane("", fault("refused", "x"))]
    assert demultiplexer.running == ["a"]


def test_nobody_is_refused_by_an_error_that_may_be_anothers() -> None:
    """A turn that is taken for refused is sent again: it would be paid twice."""
    demultiplexer = running("a", "b")
    assert demultiplexer.receive(error("previous_response_not_found"), 0.0) == [
        BreakConnection(fault("connection_lost", "previous_response_not_found"))
    ]


def test_the_limit_of_a_connection_refuses_what_has_not_begun_and_lets_the_rest_end() -> None:
    demultiplexer = running("", "a", "b", started=("", "b"))
    assert demultiplexer.receive(error(CONNECTION_LIMIT), 0.0) == [
        RetireConnection(),
        FailLane("a", fault("refused", CONNECTION_LIMIT)),
    ]
    assert demultiplexer.running == ["", "b"]


def test_the_limit_does_not_say_which_of_several_creates_it_refuses() -> None:
    demultiplexer = running("a", "b", "c", started=("c",))
    lost = fault("connection_lost", CONNECTION_LIMIT)
    assert demultiplexer.receive(error(CONNECTION_LIMIT), 0.0) == [
        RetireConnection(),
        FailLane("a", lost),
        FailLane("b", lost),
    ]
    assert demultiplexer.running == ["c"]


@pytest.mark.parametrize(("lane", "lanes"), [("a", ("a", "b")), ("", ("a",)), ("", ())])
def test_the_limit_retires_the_connection_whoever_it_is_said_to(lane: str, lanes: tuple[str, ...]) -> None:
    effects = running(*lanes).receive(error(CONNECTION_LIMIT, lane), 0.0)
    assert effects[0] == RetireConnection()
    assert effects[1:] == [FailLane(name, fault("refused", CONNECTION_LIMIT)) for name in lanes[:1]]


def test_a_turn_that_was_never_sent_is_forgotten() -> None:
    demultiplexer = running("a")
    demultiplexer.forget("a")
    demultiplexer.forget("b")
    assert demultiplexer.running == []
    demultiplexer.begin("a")


_lanes = st.sampled_from(["", "a", "b", "c"])
_steps = st.lists(
    st.tuples(st.just("begin"), _lanes)
    | st.tuples(st.just("abandon"), _lanes)
    | st.tuples(st.sampled_from([CREATED, DELTA, COMPLETED, "error", "limit", "junk"]), _lanes),
    max_size=30,
)


@given(_steps)
@settings(max_examples=examples(1000))
def test_every_turn_that_ends_is_told_so_exactly_once(steps: list[tuple[str, str]]) -> None:
    demultiplexer = Demultiplexer(WordReader())
    open_lanes: set[str] = set()
    for what, lane in steps:
        effects: list[RoutingEffect] = []
        if what == "begin":
            if lane not in demultiplexer.running:
                demultiplexer.begin(lane)
                open_lanes.add(lane)
        elif what == "abandon":
            demultiplexer.abandon(lane)
            open_lanes.discard(lane)
        else:
            messages: dict[str, Any] = {"error": error("x", lane), "limit": error(CONNECTION_LIMIT, lane), "junk": b"?"}
            effects = demultiplexer.receive(messages.get(what) or event(what, lane), 0.0)
        for effect in effects:
            match effect:
                case Deliver(told, _, last):
                    assert told in open_lanes
                    open_lanes -= {told} if last else set()
                case FailLane(told, _):
                    assert told in open_lanes
                    open_lanes.discard(told)
                case BreakConnection():
                    return
                case RetireConnection():
                    pass
        assert open_lanes <= set(demultiplexer.running)
