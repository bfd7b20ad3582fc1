"""What was shown is not shown again, and the rest of a response can be made from the whole of it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.client.shown_stream import ShownStream
from segue.client.stream_events import (
    FunctionCallArgumentsDelta,
    OutputItemDone,
    OutputTextDelta,
    ReasoningDelta,
    ResponseEnd,
    UnknownEvent,
    read_event,
    read_response,
)
from segue.protocol.codec import encode
from tests.strategies import examples


def show(shown: ShownStream, *events: dict[str, Any]) -> None:
    for data in events:
        event = read_event(encode(data))
        assert event is not None
        assert not isinstance(event, ResponseEnd)
        shown.note(event)


CREATED = {"type": "response.created", "response": {"id": "r"}, "sequence_number": 0}


def test_progress_goes_from_sent_to_output() -> None:
    shown = ShownStream()
    assert shown.progress == "sent"
    show(shown, CREATED, {"type": "response.in_progress", "sequence_number": 1})
    assert (shown.progress, shown.response_id) == ("started", "r")
    show(shown, {"type": "response.odd", "sequence_number": 2})
    assert (shown.progress, shown.last_number, shown.numbered) == ("output", 2, True)
    shown.note(ReasoningDelta(delta="x"))
    assert not shown.numbered


def test_only_what_comes_again_is_left_out() -> None:
    shown = ShownStream()
    show(shown, CREATED | {"sequence_number": 4})
    again, later = UnknownEvent(type="x", sequence_number=4), UnknownEvent(type="x", sequence_number=5)
    assert shown.is_new(again)
    shown.come_again()
    assert not shown.is_new(again)
    assert shown.is_new(later)
    assert shown.is_new(UnknownEvent(type="x"))


def whole(*items: dict[str, Any]) -> ResponseEnd:
    end = read_response(encode({"id": "r", "object": "response", "status": "completed", "output": items}))
    assert end is not None
    return end


@settings(max_examples=examples(300))
@given(texts=st.lists(st.text(max_size=5), max_size=3), cut=st.integers(0, 5), arguments=st.text(max_size=5))
def test_the_rest_completes_what_was_shown(texts: list[str], cut: int, arguments: str) -> None:
    content = [{"type": "output_text", "text": text} for text in texts]
    message = {"type": "message", "role": "assistant", "content": content}
    call = {"type": "function_call", "call_id": "c", "name": "f", "arguments": arguments}
    shown = ShownStream()
    show(shown, CREATED)
    parts = [OutputTextDelta(delta=text[:cut], output_index=0, content_index=place) for place, text in enumerate(texts)]
    for part in parts:
        shown.note(part)
    rest = shown.rest_of(whole(message, call))
    assert rest is not None
    said = [event for event in (*parts, *rest) if isinstance(event, OutputTextDelta)]
    for place, text in enumerate(texts):
        assert "".join(event.delta for event in said if event.content_index == place) == text
    written = [event.delta for event in rest if isinstance(event, FunctionCallArgumentsDelta)]
    assert "".join(written) == arguments
    done = [msgspec.json.decode(event.item) for event in rest if isinstance(event, OutputItemDone)]
    assert done == [message, call]
    numbers = [event.sequence_number for event in rest]
    assert numbers == list(range(1, len(rest) + 1))


@pytest.mark.parametrize("delta", ["other", "hello and more"])
def test_there_is_no_rest_to_what_is_no_beginning(delta: str) -> None:
    shown = ShownStream()
    shown.note(OutputTextDelta(delta=delta))
    item = {"type": "message", "content": [{"type": "output_text", "text": "hello"}]}
    assert shown.rest_of(whole(item)) is None


def test_finished_items_are_not_made_again_and_keep_their_order() -> None:
    shown = ShownStream()
    items = [{"type": "odd", "n": 0}, {"type": "odd", "n": 1}]
    show(shown, CREATED, {"type": "response.output_item.done", "output_index": 1, "item": items[1]})
    rest = shown.rest_of(whole(*items))
    assert rest is not None
    assert [event.output_index for event in rest if isinstance(event, OutputItemDone)] == [0]
    for event in rest:
        shown.note(event)
    assert shown.items == tuple(map(encode, items))
