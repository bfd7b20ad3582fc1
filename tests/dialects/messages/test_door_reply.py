"""Replies of the Messages API: the events of a turn, as its clients have to get them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.dialects.messages.door_items import read_messages
from segue.dialects.messages.door_reply import MessagesWriter
from segue.dialects.output_writer import InterleavedOutputWriter
from segue.protocol.events import SOURCE, Ended, Event
from segue.protocol.ids import ResponseId, message_id
from segue.protocol.items import Input
from segue.protocol.problems import Problem
from segue.protocol.request_size import DEFAULT_LIMITS
from segue.protocol.requests import Settings
from segue.protocol.responses import encode_echo, usage
from segue.protocol.turns import Finished, TurnStream
from segue.testing.messages_checker import MessagesChecker, check_messages_sse
from tests.dialects.conversations import run
from tests.dialects.golden import decoder
from tests.dialects.stream_mutations import odd_streams, write
from tests.strategies import examples

Json = dict[str, Any]

ID = ResponseId("resp_" + "0123456789" * 4)
ECHO = encode_echo(Settings(model="m"), store=False)


def turn(*events: Event, ended: Ended | None = None) -> tuple[list[Event], Finished]:
    """The events of a turn as the executor yields them, and its result."""
    stream = TurnStream(ID, None, ECHO, 0, encrypted=True)
    fed = [*stream.open(), *stream.feed(events)]
    return fed, stream.close(ended or Ended("completed", usage(10, 4, cached=3, written=2)), 1)


def streamed(events: Sequence[Event], finished: Finished) -> bytes:
    writer = MessagesWriter(ID, "m", streamed=True)
    return b"".join([*(writer.feed([event]) for event in events), writer.finish(finished)])


def whole(events: Sequence[Event], finished: Finished) -> Json:
    writer = MessagesWriter(ID, "m", streamed=False)
    assert writer.feed(events) == b""
    body = writer.whole(finished)
    assert isinstance(body, bytes)
    message: Json = json.loads(body)
    return message


def ended_in(body: bytes) -> Json:
    """The error that a stream ends in."""
    checker = MessagesChecker()
    for one in body.decode().strip().split("\n\n"):
        name, data = one.split("\n")
        checker.feed(name.removeprefix("event: "), json.loads(data.removeprefix("data: ")))
    checker.finish()
    assert checker.error is not None
    return checker.error


def written(*events: Event, ended: Ended | None = None) -> Json:
    """The message of a turn: the same, streamed and whole."""
    fed, finished = turn(*events, ended=ended)
    message = check_messages_sse(streamed(fed, finished))
    assert whole(fed, finished) == message
    return message


def text(said: str) -> Json:
    return {"type": "text", "text": said, "citations": None}


def tool_use(ident: str, name: str, given: Json) -> Json:
    return {"type": "tool_use", "id": ident, "name": name, "input": given, "caller": {"type": "direct"}}


def output() -> InterleavedOutputWriter:
    return InterleavedOutputWriter(ID)


def test_a_message_has_its_id_its_usage_and_its_reason() -> None:
    writer = output()
    message = written(*writer.text("Hel"), *writer.text("lo"), *writer.end())
    assert message == {
        "id": message_id(ID),
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [text("Hello")],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "stop_details": None,
        "container": None,
        "usage": {
            "input_tokens": 5,
            "cache_creation_input_tokens": 2,
            "cache_read_input_tokens": 3,
            "cache_creation": None,
            "output_tokens": 4,
            "output_tokens_details": {"thinking_tokens": 0},
            "server_tool_use": None,
            "service_tier": None,
            "inference_geo": None,
        },
    }


def test_thinking_comes_with_its_signature_and_calls_with_their_input() -> None:
    writer = output()
    message = written(
        *writer.reasoning("Hm."),
        *writer.seal("sig"),
        *writer.seal("all"),
        *writer.text("A"),
        *writer.end_part(),
        *writer.text("B"),
        *writer.start_call(1, "c1", "f"),
        *writer.arguments(1, '{"a":'),
        *writer.arguments(1, "1}"),
        *writer.end(),
    )
    assert message["content"] == [
        {"type": "thinking", "thinking": "Hm.", "signature": "sig"},
        {"type": "redacted_thinking", "data": "all"},
        text("A"),
        text("B"),
        tool_use("c1", "f", {"a": 1}),
    ]
    assert message["stop_reason"] == "tool_use"


def test_blocks_come_one_after_the_other_though_calls_grow_together() -> None:
    writer = output()
    message = written(
        *writer.start_call(1, "c1", "f"),
        *writer.start_call(2, "c2", "g"),
        *writer.arguments(2, '{"b":2}'),
        *writer.end_call(2),
        *writer.arguments(1, '{"a":1}'),
        *writer.end(),
    )
    assert [(block["id"], block["input"]) for block in message["content"]] == [("c1", {"a": 1}), ("c2", {"b": 2})]


def done(index: int, **item: object) -> Event:
    event = {"type": "response.output_item.done", "output_index": index, "item": item}
    return Event("response.output_item.done", json.dumps(event).encode(), 2, json.dumps(item).encode())


def added(index: int, **item: object) -> Event:
    event = {"type": "response.output_item.added", "output_index": index, "item": item}
    return Event("response.output_item.added", json.dumps(event).encode(), 2)


def test_an_item_that_came_without_its_deltas_is_written_whole() -> None:
    """Some Responses servers send only that."""
    items: list[Json] = [
        {"type": "reasoning", "summary": [{"text": "A"}, {"text": "B"}], "encrypted_content": "sig"},
        {"type": "reasoning", "summary": []},
        {"type": "message", "content": [{"type": "output_text", "text": "x"}, {"type": "refusal", "refusal": "y"}]},
        {"type": "web_search_call", "id": "w"},
        {"type": "custom_tool_call", "call_id": "c", "name": "p", "input": "text"},
    ]
    events = [event for index, item in enumerate(items) for event in (added(index, **item), done(index, **item))]
    assert written(*events)["content"] == [
        {"type": "thinking", "thinking": "A\n\nB", "signature": "sig"},
        text("x"),
        text("y"),
        tool_use("c", "p", {"input": "text"}),
    ]


def test_the_parts_of_a_summary_are_one_text() -> None:
    def delta(part: int, text: str) -> Event:
        kind = "response.reasoning_summary_text.delta"
        return Event(
            kind, json.dumps({"type": kind, "output_index": 0, "summary_index": part, "delta": text}).encode(), 2
        )

    item = {"type": "reasoning", "summary": [{"text": "AB"}, {"text": "CD"}]}
    events = [added(0, **item), delta(0, "A"), delta(0, "B"), delta(1, "C"), delta(1, "D"), done(0, **item)]
    assert written(*events)["content"][0]["thinking"] == "AB\n\nCD"


def piece(kind: str, **fields: object) -> Event:
    return Event(f"response.{kind}", json.dumps({"type": f"response.{kind}", "output_index": 0, **fields}).encode(), 2)


ODD: list[Event] = [
    *(piece("output_text.delta", **fields) for fields in ({}, {"delta": 7}, {"delta": None}, {"delta": {"a": 1}})),
    piece("output_text.delta", delta="x", content_index="0"),
    piece("output_item.added", item=7),
    done(0, type="message", content=7),
    done(0, type="message", content=[7]),
    done(0, type="function_call", call_id=7),
]


@pytest.mark.parametrize("odd", ODD, ids=str)
def test_an_answer_with_events_that_cannot_be_read_is_an_error(odd: Event) -> None:
    """What a Responses server sends within an item passes to clients of that API as it is."""
    fed, finished = turn(*output().text("a"))
    fed.append(odd)
    error = ended_in(streamed(fed, finished))
    assert error["type"] == "api_error"
    writer = MessagesWriter(ID, "m", streamed=False)
    writer.feed(fed)
    problem = writer.whole(finished)
    assert isinstance(problem, Problem)
    assert problem.code == "upstream_protocol_error"


def test_an_item_that_no_message_has_is_not_read() -> None:
    items: list[Json] = [
        {"type": "vendor_call", "content": "x", "name": None, "input": {}},
        {"type": "reasoning", "summary": None, "content": None, "encrypted_content": "s"},
    ]
    events = [event for index, item in enumerate(items) for event in (added(index, **item), done(index, **item))]
    assert written(*events)["content"] == [{"type": "redacted_thinking", "data": "s"}]


@pytest.mark.parametrize("dialect", ["chat", "messages", "responses"])
@given(data=st.data())
@settings(max_examples=examples(100))
def test_whatever_a_stream_has_become_its_message_is_sound_or_an_error(dialect: str, data: st.DataObject) -> None:
    lines, _ = data.draw(odd_streams(dialect))
    fed = run(decoder(dialect), write(lines))
    ended = next(one for one in fed if isinstance(one, Ended))
    events, finished = turn(*(one for one in fed[: fed.index(ended)] if isinstance(one, Event)), ended=ended)
    if finished.status == "failed":
        MessagesWriter(ID, "m", streamed=True).feed(events)
        return
    body = streamed(events, finished)
    if b"event: error" in body:
        ended_in(body)
    else:
        message = whole(events, finished)
        message.pop("warnings", None)
        assert message == check_messages_sse(body)


def test_an_answer_that_was_cut_short_says_so() -> None:
    writer = output()
    cut = [*writer.start_call(1, "c", "f"), *writer.arguments(1, '{"a'), *writer.end("incomplete")]
    message = written(*cut, ended=Ended("incomplete", incomplete_reason="max_output_tokens"))
    assert (message["stop_reason"], message["content"][0]["input"]) == ("max_tokens", {"arguments": '{"a'})
    assert written(ended=Ended("incomplete", incomplete_reason="content_filter"))["stop_reason"] == "refusal"


def test_what_was_left_out_is_said() -> None:
    fed, finished = turn(ended=Ended("completed", warnings=("lost",)))
    assert whole(fed, finished)["warnings"] == ["lost"]


def test_a_turn_that_fails_ends_in_an_error() -> None:
    writer = MessagesWriter(ID, "m", streamed=True)
    events, _ = turn(*output().text("x"))
    assert writer.feed(events[:2]) == b"", "until something is said, the turn can get a status"
    body = writer.feed(events[2:]) + writer.failed(Problem("upstream_error", "No."), kind="server_error", status=502)
    assert ended_in(body) == {"type": "api_error", "message": "No."}


# --- events of a provider of this API --------------------------------------------------------------------------------

PASSED = [
    (
        b'{"type":"message_start", "message":{"id":"msg_theirs", "type":"message","role":"assistant","model":"claude",'
        b'"content":[],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":1,"output_tokens":0,"x":{}}}}'
    ),
    b'{"type":"ping"}',
    b'{"type":"content_block_start","index":0,"content_block":{"type":"server_tool_use","id":"s","input":{}}}',
    b'{"type":"content_block_stop","index":0 }',
    b'{"type":"message_delta","delta":{"stop_reason":"pause_turn","stop_sequence":null},"usage":{"output_tokens":2}}',
    b'{"type":"message_stop"}',
]


def sources(*data: bytes) -> list[Event]:
    return [Event(SOURCE, one, -1) for one in data]


def test_a_providers_own_events_pass_with_our_id() -> None:
    """Byte for byte, and the last one when the turn is committed."""
    fed, finished = turn(*sources(*PASSED), *output().text("x"))
    writer = MessagesWriter(ID, "m", streamed=True)
    body = writer.feed(fed)
    for data in PASSED[1:5]:
        assert data in body
    assert b"message_stop" not in body
    assert b"msg_theirs" not in body
    message = check_messages_sse(body + writer.finish(finished))
    assert (message["id"], message["model"], message["stop_reason"]) == (message_id(ID), "claude", "pause_turn")
    assert whole(fed, finished)["content"] == [{"type": "server_tool_use", "id": "s", "input": {}}]


def test_an_error_of_the_provider_is_told_once() -> None:
    fed, _ = turn(*sources(*PASSED[:1], b'{"type":"error","error":{}}', b"broken", b"{}"))
    assert MessagesWriter(ID, "m", streamed=True).feed(fed).count(b"event: ") == 1


def test_data_of_more_than_one_line_passes() -> None:
    """A server may write each line of its JSON in a field of its own."""
    fed, finished = turn(*sources(*PASSED[:2], PASSED[2].replace(b",", b",\n"), *PASSED[3:]))
    assert check_messages_sse(streamed(fed, finished)) == whole(fed, finished)


@pytest.mark.parametrize(
    "odd",
    [
        b'{"type":"\xff"}',
        b'{"type":"a\\n\\nevent: message_stop"}',
        b'{"type":"message_start"}',
        b'{"type":"message_start","message":null}',
        b'{"type":"message_start","message":[]}',
        b'{"type":"message_start","message":{}}',
        b'{"type":7}',
        b"[]",
    ],
)
def test_what_is_no_event_of_a_message_is_left_out(odd: bytes) -> None:
    fed, finished = turn(*sources(PASSED[0], odd, *PASSED[1:]))
    message = check_messages_sse(streamed(fed, finished))
    assert message == whole(fed, finished)
    assert (message["id"], message["model"]) == (message_id(ID), "claude")


@pytest.mark.parametrize("start", [b'{"type":"message_start"}', b'{"type":"message_start","message":7}', b"{}"])
def test_a_message_that_does_not_begin_soundly_begins_as_ours_do(start: bytes) -> None:
    fed, finished = turn(*sources(start, *PASSED[1:]))
    message = check_messages_sse(streamed(fed, finished))
    assert message == whole(fed, finished)
    assert (message["id"], message["model"], message["stop_reason"]) == (message_id(ID), "m", "pause_turn")


# --- any output ------------------------------------------------------------------------------------------------------

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("text"), st.text("ab\n", min_size=1, max_size=4)),
        st.tuples(st.just("think"), st.text("ab", min_size=1, max_size=4)),
        st.tuples(st.just("seal"), st.sampled_from(["s1", "s2"])),
        st.tuples(
            st.just("call"), st.dictionaries(st.text("ab", max_size=2), st.integers(), max_size=2).map(json.dumps)
        ),
        st.tuples(st.just("part"), st.just("")),
    ),
    max_size=12,
)


def play(steps: Sequence[tuple[str, str]]) -> list[Event]:
    writer, events = output(), list[Event]()
    for number, (step, text) in enumerate(steps):
        match step:
            case "text":
                events += writer.text(text)
            case "think":
                events += writer.reasoning(text)
            case "seal":
                events += writer.seal(text)
            case "call":
                events += [*writer.start_call(number, f"c{number}", "f"), *writer.arguments(number, text)]
                events += writer.end_call(number)
            case _:
                events += writer.end_part()
    return events + writer.end()


def bare(item: Json) -> Json:
    """An item as a client can repeat it."""
    kept = {name: value for name, value in item.items() if name not in ("id", "status")}
    if "content" in kept:
        kept["content"] = [{"type": part["type"], "text": part["text"], "annotations": []} for part in kept["content"]]
    return kept


@given(STEPS)
@settings(max_examples=examples(500))
def test_a_client_that_sends_the_reply_back_says_what_the_model_said(steps: list[tuple[str, str]]) -> None:
    """The items of its request are those of the output."""
    fed, finished = turn(*play(steps))
    message = check_messages_sse(streamed(fed, finished))
    assert whole(fed, finished) == message
    back = read_messages(json.dumps([{"role": "assistant", "content": message["content"]}]).encode(), DEFAULT_LIMITS)
    assert isinstance(back, Input)
    assert [json.loads(item) for item in back.items] == [bare(json.loads(item)) for item in finished.output]
