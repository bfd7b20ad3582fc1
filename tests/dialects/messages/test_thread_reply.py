"""What the stream of a reply tells about whether its upstream can go on from it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from segue.dialects.messages.stream import MessagesDecoder
from segue.dialects.messages.thread_reply import ThreadReplyDecoder, content_digest, digest_of_blocks, digest_of_message
from segue.http.sse import SseEvent
from segue.protocol.events import Ended
from segue.protocol.responses import Failure
from tests.dialects.conversations import RESPONSE_ID

Json = dict[str, Any]

MESSAGE: Json = {"id": "msg_1", "usage": {"input_tokens": 60, "cache_read_input_tokens": 40}}
TEXT: Json = {"type": "text", "text": "r"}


def event(kind: str, **fields: Any) -> SseEvent:  # noqa: ANN401 - any field
    return SseEvent(kind, json.dumps({"type": kind, **fields}).encode())


def stream(message: Json, *blocks: Json, stop: str = "end_turn", **usage: object) -> list[SseEvent]:
    events = [event("ping"), event("message_start", message=message)]
    for index, block in enumerate(blocks):
        events += [
            event("content_block_start", index=index, content_block=block),
            event("content_block_stop", index=index),
        ]
    events.append(event("message_delta", delta={"stop_reason": stop}, usage={"output_tokens": 1, **usage}))
    return [*events, event("message_stop")]


def read(events: list[SseEvent], least: int | None = None) -> tuple[ThreadReplyDecoder, list[Any]]:
    decoder = ThreadReplyDecoder(MessagesDecoder(RESPONSE_ID, "p"), least)
    output: list[Any] = []
    for one in events:
        output += decoder.feed(one)
    return decoder, output


def test_a_whole_reply_can_be_gone_on_from() -> None:
    decoder, output = read(stream(MESSAGE, TEXT), 100)
    reply = decoder.kept_reply()
    assert reply is not None
    digest = content_digest([TEXT])
    assert digest is not None
    assert (reply.name, reply.content, reply.prompt_tokens, reply.thoughts) == ("msg_1", digest.digest, 100, False)
    assert isinstance(output[-1], Ended)
    assert (decoder.ended, decoder.awaited) == (True, "end")
    assert decoder.feed(event("ping")) == []


@pytest.mark.parametrize("block", [{"type": "redacted_thinking", "data": "x"}, {"type": "thinking", "thinking": "x"}])
def test_thoughts_in_it_are_seen(block: Json) -> None:
    reply = read(stream(MESSAGE, block, TEXT))[0].kept_reply()
    assert reply is not None
    assert reply.thoughts


@pytest.mark.parametrize(
    "events",
    [
        stream(MESSAGE, TEXT)[:-1],
        stream(MESSAGE, TEXT, stop="refusal"),
        stream(MESSAGE, TEXT, stop="model_context_window_exceeded"),
        stream(MESSAGE, TEXT, iterations=[{"type": "message"}, {"type": "fallback_message"}]),
        stream({**MESSAGE, "id": "chatcmpl-1"}, TEXT),
        stream({**MESSAGE, "id": "msg_" + "x" * 200}, TEXT),
        stream({**MESSAGE, "id": 7}, TEXT),
        stream({**MESSAGE, "usage": None}, TEXT),
        stream({**MESSAGE, "usage": {"input_tokens": 0}}, TEXT),
        stream(MESSAGE),
        stream(MESSAGE, {"type": "server_tool_use", "id": "s", "name": "n", "input": {}}),
        stream(MESSAGE, {"type": "tool_use", "id": "t", "name": "n", "input": {"a": 1}}, stop="max_tokens"),
    ],
)
def test_any_other_cannot(events: list[SseEvent]) -> None:
    assert read(events)[0].kept_reply() is None


@pytest.mark.parametrize(("least", "forgotten"), [(None, False), (100, False), (101, True)])
def test_an_answer_to_less_than_the_history_is_none(least: int | None, forgotten: bool) -> None:
    """Nobody sees a word of it."""
    decoder, output = read(stream(MESSAGE, TEXT), least)
    assert decoder.forgotten == forgotten
    if forgotten:
        (ended,) = output
        assert ended.error.code == "upstream_protocol_error"


@pytest.mark.parametrize("first", [{}, {"message": {"id": "msg_1"}}])
def test_an_answer_that_does_not_say_what_it_read_is_none_either(first: Json) -> None:
    events = stream(MESSAGE, TEXT)
    events[1] = event("message_start", **first)
    assert read(events, 1)[0].forgotten
    assert not read(events)[0].forgotten


def test_errors_and_ends_are_those_of_the_stream() -> None:
    told = {"type": "not_found_error", "message": "gone", "details": {"error_code": "thread_not_found"}}
    decoder, output = read([event("message_start", message=MESSAGE), event("error", error=told)], 1)
    assert (decoder.error_code, decoder.forgotten, output[0].status) == ("thread_not_found", False, "failed")
    for ended in (read([])[0].fail(Failure("x", "y")), read([])[0].end(truncated=True)):
        assert isinstance(ended[0], Ended)
        assert ended[0].status == "failed"


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (TEXT, {**TEXT, "citations": None}, True),
        (TEXT, {**TEXT, "citations": []}, True),
        (TEXT, {**TEXT, "text": "s"}, False),
        (
            {"type": "tool_use", "id": "t", "name": "n", "input": {"a": 1, "b": 2.0}},
            {"type": "tool_use", "id": "t", "name": "n", "input": {"b": 2.0, "a": 1}, "caller": {"type": "direct"}},
            True,
        ),
        ({"type": "redacted_thinking", "data": "x"}, {"type": "redacted_thinking", "data": "y"}, False),
        (
            {"type": "thinking", "thinking": "x", "signature": "y"},
            {"type": "thinking", "thinking": "xy", "signature": ""},
            False,
        ),
    ],
)
def test_blocks_are_compared_by_what_they_say(one: Json, other: Json, same: bool) -> None:
    first, second = content_digest([one]), digest_of_blocks([json.dumps(other).encode()])
    assert first is not None
    assert second is not None
    assert (first.digest == second.digest) == same


@pytest.mark.parametrize("block", [{**TEXT, "citations": [1]}, {**TEXT, "new": 1}, {"type": "new"}, {}])
def test_what_is_not_understood_is_like_nothing(block: Json) -> None:
    assert content_digest([TEXT, block]) is None


def test_what_cannot_be_read_is_like_nothing() -> None:
    assert digest_of_blocks([b"{"]) is None
    for message in (b"{", b'{"role":"user","content":[]}', b'{"role":"assistant","content":"r"}', b"{},{}"):
        assert digest_of_message(message) is None
    written = json.dumps({"role": "assistant", "content": [TEXT]}).encode()
    assert digest_of_message(written) == content_digest([TEXT])
