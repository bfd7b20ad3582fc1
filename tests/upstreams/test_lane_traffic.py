"""Whose a message is on a socket with lanes, and what a server that breaks the rules is told apart by."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from segue.upstreams.lane_traffic import LaneTraffic, Received, without_lane
from tests.strategies import examples, hostile_bytes
from tests.upstreams.opened_sockets import event

ENDS = ("response.completed", "response.failed", "response.incomplete", "error", "response.error")
VIOLATION, STRAY = Received("violation"), Received("stray")


def test_a_turn_has_its_lane_until_its_last_event() -> None:
    for kind in ENDS:
        traffic = LaneTraffic(2)
        traffic.ask(1)
        assert not traffic.is_at_rest(1)
        assert traffic.receive(event("response.created", stream_id="1")) == Received("event", (1,))
        assert traffic.receive(event("codex.rate_limits", stream_id="1")) == Received("event", (1,))
        failed = "error" in kind
        assert traffic.receive(event(kind, stream_id="1")) == Received("event", (1,), at_rest=True, failed=failed)
        assert traffic.is_at_rest(1)


def test_what_nobody_reads_is_known_as_such() -> None:
    traffic = LaneTraffic(2)
    traffic.ask(0)
    traffic.give_up(0)
    traffic.give_up(1)
    assert traffic.receive(event("response.created", stream_id="0")) == Received("unread", (0,))
    assert traffic.receive(event("response.completed", stream_id="0")) == Received("unread", (0,), at_rest=True)
    traffic.ask(0)
    assert traffic.receive(event("response.created", stream_id="0")) == Received("event", (0,))


@pytest.mark.parametrize(
    "message",
    [
        b"hello",
        b"[]",
        b"{}",
        event("response.created"),
        event("response.created", stream_id="1"),
        event("response.completed", stream_id="1"),
        event("error", stream_id="1", error={"message": "m"}),
        event("response.created", stream_id="2"),
        event("response.created", stream_id="31"),
        event("response.created", stream_id="x"),
        event("response.created", stream_id=""),
        event("response.created", stream_id=0),
        b'{"stream_id":"0","response":{}}',
    ],
    ids=str,
)
def test_a_server_that_has_lost_count_is_not_believed(message: bytes) -> None:
    """Lane 0 runs a turn, lane 1 does not, and there are no others."""
    traffic = LaneTraffic(2)
    traffic.ask(0)
    assert traffic.receive(message) == VIOLATION


def test_a_lane_that_ends_twice_is_one_time_too_many() -> None:
    traffic = LaneTraffic(1)
    traffic.ask(0)
    assert traffic.receive(event("response.completed", stream_id="0")).what == "event"
    assert traffic.receive(event("response.completed", stream_id="0")) == VIOLATION


def test_what_is_of_no_turn_does_no_harm() -> None:
    traffic = LaneTraffic(2)
    assert traffic.receive(event("codex.rate_limits")) == STRAY
    assert traffic.receive(event("codex.rate_limits", stream_id="1")) == STRAY


@pytest.mark.parametrize("error", [event("error", error={"code": "x"}), b'{"error":{"message":"m"}}'])
def test_an_error_without_a_lane_is_that_of_the_only_turn_without_an_answer(error: bytes) -> None:
    traffic = LaneTraffic(3)
    traffic.ask(0)
    traffic.ask(1)
    traffic.receive(event("response.created", stream_id="0"))
    assert traffic.is_alone_unanswered(1)
    assert traffic.receive(error) == Received("event", (1,), at_rest=True, failed=True, retires=True)
    assert not traffic.is_at_rest(0)


def test_an_error_that_can_be_of_several_turns_leaves_their_outcomes_unknown() -> None:
    traffic = LaneTraffic(4)
    for lane in range(4):
        traffic.ask(lane)
    traffic.give_up(1)
    traffic.receive(event("response.created", stream_id="3"))
    assert not traffic.is_alone_unanswered(0)
    assert traffic.receive(event("error", error={})) == Received("connection", (0, 2), retires=True)
    assert traffic.receive(event("response.created", stream_id="0")) == Received("unread", (0,)), "it has run"
    assert traffic.receive(event("response.completed", stream_id="3")).what == "event"


def test_an_error_while_nothing_waits_is_about_the_connection() -> None:
    assert LaneTraffic(2).receive(event("error", error={})) == Received("connection", (), retires=True)


@given(data=st.data(), lanes=st.integers(1, 4))
@settings(max_examples=examples(300))
def test_whatever_is_asked_given_up_and_said_each_lane_is_as_a_list_of_it_says(data: st.DataObject, lanes: int) -> None:
    """Random asks, cancels and events, also of lanes that are not there, against a model that is a dictionary."""
    traffic = LaneTraffic(lanes)
    model: dict[int, str] = {}  # running: "asked" or "begun"
    unread: set[int] = set()
    for _ in range(data.draw(st.integers(0, 30))):
        lane = data.draw(st.integers(0, lanes))
        step = data.draw(st.sampled_from(["ask", "give up", "event", "end", "error", "error of all"]))
        if step == "ask":
            if lane < lanes and lane not in model:
                traffic.ask(lane)
                model[lane] = "asked"
        elif step == "give up":
            traffic.give_up(lane)
            unread |= {lane} & model.keys()
        elif step == "error of all":
            waiting = [one for one, state in model.items() if state == "asked"]
            received = traffic.receive(event("error", error={}))
            assert received.retires
            if len(waiting) == 1:
                assert received.lanes == tuple(waiting)
                assert received.what == ("unread" if waiting[0] in unread else "event")
                del model[waiting[0]]
                unread -= {waiting[0]}
            else:
                assert received.lanes == tuple(one for one in waiting if one not in unread)
                unread |= set(waiting)
        else:
            kind = {"event": "response.created", "end": "response.completed", "error": "error"}[step]
            received = traffic.receive(event(kind, stream_id=str(lane)))
            if lane not in model:
                assert received == VIOLATION
                return
            ends = step != "event"
            assert (received.what, received.at_rest) == ("unread" if lane in unread else "event", ends)
            if ends:
                del model[lane]
                unread -= {lane}
            else:
                model[lane] = "begun"
        assert [traffic.is_at_rest(one) for one in range(lanes)] == [one not in model for one in range(lanes)]


@pytest.mark.parametrize(
    "message",
    [
        b'{"type":"x","delta":"a","stream_id":"3"}',
        b'{"stream_id":"3","type":"x","delta":"a"}',
        b'{"type":"x","delta":"a", "stream_id": "3"}\n',
    ],
    ids=["last", "first", "spaced"],
)
def test_a_client_does_not_see_the_lane(message: bytes) -> None:
    assert without_lane(message, 3) == b'{"type":"x","delta":"a"}'


@given(hostile_bytes)
@example(b'{"\xff":1,"stream_id":"0","type":"response.created"}')
@example(b'{"\\ud800":1,"stream_id":"0","type":"response.created"}')
@example(b'{"a":"\\ud800","stream_id":"0","type":"response.created","x":1}')
@example(b'{"stream_id":"0","type":"response.created","x":' + b"[" * 100_000)
@settings(max_examples=examples(200))
def test_nothing_that_a_server_says_raises(data: bytes) -> None:
    traffic = LaneTraffic(1)
    traffic.ask(0)
    received = traffic.receive(data)
    if received.what == "event":
        event_alone = without_lane(data, 0)
        assert event_alone is None or b'"stream_id"' not in event_alone[:20]
