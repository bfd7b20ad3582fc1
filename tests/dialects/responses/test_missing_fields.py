"""What lax Responses servers leave out is filled in; what others send is not touched."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from segue.dialects.responses.missing_fields import MissingFieldFiller
from segue.dialects.responses.stream import ResponsesDecoder
from segue.http.sse import SseEvent
from segue.protocol.events import Ended, Event


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
    decoder = ResponsesDecoder("test")
    output = [one for given in LAX for one in decoder.feed(given)]
    *events, ended = output
    assert isinstance(ended, Ended)
    assert ended.status == "completed"
    told = [msgspec.json.decode(one.data) for one in events if isinstance(one, Event)]
    assert [one["output_index"] for one in told] == [0, 0, 0, 0, 0, 0, 1, 1, 1]
    assert [one.get("content_index") for one in told] == [None, 0, 0, 0, 0, None, None, None, None]
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


@pytest.mark.parametrize("kind", ["response.new_thing", "keepalive", "response.completed"])
def test_other_events_are_left_alone(kind: str) -> None:
    """To the byte."""
    data = b'{ "type" : "x" }'
    assert MissingFieldFiller().fill(kind, data) is data


def test_an_event_of_no_known_item_belongs_to_the_last() -> None:
    gaps = MissingFieldFiller()
    gaps.fill("response.output_item.added", b'{"item":{"id":"a"}}')
    filled = msgspec.json.decode(gaps.fill("response.output_text.delta", b'{"item_id":"b","delta":"x"}'))
    assert filled["output_index"] == 0


@pytest.mark.parametrize("data", [b'{"item":1}', b'{"item":null}', b'{"part":1}', b'{"item":{"content":[1]}}'])
def test_what_has_another_shape_is_passed_on(data: bytes) -> None:
    """The decoder judges it."""
    assert msgspec.json.decode(MissingFieldFiller().fill("response.output_item.added", data))["output_index"] == 0
