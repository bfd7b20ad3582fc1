"""The chunks that the events of a turn become."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from segue.dialects.chat.door_reply import DONE
from segue.dialects.interface import Output
from segue.protocol.codec import encode
from segue.protocol.events import Ended, Event, OutputWriter
from segue.protocol.problems import Problem
from segue.testing.chat_checker import check_chunks
from tests.dialects.chat.doors import asked, checked, completed, ended, said, streamed, turn, writer
from tests.dialects.conversations import RESPONSE_ID, run
from tests.dialects.golden import CHECKED, GOLDEN, decoder, dialect_of, read
from tests.dialects.stream_mutations import odd_streams, write
from tests.strategies import examples

Json = dict[str, Any]
STREAM = asked(stream=True)


def event(kind: str, **fields: object) -> Event:
    return Event(f"response.{kind}", json.dumps({"type": f"response.{kind}", **fields}).encode(), -1)


def test_a_text_is_chunks_in_the_order_that_clients_want() -> None:
    stream = checked(STREAM, said("hel", "lo"))
    assert stream.message == {"content": "hello"}
    assert stream.finish_reason == "stop"
    assert stream.usage is None
    first, one, two, last = stream.chunks
    head = {"object": "chat.completion.chunk", "created": 100, "model": "m"}
    assert first == {
        "id": f"chatcmpl-{RESPONSE_ID.removeprefix('resp_')}",
        **head,
        "choices": [
            {
                "index": 0,
                "delta": {"role": "assistant", "content": "", "refusal": None},
                "logprobs": None,
                "finish_reason": None,
            }
        ],
    }
    assert one["choices"][0]["delta"] == {"content": "hel"}
    assert two["choices"][0]["delta"] == {"content": "lo"}
    assert last["choices"][0] == {"index": 0, "delta": {}, "logprobs": None, "finish_reason": "stop"}


def test_the_usage_comes_last_and_only_if_it_is_asked_for() -> None:
    stream = checked(asked(stream=True, stream_options={"include_usage": True}), said("x"))
    assert stream.usage == {
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "total_tokens": 15,
        "prompt_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 2, "audio_tokens": 0},
    }
    assert [chunk["usage"] for chunk in stream.chunks[:-1]] == [None] * (len(stream.chunks) - 1)


def test_calls_are_numbered_and_their_arguments_follow() -> None:
    script = OutputWriter(RESPONSE_ID)
    output: Output = [
        *script.text("Looking."),
        *script.start_call("a", "look"),
        *script.arguments('{"at":'),
        *script.arguments("1}"),
        *script.call("b", "read", "{}"),
        ended(),
    ]
    stream = checked(STREAM, output)
    assert stream.finish_reason == "tool_calls"
    assert stream.message == {
        "content": "Looking.",
        "tool_calls": [
            {"id": "a", "type": "function", "function": {"name": "look", "arguments": '{"at":1}'}},
            {"id": "b", "type": "function", "function": {"name": "read", "arguments": "{}"}},
        ],
    }


def test_nothing_is_sent_before_the_answer_begins() -> None:
    """Until then, the reply can still have the status of an error."""
    events, _ = turn(said("x"))
    assert writer(STREAM).feed(events[:2]) == b""


def test_an_answer_without_anything_in_it_is_one_all_the_same() -> None:
    stream = checked(STREAM, [ended()])
    assert (stream.message, stream.finish_reason) == ({}, "stop")


@pytest.mark.parametrize(
    ("reason", "told"), [("max_output_tokens", "length"), ("content_filter", "content_filter"), ("other", "length")]
)
def test_an_answer_that_was_cut_says_so(reason: str, told: str) -> None:
    output = [*said("hel")[:-1], ended("incomplete", reason)]
    assert checked(STREAM, output).finish_reason == told


def test_a_stream_that_breaks_ends_in_an_error_and_in_nothing_else() -> None:
    output = [*said("hel")[:-1], ended("failed")]
    stream = checked(STREAM, output)
    assert stream.error == {
        "message": "It broke.",
        "type": "server_error",
        "param": None,
        "code": "upstream_error",
    }
    assert b"[DONE]" not in streamed(STREAM, output)
    assert b'"finish_reason":"' not in streamed(STREAM, output)


def test_an_error_has_the_type_of_its_status() -> None:
    problem = Problem("rate_limit_exceeded", "Slower.")
    failed = writer(STREAM).failed(problem, kind="rate_limit_error", status=429)
    assert check_chunks(failed).error == {
        "message": "Slower.",
        "type": "rate_limit_error",
        "param": None,
        "code": "rate_limit_exceeded",
    }


def test_warnings_stand_in_the_last_chunk() -> None:
    request = asked({"role": "user", "content": "x", "name": "bob"}, stream=True)
    *_, last = checked(request, said("x")).chunks
    assert "'name'" in last["warnings"][0]


def test_a_second_message_begins_after_a_blank_line() -> None:
    script = OutputWriter(RESPONSE_ID)
    output: Output = [
        *script.text("one"),
        *script.end_item(),
        *script.text("tw"),
        *script.text("o"),
        *script.end_item(),
    ]
    assert checked(STREAM, [*output, ended()]).message == {"content": "one\n\ntwo"}


def test_annotations_are_those_that_this_api_has() -> None:
    reply = writer(STREAM)
    cited = {"type": "url_citation", "url": "https://example.com", "title": "t", "start_index": 0, "end_index": 1}
    other = {"type": "file_citation", "file_id": "f"}
    kind = "output_text.annotation.added"
    assert reply.feed([event(kind, annotation=other)]) == b""
    sent = reply.feed([event(kind, annotation=cited)])
    wanted = {name: value for name, value in cited.items() if name != "type"}
    delta = json.loads(sent.rpartition(b"data: ")[2])["choices"][0]["delta"]
    assert delta == {"annotations": [{"type": "url_citation", "url_citation": wanted}]}


def test_log_probabilities_have_all_that_this_api_has_of_them() -> None:
    script = OutputWriter(RESPONSE_ID)
    tokens = [{"token": "x", "logprob": -0.5, "top_logprobs": [{"token": "x", "logprob": -0.5}]}]
    output: Output = [*script.text("x", tokens), *script.text("y", [{"token": 1}]), *script.end_item(), ended()]
    whole = {"token": "x", "logprob": -0.5, "bytes": None}
    wanted = {"content": [{**whole, "top_logprobs": [whole]}], "refusal": None}
    told = [chunk["choices"][0]["logprobs"] for chunk in checked(STREAM, output).chunks]
    assert told == [None, wanted, None, None]


@pytest.mark.parametrize("delta", [{}, {"delta": 7}, {"delta": None}, {"delta": {"a": 1}}])
def test_a_text_that_cannot_be_read_is_no_sound_answer(delta: Json) -> None:
    """What a Responses server sends within an item passes to clients of that API as it is."""
    events, finished = turn(said("a"))
    reply = writer(STREAM)
    sent = reply.feed([*events, event("output_text.delta", output_index=0, content_index=0, **delta)])
    stream = check_chunks(sent + reply.finish(finished))
    assert stream.message == {"content": "a"}
    assert stream.error is not None
    assert stream.error["code"] == "upstream_protocol_error"


@pytest.mark.parametrize("fields", [{"summary": None}, {"summary": 7}, {"summary": [7]}, {"content": "x"}])
def test_an_item_that_cannot_be_read_is_no_sound_answer(fields: Json) -> None:
    """Streamed or not."""
    item = {"type": "reasoning", "summary": [], **fields}
    done = event("output_item.done", output_index=0, item=item)
    output: Output = [event("output_item.added", output_index=0, item=item), replace(done, item=encode(item)), ended()]
    events, finished = turn(output)
    assert checked(STREAM, output).error is not None
    reply = writer(asked())
    reply.feed(events)
    problem = reply.whole(finished)
    assert isinstance(problem, Problem)
    assert problem.code == "upstream_protocol_error"


def test_arguments_of_no_call_are_left_out() -> None:
    delta = event("function_call_arguments.delta", output_index=9, delta="{}")
    assert writer(STREAM).feed([delta]) == b""


def _agrees(output: Output) -> None:
    """Hold a turn at the door to the checker, and a streamed reply to one that is not streamed."""
    _, finished = turn(output)
    if finished.status == "failed":
        stream = checked(STREAM, output)
        assert stream.error is not None
        return
    stream, completion = checked(STREAM, output), completed(asked(), output)
    (choice,) = completion["choices"]
    message = {name: value for name, value in choice["message"].items() if value and name != "role"}
    sent = {name: value for name, value in stream.message.items() if value}
    joined = {
        name: [one for chunk in stream.chunks for one in chunk["choices"][0]["delta"].get(name, ())]
        for name in ("annotations", "reasoning_details")
    }
    assert message == {**sent, **{name: value for name, value in joined.items() if value}}
    assert choice["finish_reason"] == stream.finish_reason
    assert completion.get("warnings") == stream.chunks[-1].get("warnings")


@pytest.mark.untraced
@pytest.mark.parametrize("name", CHECKED)
def test_every_stream_of_a_provider_is_a_sound_completion(name: str) -> None:
    events, _ = read(GOLDEN[name])
    _agrees(run(decoder(dialect_of(name)), events))


@pytest.mark.parametrize("dialect", ["chat", "messages", "responses"])
@given(data=st.data())
@settings(max_examples=examples(100))
def test_whatever_a_stream_has_become_its_completion_is_sound_or_an_error(dialect: str, data: st.DataObject) -> None:
    lines, _ = data.draw(odd_streams(dialect))
    output = run(decoder(dialect), write(lines))
    _, finished = turn(output)
    body = streamed(STREAM, output)
    assert body.endswith(DONE) or b'"error":{' in body
    assert finished.status != "failed" or not body.endswith(DONE)
    assert b'"finish_reason":"' not in body or body.endswith(DONE)


@given(name=st.sampled_from(CHECKED), length=st.integers(0, 30), truncated=st.booleans())
@settings(max_examples=examples(300))
def test_a_stream_that_breaks_anywhere_is_no_sound_end(name: str, length: int, truncated: bool) -> None:
    events, _ = read(GOLDEN[name])
    output = run(decoder(dialect_of(name)), events[:length], truncated=truncated)
    _agrees(output)
    last = output[-1]
    assert isinstance(last, Ended)
    assert streamed(STREAM, output).endswith(DONE) == (last.status != "failed")
