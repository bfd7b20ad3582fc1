"""What a response holds can be asked of it, and what a server got wrong is not there."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings

from segue.client.function_calls import FunctionCall
from segue.client.stream_events import (
    WHOLE_RESPONSE,
    ClientEvent,
    ClientResponse,
    FunctionCallArgumentsDelta,
    OutputItemAdded,
    OutputItemDone,
    OutputTextDelta,
    ReasoningDelta,
    ResponseCreated,
    ResponseEnd,
    UnknownEvent,
    read_event,
    read_response,
)
from tests.strategies import examples, hostile_bytes


def response(*items: object) -> ClientResponse:
    return ClientResponse(
        id="r", status="completed", output=tuple(json.dumps(one).encode() for one in items), raw=b"{}"
    )


def test_the_text_and_the_calls_of_a_response() -> None:
    parts = [{"type": "output_text", "text": "a"}, {"type": "refusal", "refusal": "no"}]
    message = {"type": "message", "role": "assistant", "content": [*parts, {"type": "output_text", "text": "b"}]}
    call = {"type": "function_call", "call_id": "c1", "name": "look", "arguments": "{}"}
    made = response(message, call, {"type": "reasoning", "summary": []})
    assert made.output_text == "ab"
    assert made.function_calls == (FunctionCall("c1", "look", "{}"),)
    assert made.unreadable_calls == ()


def test_items_of_another_form_say_nothing() -> None:
    told = {"type": "other", "text": '"function_call" "message"', "content": "message"}
    made = response({"type": "message", "content": "plain"}, {"type": "message", "content": [1]}, told)
    assert made.output_text == ""
    calls = response({"type": "function_call", "call_id": 1}, {"type": "x", "name": "function_call"})
    assert calls.function_calls == ()
    assert calls.unreadable_calls == calls.output[:1]


@pytest.mark.parametrize(
    ("usage", "counts"),
    [
        ({"input_tokens": 3, "output_tokens": 2, "input_tokens_details": {"cached_tokens": 1}}, (3, 1, 2)),
        (None, (0, 0, 0)),
        ({"input_tokens": "many", "output_tokens": -5, "input_tokens_details": []}, (0, 0, 0)),
        ({"input_tokens": None, "output_tokens": 0.5, "input_tokens_details": {"cached_tokens": {}}}, (0, 0, 0)),
        ({"input_tokens": 10**400}, (2**53, 0, 0)),
    ],
)
def test_the_tokens_that_a_server_counts(usage: dict[str, Any] | None, counts: tuple[int, int, int]) -> None:
    assert ClientResponse(id="r", status="completed", output=(), raw=b"{}", usage=usage).tokens == counts


ITEM = b'{"type":"message","content":[]}'
EVENTS: list[tuple[dict[str, Any], ClientEvent]] = [
    ({"type": "response.created", "response": {"id": "r"}}, ResponseCreated(response_id="r")),
    ({"type": "response.created", "response": {}}, UnknownEvent(type="response.created")),
    (
        {"type": "response.output_text.delta", "delta": "a", "output_index": 1, "content_index": 2, "item_id": "m"},
        OutputTextDelta(delta="a", output_index=1, content_index=2, item_id="m"),
    ),
    ({"type": "response.output_text.delta", "delta": 1}, UnknownEvent(type="response.output_text.delta")),
    (
        {"type": "response.function_call_arguments.delta", "delta": "{", "output_index": 1},
        FunctionCallArgumentsDelta(delta="{", output_index=1),
    ),
    ({"type": "response.reasoning_text.delta", "delta": "hm"}, ReasoningDelta(delta="hm")),
    ({"type": "response.reasoning_summary_text.delta", "delta": "hm"}, ReasoningDelta(delta="hm")),
    ({"type": "response.reasoning_text.delta"}, UnknownEvent(type="response.reasoning_text.delta")),
    (
        {"type": "response.output_item.added", "output_index": 0, "item": json.loads(ITEM)},
        OutputItemAdded(output_index=0, item=ITEM),
    ),
    (
        {"type": "response.output_item.done", "output_index": 0, "item": json.loads(ITEM)},
        OutputItemDone(output_index=0, item=ITEM),
    ),
    ({"type": "response.output_item.done", "output_index": 0}, UnknownEvent(type="response.output_item.done")),
    ({"type": "response.steer.accepted", "steer": {}}, UnknownEvent(type="response.steer.accepted")),
]


@pytest.mark.parametrize(("sent", "wanted"), EVENTS)
def test_events_are_typed_and_keep_their_bytes(sent: dict[str, Any], wanted: ClientEvent) -> None:
    data = json.dumps(sent | {"sequence_number": 7}, separators=(",", ":")).encode()
    event = read_event(data)
    assert event is not None
    assert (event.raw, event.sequence_number) == (data, 7)
    assert type(event) is type(wanted)
    for name in set(wanted.__struct_fields__) - {"raw", "sequence_number"}:
        assert getattr(event, name) == getattr(wanted, name)


@pytest.mark.parametrize(
    ("kind", "status", "read"),
    [
        ("completed", "completed", "completed"),
        ("completed", None, "completed"),
        ("completed", "incomplete", "incomplete"),
        ("completed", "failed", "failed"),
        ("incomplete", "completed", "incomplete"),
        ("failed", "completed", "failed"),
    ],
)
def test_of_two_statuses_the_worse_is_believed(kind: str, status: str | None, read: str) -> None:
    end = read_event(json.dumps({"type": f"response.{kind}", "response": {"id": "r", "status": status}}).encode())
    assert isinstance(end, ResponseEnd)
    assert end.status == read


def test_a_response_object_in_place_of_a_stream() -> None:
    document = b'{"object": "response", "id": "r", "status": "in_progress", "output": null}'
    for end in (read_event(document), read_response(document)):
        assert isinstance(end, ResponseEnd)
        assert (end.type, end.document, end.response_id, end.status) == (WHOLE_RESPONSE, document, "r", "in_progress")
    assert read_event(b'{"object":"list"}') is None
    assert read_response(b'{"type":"response.completed","response":{"id":"r"}}') is None
    assert read_response(b'{"object":"response"}') is None
    assert read_event(b'{"type":"response.completed"}') is None


def test_an_answer_is_not_lost_for_odd_members() -> None:
    odd = {"usage": [], "error": "none", "incomplete_details": 1, "store": "no", "status": 3}
    told = {"type": "response.completed", "sequence_number": "9", "response": {"id": "r", "output": [{}]} | odd}
    end = read_event(json.dumps(told).encode())
    assert isinstance(end, ResponseEnd)
    assert (end.status, end.sequence_number, end.output) == ("completed", None, (b"{}",))
    assert (end.usage, end.incomplete_reason, end.error_code, end.stored) == (None, None, None, None)
    whole = read_event(b'{"object":"response","id":"r"}')
    assert isinstance(whole, ResponseEnd)
    assert whole.status == "in_progress"


@settings(max_examples=examples(1000))
@given(data=hostile_bytes)
def test_nothing_that_a_server_sends_raises(data: bytes) -> None:
    event = read_event(data)
    assert event is None or event.raw == data
    read_response(data)
