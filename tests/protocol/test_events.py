"""The events we write ourselves: their frames, their order and their numbers."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from segue.protocol.events import (
    FIRST_SEQUENCE_NUMBER,
    Event,
    OutputWriter,
    error_event,
    http_error,
    in_lane,
    response_event,
    response_of,
)
from segue.protocol.lanes import tag
from segue.protocol.problems import Problem
from segue.testing.protocol_checker import check_error, check_event, parse_json
from segue.testing.store_conformance import sample_id

ID = sample_id("turn")
MSG = f"msg_{ID[5:]}0000"
NOT_FOUND = Problem("previous_response_not_found", "Previous response with id 'é' not found.", "previous_response_id")
LIMIT = Problem("websocket_connection_limit_reached", "Too old.")


def frames(events: Sequence[Event]) -> list[dict[str, Any]]:
    """The frames of events, each checked against what else the event says of itself."""
    found = [parse_json(event.data.decode()) for event in events]
    assert [(event.type, event.sequence_number) for event in events] == [
        (frame["type"], frame["sequence_number"]) for frame in found
    ]
    for frame in found:
        check_event(frame, transport="sse")
    return found


def kinds(events: Sequence[Event]) -> list[str]:
    return [event.type.removeprefix("response.") for event in events]


def part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def message(status: str, *content: dict[str, Any]) -> dict[str, Any]:
    return {"id": MSG, "type": "message", "status": status, "role": "assistant", "content": list(content)}


def test_a_message_is_written_frame_by_frame() -> None:
    """Added, its part added, deltas, and everything done again in full."""
    writer = OutputWriter(ID)
    events = [*writer.text("He said "), *writer.text('"é"\n'), *writer.end_item()]
    text = 'He said "é"\n'
    where = {"item_id": MSG, "output_index": 0, "content_index": 0}
    added = {"type": "response.output_item.added", "output_index": 0, "item": message("in_progress")}
    delta = {"type": "response.output_text.delta", **where, "logprobs": []}
    done = {"type": "response.output_item.done", "output_index": 0, "item": message("completed", part(text))}
    expected = [
        added,
        {"type": "response.content_part.added", **where, "part": part("")},
        {**delta, "delta": "He said "},
        {**delta, "delta": '"é"\n'},
        {"type": "response.output_text.done", **where, "text": text, "logprobs": []},
        {"type": "response.content_part.done", **where, "part": part(text)},
        done,
    ]
    numbered = enumerate(expected, FIRST_SEQUENCE_NUMBER)
    assert frames(events) == [{**frame, "sequence_number": number} for number, frame in numbered]


def test_the_tokens_of_a_text_are_told_with_each_piece_and_with_all_of_it() -> None:
    writer = OutputWriter(ID)
    first, second = ({"token": token, "logprob": -0.5, "bytes": [97], "top_logprobs": []} for token in "ab")
    events = frames([*writer.text("a", [first]), *writer.text("b", [second]), *writer.end_item()])
    told = [event["logprobs"] for event in events if "logprobs" in event]
    assert told == [[first], [second], [first, second]]
    (part,) = events[-1]["item"]["content"]
    assert part == {**events[-2]["part"], "text": "ab", "logprobs": [first, second]}


def test_a_call_is_written_frame_by_frame() -> None:
    """Its arguments are text; nobody looks whether they are JSON."""
    writer = OutputWriter(ID, 5)
    events = [*writer.start_call("c1", "look"), *writer.arguments('{"a'), *writer.arguments('":1'), *writer.end_item()]
    ident = f"fc_{ID[5:]}0000"
    item = {"id": ident, "type": "function_call", "status": "in_progress", "call_id": "c1", "name": "look"}
    done = {**item, "status": "completed", "arguments": '{"a":1'}
    where = {"item_id": ident, "output_index": 0}
    kind = "response.function_call_arguments"
    expected = [
        {"type": "response.output_item.added", "output_index": 0, "item": {**item, "arguments": ""}},
        {"type": f"{kind}.delta", **where, "delta": '{"a'},
        {"type": f"{kind}.delta", **where, "delta": '":1'},
        {"type": f"{kind}.done", **where, "name": "look", "arguments": '{"a":1'},
        {"type": "response.output_item.done", "output_index": 0, "item": done},
    ]
    assert frames(events) == [{**frame, "sequence_number": number} for number, frame in enumerate(expected, 5)]


@pytest.mark.parametrize("kind", ["text", "call"])
def test_only_a_finished_item_is_carried_beside_its_frame(kind: str) -> None:
    """It is what the turn folds to, and the same bytes as in the frame."""
    writer = OutputWriter(ID)
    events = [*(writer.text("x") if kind == "text" else writer.start_call("c", "f")), *writer.end_item()]
    *others, done = events
    assert [event.item for event in others] == [b""] * len(others)
    assert done.item in done.data
    assert json.loads(done.item) == json.loads(done.data)["item"]


ONE_MESSAGE = ["output_item.added", "content_part.added", "output_text.delta"]
END_MESSAGE = ["output_text.done", "content_part.done", "output_item.done"]
START_CALL = ["output_item.added"]
END_CALL = ["function_call_arguments.done", "output_item.done"]


@pytest.mark.parametrize(
    ("write", "expected"),
    [
        (lambda writer: writer.text("x"), [*END_CALL, *ONE_MESSAGE]),
        (lambda writer: writer.start_call("c2", "g"), [*END_CALL, *START_CALL]),
        (
            lambda writer: writer.call("c2", "g", "{}"),
            [*END_CALL, *START_CALL, "function_call_arguments.delta", *END_CALL],
        ),
        (lambda writer: writer.end_item(), END_CALL),
    ],
)
def test_what_comes_next_ends_the_open_item(write: Callable[[OutputWriter], list[Event]], expected: list[str]) -> None:
    """At most one item is open."""
    writer = OutputWriter(ID)
    writer.start_call("c1", "f")
    assert kinds(write(writer)) == expected


def test_a_message_is_ended_by_a_call_and_opened_again_after_it() -> None:
    """Text on both sides of a call is two messages."""
    writer = OutputWriter(ID)
    events = [*writer.text("a"), *writer.call("c", "f", ""), *writer.text("b"), *writer.end_item()]
    done = [json.loads(event.item) for event in events if event.item]
    assert [(item["id"], item["type"]) for item in done] == [
        (f"msg_{ID[5:]}0000", "message"),
        (f"fc_{ID[5:]}0001", "function_call"),
        (f"msg_{ID[5:]}0002", "message"),
    ]


def test_ending_twice_writes_nothing() -> None:
    """Whoever finishes need not know whether something is open."""
    writer = OutputWriter(ID)
    writer.text("x")
    writer.end_item()
    assert writer.end_item() == []


@pytest.mark.parametrize("kind", ["text", "call"])
def test_a_cut_item_says_so(kind: str) -> None:
    """And holds what there was of it."""
    writer = OutputWriter(ID)
    _ = writer.text("half") if kind == "text" else [*writer.start_call("c", "f"), *writer.arguments("half")]
    *_, done = writer.end_item("incomplete")
    assert json.loads(done.item)["status"] == "incomplete"
    assert b"half" in done.item


def test_arguments_without_a_call_are_a_mistake_of_the_caller() -> None:
    """There is no item they could belong to."""
    writer = OutputWriter(ID)
    writer.text("x")
    with pytest.raises(AssertionError, match="start_call"):
        writer.arguments("{}")


def test_the_frame_around_a_response_object_leaves_its_bytes_alone() -> None:
    """It is written once per turn and never parsed."""
    event = response_event("response.created", b'{"id":"resp_1", "output":[]}', 7)
    data = b'{"type":"response.created","sequence_number":7,"response":{"id":"resp_1", "output":[]}}'
    assert event == Event("response.created", data, 7)


@pytest.mark.parametrize("problem", [NOT_FOUND, LIMIT])
def test_an_error_over_http_is_an_object_with_all_four_keys(problem: Problem) -> None:
    """Null where there is no param."""
    body = parse_json(http_error(problem, "invalid_request_error").decode())
    error = {"type": "invalid_request_error", "code": problem.code, "message": problem.message, "param": problem.param}
    assert body == {"error": error}
    check_error(body)


@pytest.mark.parametrize("problem", [NOT_FOUND, LIMIT])
def test_an_error_on_a_websocket_nests_the_same_object_beside_its_status(problem: Problem) -> None:
    """Without a number: it belongs to no response."""
    frame = parse_json(error_event(problem, "invalid_request_error", 400).decode())
    assert frame == {**json.loads(http_error(problem, "invalid_request_error")), "status": 400, "type": "error"}
    check_event(frame, transport="websocket")


def test_a_whole_call_is_its_start_one_delta_and_its_end() -> None:
    """And it ends what was open before it."""
    one, other = OutputWriter(ID), OutputWriter(ID)
    parts = [*one.text("x"), *one.end_item(), *one.start_call("c", "look"), *one.arguments("{}"), *one.end_item()]
    assert [*other.text("x"), *other.call("c", "look", "{}")] == parts
    assert json.loads(parts[-1].item) == {
        "id": f"fc_{ID[5:]}0001",
        "type": "function_call",
        "status": "completed",
        "call_id": "c",
        "name": "look",
        "arguments": "{}",
    }


@pytest.mark.parametrize("data", [b'{"type":"x"}', b'{"type":"x"}\n', b'{"type":"x"} \r\n'])
def test_an_event_is_put_into_a_lane_at_its_end(data: bytes) -> None:
    assert in_lane(data, b',"stream_id":"a"}') == b'{"type":"x","stream_id":"a"}'
    assert in_lane(data, b"") is data


def test_the_end_of_an_event_in_a_lane_is_not_read_twice() -> None:
    """What ends as it should is not searched for blanks, which may stand in front of its end."""
    assert in_lane(b'{"a":1 }', b',"stream_id":"a"}') == b'{"a":1 ,"stream_id":"a"}'


def test_an_event_ends_in_an_echo_that_is_not_copied() -> None:
    """In a lane too; the object is the same as if it had been written in one piece."""
    echo = b'{"model":"m"}'
    event = response_event("response.created", b'{"id":"r","output":[],', 7, echo)
    data = b'{"type":"response.created","sequence_number":7,"response":{"id":"r","output":[],"model":"m"}}'
    assert event.whole() == data
    assert event.size_bytes == len(data)
    assert event.whole(tag("a")) == in_lane(data, tag("a"))
    shared = event.pieces()[1]
    assert isinstance(shared, memoryview)
    assert shared.obj is echo
    assert event.echo is echo


def test_an_event_without_an_echo_is_its_data() -> None:
    event = Event("x", b'{"type":"x"}', 1)
    assert event.pieces() == (event.data,)
    assert event.whole() is event.data
    assert event.whole(tag("a")) == in_lane(event.data, tag("a"))


def test_the_response_of_an_event_is_its_bytes() -> None:
    """Also if a member of it has the name of what is around it."""
    start, echo = b'{"id": "r",  "x":1.50,"output":[{"text":",\\"response\\":"}],', b'{"response": 1}'
    response = response_of(response_event("response.created", start, 0, echo))
    assert response == (start, echo)
    assert response.whole() == start + b'"response": 1}'
    assert response.size_bytes == len(response.whole())


def test_reasoning_is_written_frame_by_frame() -> None:
    """In its own words; the message behind it is the next item."""
    writer = OutputWriter(ID)
    events = [*writer.reasoning("I "), *writer.reasoning("see"), *writer.text("Yes"), *writer.end_item()]
    assert kinds(events)[:7] == [
        "output_item.added",
        "content_part.added",
        "reasoning_text.delta",
        "reasoning_text.delta",
        "reasoning_text.done",
        "content_part.done",
        "output_item.done",
    ]
    found = frames(events)
    ident = f"rs_{ID[5:]}0000"
    content = [{"type": "reasoning_text", "text": "I see"}]
    item = {"id": ident, "type": "reasoning", "status": "completed", "summary": [], "content": content}
    assert [frame["delta"] for frame in found[2:4]] == ["I ", "see"]
    assert found[6]["item"] == item
    assert found[7]["output_index"] == 1
