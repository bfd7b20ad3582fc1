"""The checker of Messages streams: what it lets pass, and what it finds."""

from __future__ import annotations

import json
from typing import Any

import pytest

from segue.testing.messages_checker import MessagesViolation, check_messages_sse

Json = dict[str, Any]

USAGE = {"input_tokens": 1, "output_tokens": 0}
EMPTY: Json = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "m",
    "content": [],
    "stop_reason": None,
    "stop_sequence": None,
    "usage": USAGE,
}


def start(**fields: object) -> Json:
    return {"type": "message_start", "message": {**EMPTY, **fields}}


def block(index: int, kind: str, **fields: object) -> Json:
    return {"type": "content_block_start", "index": index, "content_block": {"type": kind, **fields}}


def delta(index: int, kind: str, **fields: object) -> Json:
    return {"type": "content_block_delta", "index": index, "delta": {"type": kind, **fields}}


def end(index: int) -> Json:
    return {"type": "content_block_stop", "index": index}


def said(reason: str = "end_turn", usage: Json | None = None) -> Json:
    usage = {"output_tokens": 3} if usage is None else usage
    return {"type": "message_delta", "delta": {"stop_reason": reason, "stop_sequence": None}, "usage": usage}


STOP: Json = {"type": "message_stop"}
PING: Json = {"type": "ping"}
ERROR: Json = {"type": "error", "error": {"type": "api_error", "message": "No."}}
TEXT = (block(0, "text", text=""), delta(0, "text_delta", text="Hi"), end(0))
CALL = block(0, "tool_use", id="c", name="f", input={})
PARTIAL = (CALL, delta(0, "input_json_delta", partial_json='{"a":'), end(0))


def stream(*events: Json) -> bytes:
    return "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events).encode()


def test_a_sound_stream_adds_up_to_its_message() -> None:
    call = (block(1, "tool_use", id="c", name="f", input={}), delta(1, "input_json_delta", partial_json='{"a":1}'))
    unknown = (block(2, "server_tool_use", x=""), delta(2, "x_delta", x="y"), end(2))
    message = check_messages_sse(stream(start(), PING, *TEXT, *call, end(1), *unknown, said("tool_use"), STOP))
    assert message["stop_reason"] == "tool_use"
    assert message["usage"] == {"input_tokens": 1, "output_tokens": 3}
    assert message["content"][:2] == [
        {"type": "text", "text": "Hi"},
        {"type": "tool_use", "id": "c", "name": "f", "input": {"a": 1}},
    ]


def test_a_call_may_be_cut_off_if_the_message_says_so() -> None:
    assert check_messages_sse(stream(start(), *PARTIAL, said("max_tokens"), STOP))["stop_reason"] == "max_tokens"


@pytest.mark.parametrize(
    "events",
    [
        [STOP],
        [start(), said()],
        [start(), start(), said(), STOP],
        [start(), STOP],
        [start(), said(), said(), STOP],
        [start(), said(), STOP, PING],
        [start(id="resp_1"), said(), STOP],
        [start(role="user"), said(), STOP],
        [start(content=[{"type": "text"}]), said(), STOP],
        [start(usage={"input_tokens": 1}), said(), STOP],
        [start(usage={**USAGE, "input_tokens": -1}), said(), STOP],
        [{"type": "message_start", "message": {"id": "msg_1"}}, said(), STOP],
        [start(), block(1, "text", text=""), end(1), said(), STOP],
        [start(), block(0, "text"), end(0), said(), STOP],
        [start(), block(0, "text", text=""), block(1, "text", text=""), end(1), end(0), said(), STOP],
        [start(), block(0, "text", text=""), said(), STOP],
        [start(), end(0), said(), STOP],
        [start(), *TEXT, delta(0, "text_delta", text="x"), said(), STOP],
        [start(), CALL, delta(1, "input_json_delta", partial_json="{}"), end(0), said("tool_use"), STOP],
        [start(), CALL, delta(0, "text_delta", text="x"), end(0), said("tool_use"), STOP],
        [start(), *PARTIAL, said("tool_use"), STOP],
        [start(), said(), *TEXT, STOP],
        [start(), said("tool_use"), STOP],
        [start(), said("bored"), STOP],
        [start(), said(usage={}), STOP],
        [start(), {"type": "response.created"}, said(), STOP],
        [start(), ERROR],
    ],
)
def test_a_breach_is_found(events: list[Json]) -> None:
    with pytest.raises(MessagesViolation):
        check_messages_sse(stream(*events))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"data: {}\n\n",
        b"event: ping\ndata: {}\n\n",
        stream(start(), said(), STOP).removesuffix(b"\n"),
    ],
)
def test_what_is_no_stream_of_events_is_found(body: bytes) -> None:
    with pytest.raises(MessagesViolation):
        check_messages_sse(body)
