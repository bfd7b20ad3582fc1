"""What lax Responses servers leave out is filled in; what others send is not touched."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from segue.dialects.responses.missing_fields import fill
from segue.dialects.responses.stream import ResponsesDecoder
from segue.http.sse import SseEvent
from segue.protocol.events import Ended, Event
from tests.dialects.conversations import RESPONSE_ID


def event(kind: str, **fields: object) -> SseEvent:
    return SseEvent(kind, msgspec.json.encode({"type": f"response.{kind}", **fields}))


def message(ident: str, *texts: str) -> dict[str, Any]:
    content = [{"type": "output_text", "text": text} for text in texts]
    return {"type": "message", "id": ident, "role": "assistant", "status": "completed", "content": content}


def call(arguments: str) -> dict[str, Any]:
    return {"type": "function_call", "id": "fc_b", "call_id": "c", "name": "f", "arguments": arguments}


#: As llama.cpp's server sends a message and a call.
LAX = [
    event("created", response={}),
    event("output_item.added", item=message("msg_a")),
    event("content_part.added", item_id="msg_a", part={"type": "output_text", "text": ""}),
    event("output_text.delta", item_id="msg_a", delta="Hi"),
    event("output_text.done", item_id="msg_a", text="Hi"),
    event("content_part.done", item_id="msg_a", part={"type": "output_text", "text": "Hi"}),
    event("output_item.done", item=message("msg_a", "Hi")),
    event("output_item.added", item=call("")),
    event("function_call_arguments.delta", item_id="fc_b", delta="{}"),
    event("output_item.done", item=call("{}")),
    event("completed", response={"usage": {"input_tokens": 1, "output_tokens": 2}}),
]


def test_each_event_says_where_it_belongs() -> None:
    decoder = ResponsesDecoder(RESPONSE_ID, "test")
    output = [one for given in LAX for one in decoder.feed(given)]
    *events, ended = output
    assert isinstance(ended, Ended)
    assert ended.status == "completed"
    told = [msgspec.json.decode(one.data) for one in events if isinstance(one, Event)]
    assert [one["output_index"] for one in told] == [0, 0, 0, 0, 0, 0, 1, 1, 1, 1]
    assert [one.get("content_index") for one in told] == [None, 0, 0, 0, 0, None, None, None, None, None]
    assert told[8]["type"] == "response.function_call_arguments.done", "which the server left out"
    assert told[2] == {
        "type": "response.output_text.delta",
        "item_id": "msg_a",
        "delta": "Hi",
        "output_index": 0,
        "content_index": 0,
        "logprobs": [],
    }
    whole = {"type": "output_text", "text": "Hi", "annotations": [], "logprobs": []}
    assert told[4]["part"] == whole
    assert told[5]["item"]["content"] == [whole]
    item = next(one.item for one in events if isinstance(one, Event) and one.type == "response.output_item.done")
    assert msgspec.json.decode(item) == told[5]["item"]


def test_an_event_that_has_all_its_fields_keeps_them() -> None:
    given = {"output_index": 1, "content_index": 2, "logprobs": [1], "delta": "x"}
    filled = msgspec.json.decode(fill("response.output_text.delta", dict(given), 0))
    assert filled == {**given, "output_index": 0}


def test_an_event_of_another_type_gets_an_index_only() -> None:
    assert msgspec.json.decode(fill("response.new_thing", {"a": 1}, 3)) == {"a": 1, "output_index": 3}


@pytest.mark.parametrize("given", [{"item": 1}, {"item": None}, {"part": 1}, {"item": {"content": [1]}}])
def test_what_has_another_shape_is_passed_on(given: dict[str, Any]) -> None:
    """The decoder judges it."""
    assert msgspec.json.decode(fill("response.output_item.added", dict(given), 0)) == {**given, "output_index": 0}
