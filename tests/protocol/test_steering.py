"""What becomes of steers: the table, at random; their input; what a response waits for; and their events."""

from __future__ import annotations

import json
from itertools import product
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw

from segue.protocol.items import Input, join, parse_input, user_message
from segue.protocol.problems import Problem
from segue.protocol.request_size import DEFAULT_LIMITS
from segue.protocol.requests import Steer
from segue.protocol.steering import (
    MESSAGES,
    MOST_STEERS,
    STEERING,
    LaneSteering,
    QueuedSteer,
    SteeringAction,
    SteeringInput,
    SteeringState,
    may_stop_after,
    parse_steer_input,
    prepend,
    required_input,
    steer_accepted,
    steer_failed,
    steer_pending,
)
from segue.testing.protocol_checker import check_event
from tests.strategies import examples

CALL = {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"}
SAID = {"type": "message", "role": "assistant", "content": []}
THOUGHT = {"type": "reasoning", "summary": []}


def steer(value: object = "more", target: str = "resp_1") -> Steer:
    return Steer(previous_response_id=target, input=Raw(json.dumps(value).encode()))


def queued(number: int, target: str = "resp_1") -> QueuedSteer:
    return QueuedSteer(f"steer_{number}", steer(target=target), (user_message(str(number)),))


def raw(*items: object) -> list[bytes]:
    return [json.dumps(item).encode() for item in items]


# --- the machine -----------------------------------------------------------------------------------------------------


def test_every_way_leads_back_to_nothing() -> None:
    """A steer never stays in a state for ever: from each, something commits it or gives it back."""
    for state in SteeringState:
        seen, reached = {state}, [state]
        while reached:
            now = reached.pop()
            following = {STEERING[now, event][0] for event in SteeringInput if (now, event) in STEERING}
            reached += following - seen
            seen |= following
        assert SteeringState.NONE in seen


def test_an_input_without_a_row_changes_nothing() -> None:
    for state, event in product(SteeringState, SteeringInput):
        if (state, event) not in STEERING:
            lane = LaneSteering()
            lane.state = state
            assert lane.advance(event) is None
            assert lane.state is state


@settings(max_examples=examples(150), deadline=None)
@given(st.lists(st.sampled_from(SteeringInput), max_size=30))
def test_each_steer_is_committed_or_given_back_once_and_in_order(events: list[SteeringInput]) -> None:
    lane, accepted, ended = LaneSteering(), list[str](), list[str]()
    for event in events:
        before = lane.state
        if event is SteeringInput.ACCEPTED:
            if before in {SteeringState.NONE, SteeringState.QUEUED} and not lane.full:
                accepted.append(f"steer_{len(accepted)}")
                lane.accept(queued(len(accepted) - 1))
            continue
        action = lane.advance(event)
        if action is SteeringAction.RETURN or (before is SteeringState.COMMITTING and event is SteeringInput.CREATED):
            ended += [one.id for one in lane.take()]
        assert (lane.state is SteeringState.NONE) == (lane.target is None)
        assert [*ended, *(one.id for one in lane.steers)] == accepted
    assert lane.items() == tuple(item for one in lane.steers for item in one.items)


def test_a_lane_holds_so_many_and_no_more() -> None:
    lane = LaneSteering()
    for number in range(MOST_STEERS):
        assert not lane.full
        lane.accept(queued(number))
    assert lane.full
    assert lane.target == "resp_1"


# --- input -----------------------------------------------------------------------------------------------------------

PART = {"type": "input_text", "text": "hi"}


@pytest.mark.parametrize(
    "value",
    [
        "more",
        [{"role": "user", "content": "more"}],
        [{"type": "message", "role": "user", "content": [PART]}, {"role": "user", "content": "again"}],
        [{"role": "user", "content": [{"type": "input_image", "image_url": "data:,"}]}],
        [{"role": "user", "content": [{"type": "input_file", "file_id": "f"}]}],
    ],
)
def test_users_may_say_something(value: object) -> None:
    given_input = parse_steer_input(steer(value), DEFAULT_LIMITS)
    assert isinstance(given_input, Input)
    assert given_input == parse_input(json.dumps(value).encode())


@pytest.mark.parametrize(
    "value",
    [
        None,
        1,
        [],
        [{"role": "developer", "content": "x"}],
        [{"role": "assistant", "content": "x"}],
        [{"role": "user", "content": "x", "id": "msg_1"}],
        [{"role": "user", "content": [{"type": "output_text", "text": "x"}]}],
        [{"role": "user", "content": [{"type": "input_audio"}]}],
        [{"type": "function_call_output", "call_id": "c", "output": "x"}],
        [{"type": "item_reference", "id": "msg_1"}],
        [CALL],
        [1],
    ],
)
def test_nothing_else_steers(value: object) -> None:
    assert isinstance(parse_steer_input(steer(value), DEFAULT_LIMITS), Problem)


_items = st.lists(
    st.sampled_from(
        [
            {"role": "user", "content": "x"},
            CALL,
            {"type": "function_call_output", "call_id": "c1", "output": "1"},
            {"type": "message", "id": "msg_1", "role": "assistant", "content": []},
            {"type": "item_reference", "id": "msg_2"},
        ]
    ),
    max_size=4,
)


@settings(max_examples=examples(60))
@given(st.integers(0, 3), _items)
def test_what_goes_before_an_input_is_as_if_it_had_been_sent_so(count: int, values: list[Any]) -> None:
    """But for the places that errors name: they are those of the client's own list."""
    before, after = raw(*[{"role": "user", "content": "steer"}] * count), raw(*values)
    given_input, whole = parse_input(join(after)), parse_input(join([*before, *after]))
    assert isinstance(given_input, Input)
    assert isinstance(whole, Input)
    assert prepend(before, given_input) == msgspec.structs.replace(whole, answers=given_input.answers)


# --- what a response waits for ---------------------------------------------------------------------------------------


def test_calls_of_the_client_are_asked_for_and_others_are_not() -> None:
    output = raw(
        CALL,
        {"type": "custom_tool_call", "call_id": "c2", "name": "g", "input": ""},
        {"type": "shell_call", "call_id": "c3"},
        {"type": "shell_call_output", "call_id": "c3", "output": []},
        {"type": "tool_search_call", "call_id": "c4", "execution": "client"},
        {"type": "tool_search_call", "call_id": "c5", "execution": "server"},
        {"type": "mcp_approval_request", "id": "mcpr_1"},
        {"type": "web_search_call", "id": "ws_1"},
        SAID,
    )
    assert required_input(output) == [
        {"type": "function_call_output", "call_id": "c1", "name": "f"},
        {"type": "custom_tool_call_output", "call_id": "c2"},
        {"type": "tool_search_output", "call_id": "c4", "execution": "client"},
        {"type": "mcp_approval_response", "approval_request_id": "mcpr_1"},
    ]


@pytest.mark.parametrize(
    ("output", "safe"),
    [([], False), ([SAID], True), ([THOUGHT], False), ([THOUGHT, SAID], True), ([CALL], False), ([CALL, SAID], False)],
)
def test_a_response_may_stop_behind_what_stands_alone(output: list[object], safe: bool) -> None:
    assert may_stop_after(raw(*output)) is safe


# --- events ----------------------------------------------------------------------------------------------------------


def test_events_have_the_shape_of_the_api() -> None:
    stubs = required_input(raw(CALL))
    for event in (
        steer_accepted(queued(1), 4),
        steer_pending(queued(1), stubs, 12),
        steer_failed(steer(), "response_not_found"),
        steer_failed(steer(), "successor_creation_failed", number=3, ident="steer_1"),
        steer_failed(steer(), "invalid_input", message="why"),
    ):
        check_event(json.loads(event), transport="websocket")


def test_a_steer_is_given_back_with_its_input_as_it_came() -> None:
    answer = steer_failed(Steer(previous_response_id="resp_1", input=Raw(b'[ {"a":1} ]')), "steering_not_supported")
    assert b'"input":[ {"a":1} ]' in answer
    assert json.loads(answer) == {
        "type": "response.steer.failed",
        "sequence_number": 0,
        "error": {
            "type": "invalid_request_error",
            "code": "steering_not_supported",
            "message": MESSAGES["steering_not_supported"],
        },
        "steer": {"input": [{"a": 1}], "previous_response_id": "resp_1"},
    }


def test_what_a_provider_writes_into_fields_that_nobody_checks_does_no_harm() -> None:
    odd = raw({"type": "shell_call", "call_id": "s", "execution": 3, "name": [1]}, {"type": "later", "name": {}})
    assert required_input(odd) == [{"type": "shell_call_output", "call_id": "s"}]
    assert not may_stop_after(odd)
