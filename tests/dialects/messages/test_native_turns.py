"""Turns of a thread in the API's own words."""

from __future__ import annotations

import json

from segue.dialects.messages.message_fold import MessageFold
from segue.dialects.messages.native_turns import native_messages, native_turn
from segue.history.chains import NativeTurn, Turn
from segue.protocol.object_text import ObjectText
from segue.protocol.requests import NativeBody
from segue.testing.store_conformance import sample_id

BODY = ObjectText(b"{}", {})
START = b'{"type":"message_start","message":{"id":"msg_1"}}'
BLOCK = b'{"type":"content_block_start","index":0,"content_block":{"type":"server_tool_use","id":"s","input":{}}}'
INPUT = b'{"type":"content_block_delta","index":0,"delta":{"type":"input_json_delta","partial_json":"{\\"a\\": 1.0}"}}'


def fold(*events: bytes) -> MessageFold:
    folded = MessageFold()
    for event in events:
        folded.feed(event)
    return folded


def native(messages: bytes) -> NativeBody:
    return NativeBody(dialect="messages", body=BODY, messages=messages)


def turn(kept: NativeTurn | None) -> Turn:
    return Turn(id=sample_id("t"), parent=None, input=(), output=(), calls=frozenset(), stored=False, native=kept)


def test_a_turn_is_its_new_messages_and_the_reply_as_it_came() -> None:
    kept = native_turn(native(b'{"role":"user", "content":"hi"}'), fold(START, BLOCK, INPUT))
    asked, reply = json.loads(b"[%b]" % kept.messages)
    assert asked == {"role": "user", "content": "hi"}
    assert reply["content"] == [{"type": "server_tool_use", "id": "s", "input": {"a": 1.0}}]
    assert b'{"a": 1.0}' in kept.messages


def test_marks_of_the_cache_are_for_one_request() -> None:
    """Else a thread has more of them than a request may have. All other bytes stay."""
    mark = b'"cache_control" : {"type":"ephemeral"}'
    given = b'{"role":"user","content":[{%b, "type":"text","text":"a\\u00e9", "n":1.0},{"type":"tool_result","content":'
    given = (
        given % mark
        + b'[{"type":"text","text":"\\"cache_control\\"",%b}],%b}, 7]},{"role":"user","content":"c"},8'
        % (*(mark, mark),)
    )
    kept = b'{"role":"user","content":[{"type":"text","text":"a\\u00e9", "n":1.0},{"type":"tool_result","content":'
    kept += b'[{"type":"text","text":"\\"cache_control\\""}]},7]},{"role":"user","content":"c"},8'
    assert native_turn(native(given), fold()).messages == kept


def test_a_turn_may_have_no_messages_or_no_reply() -> None:
    assert native_turn(native(b""), fold(START)).messages == b""
    assert native_turn(native(b"{}"), fold()).messages == b"{}"
    assert native_turn(native(b""), fold(BLOCK)).messages.startswith(b'{"role":"assistant"')


def test_the_whole_list_is_joined_as_it_was_written() -> None:
    turns = [turn(NativeTurn("messages", part)) for part in (b'{"a" :1},{"b":2}', b"", b'{"c":3}')]
    whole = native_messages(turns, native(b'{"d":4}'))
    assert whole is not None
    assert b"".join(whole) == b'[{"a" :1},{"b":2},{"c":3},{"d":4}]'
    assert native_messages(turns[1:2], native(b"")) == (b"[]",)
    assert b"".join(native_messages(turns[1:2], native(b'{"d":4}')) or ()) == b'[{"d":4}]'


def test_a_turn_of_another_api_cannot_be_repeated_as_it_was_said() -> None:
    for other in (None, NativeTurn("chat", b"{}")):
        assert native_messages([turn(NativeTurn("messages", b"{}")), turn(other)], native(b"{}")) is None
