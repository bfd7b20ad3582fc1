"""Chunks of a provider of Chat Completions on their way to a client of that API."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.dialects.chat.completion import completion_id
from segue.dialects.chat.door_reply import DONE
from segue.dialects.interface import Output
from segue.dialects.source_events import SourceDecoder
from segue.http.sse import SseEvent
from segue.protocol.events import Ended
from segue.testing.chat_checker import check_completion
from tests.dialects.chat.doors import asked, chunk, delta, end_of, streamed, turn, whole, writer
from tests.dialects.conversations import RESPONSE_ID, run
from tests.dialects.golden import CHECKED, GOLDEN, decoder, dialect_of, read
from tests.strategies import examples

Json = dict[str, Any]
STREAM, WHOLE = asked(native=True, stream=True), asked(native=True)
COUNTED = asked(native=True, stream=True, stream_options={"include_usage": True})
DONE_EVENT = b"[DONE]"
USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10, "queue_time": 0.5}
CHAT_STREAMS = [name for name in CHECKED if dialect_of(name) == "chat"]


def output(*data: bytes) -> Output:
    return run(SourceDecoder(decoder("chat")), [SseEvent("", one) for one in data])


def sent(body: bytes) -> list[Json]:
    """The chunks of a stream that ends as it should."""
    assert body.endswith(DONE)
    return [json.loads(block.removeprefix(b"data: ")) for block in body.removesuffix(DONE).split(b"\n\n") if block]


def completion(*data: bytes) -> Json:
    events, finished = turn(output(*data))
    reply = writer(WHOLE)
    assert reply.feed(events) == b""
    return whole(reply, finished)


SIGNED = {"google": {"thought_signature": "c2ln"}}
CALL = {
    "index": 0,
    "id": "a",
    "type": "function",
    "extra_content": SIGNED,
    "function": {"name": "look", "arguments": ""},
}
ANSWER = (
    chunk(delta(role="assistant", content="", mood="good"), system_fingerprint="fp"),
    chunk(delta(reasoning="hm")),
    chunk(delta(tool_calls=[CALL])),
    chunk(delta(tool_calls=[{"index": 0, "function": {"arguments": '{"at":1}'}}])),
    chunk(delta("tool_calls"), timings={"ms": 3}),
    chunk(usage=USAGE),
    DONE_EVENT,
)


def test_chunks_pass_with_all_their_fields_under_our_id_and_model() -> None:
    wanted = [
        {**json.loads(data), "id": completion_id(RESPONSE_ID), "model": "m"} for data in ANSWER if data != DONE_EVENT
    ]
    assert sent(streamed(COUNTED, output(*ANSWER))) == wanted


def test_the_usage_that_the_client_did_not_ask_for_is_ours_alone() -> None:
    chunks = sent(streamed(STREAM, output(*ANSWER)))
    assert len(chunks) == len(ANSWER) - 2
    assert all("usage" not in one for one in chunks)


def test_a_usage_beside_the_answer_was_not_our_wish() -> None:
    """Mistral tells it unasked."""
    told = (chunk(delta(content="x"), usage=None), chunk(delta("stop"), usage=USAGE), DONE_EVENT)
    chunks = sent(streamed(STREAM, output(*told)))
    assert ["usage" in one for one in chunks] == [False, True]


def test_a_completion_that_is_not_streamed_has_the_same_fields() -> None:
    read = completion(*ANSWER)
    check_completion(read)
    assert read == {
        "id": completion_id(RESPONSE_ID),
        "object": "chat.completion",
        "created": 7,
        "model": "m",
        "choices": [
            {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": None,
                    "refusal": None,
                    "annotations": [],
                    "mood": "good",
                    "reasoning": "hm",
                    "tool_calls": [
                        {
                            "id": "a",
                            "type": "function",
                            "function": {"name": "look", "arguments": '{"at":1}'},
                            "extra_content": SIGNED,
                        }
                    ],
                },
                "logprobs": None,
                "finish_reason": "tool_calls",
            }
        ],
        "system_fingerprint": "fp",
        "timings": {"ms": 3},
        "usage": USAGE,
    }


def test_lists_and_objects_of_a_vendor_grow_by_pieces() -> None:
    pieces = (
        delta(content="x", reasoning_details=[{"index": 0, "type": "reasoning.text", "text": "h"}], more={"a": "1"}),
        delta(reasoning_details=[{"index": 0, "type": "reasoning.text", "text": "m"}], more={"a": "2", "b": 1}),
        delta(reasoning_details=[{"index": 1, "text": "so"}, "bare"], more=None, count=1),
        delta("stop", count=2),
    )
    message = completion(*map(chunk, pieces), DONE_EVENT)["choices"][0]["message"]
    assert message["reasoning_details"] == [
        {"index": 0, "type": "reasoning.text", "text": "hm"},
        {"index": 1, "text": "so"},
        "bare",
    ]
    assert message["more"] == {"a": "12", "b": 1}
    assert message["count"] == 2


def test_calls_that_were_read_otherwise_than_they_came_keep_what_was_read() -> None:
    """Here two calls come at one index."""
    one = {"index": 0, "id": "a", "function": {"name": "look", "arguments": '{"at":1}'}}
    two = {"index": 0, "id": "b", "function": {"name": "read", "arguments": '{"at":2}'}}
    read = completion(
        chunk(delta(tool_calls=[one])), chunk(delta(tool_calls=[two])), chunk(delta("tool_calls")), DONE_EVENT
    )
    calls = read["choices"][0]["message"]["tool_calls"]
    assert [call["function"]["name"] for call in calls] == ["look", "read"]


def test_calls_of_custom_tools_pass_whole() -> None:
    pieces = (
        delta(
            role="assistant",
            tool_calls=[{"index": 0, "id": "a", "type": "custom", "custom": {"name": "say", "input": ""}}],
        ),
        delta(tool_calls=[{"index": 0, "custom": {"input": "{he"}}]),
        delta(tool_calls=[{"index": 0, "custom": {"input": "llo"}}]),
        delta("tool_calls"),
    )
    read = completion(*map(chunk, pieces), DONE_EVENT)
    check_completion(read)
    (call,) = read["choices"][0]["message"]["tool_calls"]
    assert call == {"id": "a", "type": "custom", "custom": {"name": "say", "input": "{hello"}}
    assert len(sent(streamed(STREAM, output(*map(chunk, pieces), DONE_EVENT)))) == len(pieces)


def test_a_provider_that_goes_on_after_its_answer_costs_no_memory() -> None:
    reply = writer(STREAM)
    events, finished = turn(output(chunk(delta("stop", content="x")), *[chunk(pad=7)] * 100, DONE_EVENT))
    reply.feed(events)
    chunks = sent(reply.finish(finished))
    assert chunks[0]["choices"][0]["finish_reason"] == "stop"
    assert len(chunks) == 16


def test_a_second_answer_is_not_taken() -> None:
    other = {**delta("stop", content="y"), "index": 1}
    read = completion(chunk(delta("stop", content="x"), other), DONE_EVENT)
    assert read["choices"][0]["message"]["content"] == "x"
    assert "warnings" not in read


def test_the_end_waits_until_the_turn_has_ended_well() -> None:
    events, finished = turn(output(chunk(delta(content="x")), chunk(delta("stop")), DONE_EVENT))
    reply = writer(STREAM)
    assert b'"stop"' not in reply.feed(events)
    assert b'"stop"' in end_of(reply, finished)


@pytest.mark.parametrize(
    "broken",
    [
        [chunk(delta(content="x")), chunk(delta("stop")), b'{"error":{"message":"No.","code":"server_error"}}'],
        [chunk(delta(content="x")), chunk(delta("error"))],
        [chunk(delta(content="x"))],
    ],
)
def test_a_stream_that_breaks_does_not_look_complete(broken: list[bytes]) -> None:
    body = streamed(STREAM, output(*broken))
    assert b"[DONE]" not in body
    assert b'"stop"' not in body
    assert b'"finish_reason":"' not in body
    assert body.count(b'"error":{') == 1


def test_a_reason_in_each_chunk_holds_up_no_text() -> None:
    events, _ = turn(output(*(chunk(delta("stop", content=word)) for word in "abc"), DONE_EVENT))
    said = writer(STREAM).feed(events)
    assert b'"a"' in said
    assert b'"b"' in said
    assert b'"c"' not in said, "it may be the end"


def test_what_the_provider_leaves_out_of_the_end_is_written() -> None:
    chunks = sent(streamed(COUNTED, output(chunk(delta(content="x")), DONE_EVENT)))
    assert chunks[-2]["choices"][0]["finish_reason"] == "stop"
    assert chunks[-1]["usage"]["total_tokens"] == 0
    counted = sent(streamed(COUNTED, output(chunk(delta(content="x"), usage=USAGE), chunk(delta("stop")), DONE_EVENT)))
    assert sum("usage" in one for one in counted) == 1


@pytest.mark.untraced
@pytest.mark.parametrize("name", CHAT_STREAMS)
def test_every_stream_of_a_provider_passes(name: str) -> None:
    """What an answer says is read as before; nothing else of the stream is lost."""
    events, _ = read(GOLDEN[name])
    produced = run(SourceDecoder(decoder("chat")), events)
    body = streamed(STREAM, produced)
    ended = produced[-1]
    assert isinstance(ended, Ended)
    assert body.endswith(DONE) == (ended.status != "failed")
    if ended.status == "failed":
        assert b'"error":{' in body
        return
    received, finished = turn(produced)
    reply = writer(WHOLE)
    reply.feed(received)
    told = whole(reply, finished)
    choice = told["choices"][0]
    choice["finish_reason"] = "tool_calls" if "tool_calls" in choice["message"] else "length"  # providers say anything
    check_completion({name: value for name, value in told.items() if name != "usage"})


@given(name=st.sampled_from(CHAT_STREAMS), length=st.integers(0, 30), truncated=st.booleans())
@settings(max_examples=examples(200))
def test_a_stream_that_breaks_anywhere_has_no_end(name: str, length: int, truncated: bool) -> None:
    events, _ = read(GOLDEN[name])
    produced = run(SourceDecoder(decoder("chat")), events[:length], truncated=truncated)
    last = produced[-1]
    assert isinstance(last, Ended)
    assert streamed(STREAM, produced).endswith(DONE) == (last.status != "failed")
