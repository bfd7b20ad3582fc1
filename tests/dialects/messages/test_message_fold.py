"""What a stream of Messages adds up to."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from segue.dialects.messages.message_fold import MessageFold
from tests.strategies import examples

Json = dict[str, Any]


def fold(*events: Json | bytes) -> MessageFold:
    folded = MessageFold()
    for event in events:
        folded.feed(event if isinstance(event, bytes) else json.dumps(event).encode())
    return folded


def block(index: int, **fields: object) -> Json:
    return {"type": "content_block_start", "index": index, "content_block": fields}


def delta(index: int, **fields: object) -> Json:
    return {"type": "content_block_delta", "index": index, "delta": fields}


START: Json = {"type": "message_start", "message": {"id": "msg_1", "model": "m", "usage": {"input_tokens": 3, "x": 1}}}


def test_every_field_and_block_stays() -> None:
    """What is not known here too."""
    end = {
        "type": "message_delta",
        "delta": {"stop_reason": "end_turn", "container": {"id": "c"}},
        "usage": {"output_tokens": 5, "x": None},
        "context_management": {"applied_edits": []},
    }
    folded = fold(
        START,
        {"type": "ping"},
        block(0, type="thinking", thinking="", signature=""),
        delta(0, type="thinking_delta", thinking="Hm"),
        delta(0, type="thinking_delta", thinking="m."),
        delta(0, type="signature_delta", signature="sig"),
        block(1, type="server_tool_use", id="s", name="web_search", input={}),
        delta(1, type="input_json_delta", partial_json='{"q": 1'),
        delta(1, type="input_json_delta", partial_json=".0}"),
        block(2, type="web_search_tool_result", content=[{"url": "u"}]),
        block(3, type="text", text="A", citations=None),
        delta(3, type="text_delta", text="B"),
        delta(3, type="citations_delta", citation={"n": 1}),
        delta(3, type="citations_delta", citation={"n": 2}),
        block(4, type="new", deep={}),
        delta(4, type="new_delta", word="x", deep={"y": 1}),
        end,
    )
    message = json.loads(folded.message())
    assert message["content"] == [
        {"type": "thinking", "thinking": "Hmm.", "signature": "sig"},
        {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"q": 1.0}},
        {"type": "web_search_tool_result", "content": [{"url": "u"}]},
        {"type": "text", "text": "AB", "citations": [{"n": 1}, {"n": 2}]},
        {"type": "new", "word": "x", "deep": {"y": 1}},
    ]
    assert message["usage"] == {"input_tokens": 3, "x": 1, "output_tokens": 5}
    assert (message["stop_reason"], message["container"]) == ("end_turn", {"id": "c"})
    assert message["context_management"] == {"applied_edits": []}
    assert (folded.fields["id"], folded.stopped) == ("msg_1", False)
    folded.feed(b'{"type":"message_stop"}')
    assert folded.stopped
    assert b'{"q": 1.0}' in folded.message(), "the input stays as the model wrote it"


def test_what_a_call_says_that_was_cut_off_stays() -> None:
    folded = fold(START, block(0, type="tool_use", input={}), delta(0, type="input_json_delta", partial_json='{"a'))
    assert folded.content() == [{"type": "tool_use", "input": {"arguments": '{"a'}}]
    assert fold(block(0, type="tool_use", input={"a": 1})).content() == [{"type": "tool_use", "input": {"a": 1}}]


def test_an_event_belongs_to_the_last_block_if_it_does_not_say_which() -> None:
    """As some servers that imitate this API write it."""
    bare = {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "x"}}
    assert fold(block(0, type="text", text=""), bare).content() == [{"type": "text", "text": "x"}]


@given(
    st.lists(st.binary(max_size=30) | st.recursive(st.text(max_size=5), st.lists).map(lambda v: json.dumps(v).encode()))
)
@settings(max_examples=examples(50))
def test_nothing_that_a_provider_sends_raises(events: list[bytes]) -> None:
    folded = fold(*events, {"type": "message_start", "message": 1}, delta(9, type=[1]), block(0), delta(0, x=[1]))
    assert json.loads(folded.message())["content"] == [{"x": [1]}]


def test_citations_are_added_to_what_is_no_list() -> None:
    odd = block(0, type="text", text="x", citations=7)
    folded = fold(START, odd, *(delta(0, type="citations_delta", citation={"n": n}) for n in range(2)))
    assert folded.content() == [{"type": "text", "text": "x", "citations": [{"n": 0}, {"n": 1}]}]
