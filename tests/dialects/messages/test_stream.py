"""Streams of Anthropic Messages, event by event."""

from __future__ import annotations

import json

import pytest

from segue.dialects.interface import Output
from segue.dialects.messages.stream import STOP, MessagesDecoder, read_usage
from segue.dialects.sealed_reasoning import seal
from segue.http.sse import SseEvent
from segue.protocol.events import Ended, Event
from segue.protocol.responses import Failure, usage
from tests.dialects.conversations import MESSAGES, RESPONSE_ID, response, run
from tests.dialects.golden import Json, outline


def event(kind: str, **fields: object) -> SseEvent:
    return SseEvent(kind, json.dumps({"type": kind, **fields}).encode())


def start(index: int, kind: str, **fields: object) -> SseEvent:
    return event("content_block_start", index=index, content_block={"type": kind, **fields})


def delta(index: int, kind: str, **fields: object) -> SseEvent:
    return event("content_block_delta", index=index, delta={"type": kind, **fields})


def stop(index: int) -> SseEvent:
    return event("content_block_stop", index=index)


def said(reason: str | None = "end_turn", **fields: object) -> SseEvent:
    return event("message_delta", delta={"stop_reason": reason}, **fields)


END = event("message_stop")


def decoder() -> MessagesDecoder:
    return MessagesDecoder(RESPONSE_ID, MESSAGES, custom=frozenset({"patch"}))


def result(*events: SseEvent) -> Json:
    """The response that a client gets when the stream ends soundly after these events."""
    return response(run(decoder(), [*events, said(), END]))


def items(*events: SseEvent) -> list[Json]:
    return [outline(item) for item in result(*events)["output"]]


def ended(output: Output) -> Ended:
    assert isinstance(output[-1], Ended)
    return output[-1]


def text(index: int, words: str) -> list[SseEvent]:
    return [start(index, "text", text=""), delta(index, "text_delta", text=words), stop(index)]


# --------------------------------------------------------------------------------------------------------------- blocks


def test_each_block_of_text_is_a_part_of_one_message() -> None:
    assert items(*text(0, "a"), *text(1, "b"), start(2, "text", text="c"), stop(2)) == [{"message": ["a", "b", "c"]}]


def test_thoughts_go_back_with_their_signature() -> None:
    thinking = [
        start(0, "thinking", thinking="Let ", signature=""),
        delta(0, "thinking_delta", thinking="me."),
        delta(0, "signature_delta", signature="s1"),
        delta(0, "signature_delta", signature="s2"),
        stop(0),
        start(1, "thinking", signature="t"),
        stop(1),
    ]
    assert items(*thinking, *text(2, "x")) == [
        {"reasoning": "Let me.", "returned": {"signature": "s1s2"}},
        {"reasoning": "", "returned": {"signature": "t"}},
        {"message": ["x"]},
    ]
    assert result(*thinking)["output"][0]["encrypted_content"] == seal(MESSAGES, '{"signature":"s1s2"}')


def test_thoughts_without_a_signature_cannot_go_back() -> None:
    thinking = [start(0, "thinking"), delta(0, "thinking_delta", thinking="Hm"), stop(0)]
    assert items(*thinking, *text(1, "x")) == [{"reasoning": "Hm", "returned": None}, {"message": ["x"]}]


def test_redacted_thoughts_go_back_as_they_came() -> None:
    assert items(start(0, "redacted_thinking", data="r"), stop(0), *text(1, "x")) == [
        {"reasoning": "", "returned": {"redacted": "r"}},
        {"message": ["x"]},
    ]


def test_the_input_of_a_call_comes_in_pieces_or_at_once() -> None:
    events = [
        start(0, "tool_use", id="a", name="look", input={}),
        delta(0, "input_json_delta", partial_json=""),
        delta(0, "input_json_delta", partial_json='{"x"'),
        delta(0, "input_json_delta", partial_json=":1}"),
        stop(0),
        start(1, "tool_use", id="b", name="look", input={"y": 2}),
        stop(1),
        start(2, "tool_use", id="c", name="look", input={"z": 0}),
        delta(2, "input_json_delta", partial_json='{"z":3}'),
        stop(2),
        start(5, "tool_use", id="f", name="look", input={"z": 4}),
        delta(5, "input_json_delta", partial_json="{}"),
        stop(5),
        start(3, "tool_use", id="d", name="patch"),
        delta(3, "input_json_delta", partial_json='{"input":"w"}'),
        stop(3),
        start(4, "tool_use", id="e", name="look"),
        stop(4),
    ]
    assert items(*events) == [
        {"call": ["a", "look", '{"x":1}']},
        {"call": ["b", "look", '{"y":2}']},
        {"call": ["c", "look", '{"z":3}']},
        {"call": ["f", "look", '{"z":4}']},
        {"custom": ["d", "patch", "w"]},
        {"call": ["e", "look", "{}"]},
    ]


def test_half_a_character_in_an_input_that_comes_at_once_is_replaced() -> None:
    assert items(start(0, "tool_use", id="a", name="look", input={"x": ["\ud83d"]}), stop(0)) == [
        {"call": ["a", "look", '{"x":["\ufffd"]}']}
    ]
    assert items(start(0, "tool_use", id="a", name="look", input="\ud83d"), stop(0)) == [
        {"call": ["a", "look", '"\ufffd"']}
    ]


def test_a_call_is_over_only_when_something_follows_that_does_not_cut_it_off() -> None:
    """Its block stops before the event that says whether it was cut off."""
    stream = decoder()
    stream.feed(start(0, "tool_use", id="a", name="look"))
    stream.feed(delta(0, "input_json_delta", partial_json="{}"))
    assert stream.feed(stop(0)) == []
    done = [one for one in stream.feed(start(1, "text", text="x")) if isinstance(one, Event) and one.item]
    assert [outline(json.loads(one.item)) for one in done] == [{"call": ["a", "look", "{}"]}]


def test_a_call_that_was_cut_off_is_incomplete() -> None:
    stream = [start(0, "tool_use", id="a", name="look"), delta(0, "input_json_delta", partial_json='{"x'), stop(0)]
    got = response(run(decoder(), [*stream, said("max_tokens"), END]))
    assert (got["status"], got["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
    assert [outline(item) for item in got["output"]] == [{"call": ["a", "look", '{"x'], "cut": True}]


def test_a_block_without_a_counterpart_is_left_out_with_one_warning() -> None:
    search = [start(0, "server_tool_use", name="web_search"), delta(0, "input_json_delta", partial_json="{}"), stop(0)]
    got = result(*search, *text(1, "x"))
    assert [outline(item) for item in got["output"]] == [{"message": ["x"]}]
    assert got["warnings"] == ["'server_tool_use' in the upstream's answer was left out: it has no counterpart."]


def test_a_delta_or_event_without_a_counterpart_is_left_out_with_a_warning() -> None:
    cited = [start(0, "text"), delta(0, "citations_delta", citation={}), delta(0, "text_delta", text="x"), stop(0)]
    got = result(event("ping"), event("new_thing"), *cited)
    assert [outline(item) for item in got["output"]] == [{"message": ["x"]}]
    assert got["warnings"] == [
        f"'{kind}' in the upstream's answer was left out: it has no counterpart."
        for kind in ("new_thing", "citations_delta")
    ]


def test_an_event_may_say_its_type_outside_its_data_only() -> None:
    words = SseEvent("content_block_start", b'{"index":0,"content_block":{"type":"text","text":"x"}}')
    assert items(words, stop(0)) == [{"message": ["x"]}]


@pytest.mark.parametrize("kind", ["ping", "message_start", "message_delta", "message_stop"])
def test_a_piece_of_a_block_is_read_whatever_its_event_is_called(kind: str) -> None:
    begun = event(kind, index=0, content_block={"type": "text", "text": "x"})
    said_more = event(kind, index=0, delta={"type": "text_delta", "text": "y"})
    if kind == "message_stop":
        assert [outline(item) for item in response(run(decoder(), [said(), begun]))["output"]] == [{"message": ["x"]}]
        assert ended(run(decoder(), [*text(0, "x"), said_more])).status == "failed"
    else:
        assert items(begun, said_more, stop(0)) == [{"message": ["xy"]}]


def test_an_event_that_names_no_open_block_is_about_the_last() -> None:
    wrong = [start(1, "text"), delta(0, "text_delta", text="x"), delta(7, "text_delta", text="y"), stop(0)]
    unnamed = [
        start(2, "tool_use", id="a", name="look"),
        start(3, "text", text="z"),
        *[event("content_block_stop")] * 2,
    ]
    assert items(*wrong, *unnamed) == [{"message": ["xy"]}, {"call": ["a", "look", "{}"]}, {"message": ["z"]}]


def test_a_block_that_begins_where_one_is_open_ends_that_one() -> None:
    thinking = [start(0, "thinking", signature="s"), delta(0, "thinking_delta", thinking="Hm")]
    assert items(*thinking, start(0, "tool_use", id="a", name="look", input={"x": 1}), *text(0, "y")) == [
        {"reasoning": "Hm", "returned": {"signature": "s"}},
        {"call": ["a", "look", '{"x":1}']},
        {"message": ["y"]},
    ]


@pytest.mark.parametrize(
    ("detail", "events"),
    [
        ("a delta belongs to no block", [delta(0, "text_delta", text="x")]),
        ("a delta belongs to no block", [start(0, "text"), event("content_block_delta", index=0)]),
        ("a delta belongs to no block", [*text(0, "x"), delta(0, "text_delta", text="x")]),
        ("a block stops that did not start", [stop(0)]),
        ("a block stops that did not start", [*text(0, "x"), stop(0)]),
        ("a block starts that is none", [event("content_block_start", index=0)]),
        ("a delta belongs to no block", [*text(0, "x"), event("content_block_delta", delta={"type": "text_delta"})]),
        ("a tool call has no name", [start(0, "tool_use", id="a")]),
        ("a delta does not fit its block", [start(0, "text"), delta(0, "input_json_delta", partial_json="{}")]),
        ("a delta does not fit its block", [start(0, "tool_use", name="n"), delta(0, "text_delta", text="x")]),
        ("an event is no JSON of a known shape", [SseEvent("", b"<html>")]),
        ("an event is no JSON of a known shape", [event("content_block_start", index=0, content_block=7)]),
        ("an event is no JSON of a known shape", [start(0, "text"), delta(0, "text_delta", text=["x"])]),
    ],
)
def test_a_messages_server_is_held_to_the_order_of_blocks(detail: str, events: list[SseEvent]) -> None:
    message = f"The upstream's answer cannot be read: {detail}."
    assert ended(run(decoder(), events)).error == Failure("upstream_protocol_error", message)


def test_an_error_in_the_stream_fails_the_turn() -> None:
    error = event("error", error={"type": "overloaded_error", "message": "Busy."})
    assert ended(run(decoder(), [*text(0, "x"), error])).error == Failure("server_overloaded", "Busy.")


# -------------------------------------------------------------------------------------------------------------- the end


@pytest.mark.parametrize(("reason", "cut"), STOP.items())
def test_a_reason_to_stop_that_is_known(reason: str, cut: str | None) -> None:
    got = response(run(decoder(), [*text(0, "x"), said(reason), END]))
    status, details = ("completed", None) if cut is None else ("incomplete", {"reason": cut})
    assert (got["status"], got["incomplete_details"], got.get("warnings")) == (status, details, None)
    assert [item["status"] for item in got["output"]] == [status]


def test_a_reason_to_stop_that_is_not_known_counts_as_an_end_with_a_warning() -> None:
    got = response(run(decoder(), [*text(0, "x"), said("y" * 50), END]))
    assert got["status"] == "completed"
    assert got["warnings"] == [f"The upstream stopped for a reason that is not known here: '{'y' * 40}…'."]


def test_a_stop_without_a_reason_completes_the_answer_with_a_warning() -> None:
    got = response(run(decoder(), [*text(0, "x"), said(None), END]))
    assert (got["status"], got["warnings"]) == ("completed", ["The upstream did not say why it stopped."])


@pytest.mark.parametrize("nothing", ["", "null"])
def test_a_reason_to_stop_that_says_nothing_is_none(nothing: str) -> None:
    got = response(run(decoder(), [*text(0, "x"), said(nothing), END]))
    assert (got["status"], got["warnings"]) == ("completed", ["The upstream did not say why it stopped."])
    assert ended(run(decoder(), [*text(0, "x"), said(nothing)])).status == "failed"


def test_a_reason_to_stop_is_void_once_the_answer_goes_on() -> None:
    for more in (start(1, "text"), delta(0, "text_delta", text="y")):
        went_on = [start(0, "text", text="x"), said("max_tokens"), more]
        assert ended(run(decoder(), went_on)).error == Failure(
            "upstream_protocol_error", "The upstream's stream stopped before its end."
        )
        assert ended(run(decoder(), [*went_on, said(), END])).status == "completed"
        assert ended(run(decoder(), [*went_on, END])).status == "incomplete"


COUNTED = said(usage={"output_tokens": 1})


@pytest.mark.parametrize(
    ("events", "awaited"),
    [
        (text(0, "x"), "answer"),
        ([*text(0, "x"), said(None, usage={"output_tokens": 1})], "answer"),
        ([*text(0, "x"), said()], "usage"),
        ([*text(0, "x"), COUNTED], "end"),
        ([start(0, "text", text="x"), COUNTED], "usage"),  # its block is still open
        ([*text(0, "x"), COUNTED, start(1, "text")], "answer"),
        ([*text(0, "x"), COUNTED, *text(1, "y"), COUNTED], "usage"),
    ],
)
def test_what_is_still_to_come(events: list[SseEvent], awaited: str) -> None:
    stream = decoder()
    for one in events:
        stream.feed(one)
    assert stream.awaited == awaited


def test_a_call_that_is_not_whole_is_no_complete_answer_unless_its_stream_ends() -> None:
    half = [start(0, "tool_use", id="a", name="look"), delta(0, "input_json_delta", partial_json='{"x"'), stop(0)]
    assert ended(run(decoder(), [*half, said("tool_use")], truncated=True)).status == "failed"
    assert ended(run(decoder(), [*half, END])).status == "failed"
    assert ended(run(decoder(), [*half, said("tool_use"), END])).status == "completed"


def test_done_ends_a_stream_as_its_last_event_does() -> None:
    assert ended(run(decoder(), [*text(0, "x"), said("max_tokens"), SseEvent("", b" [DONE]")])).status == "incomplete"


def test_a_refusal_says_why() -> None:
    refused = {"stop_reason": "refusal", "stop_details": {"type": "refusal", "explanation": "Not this"}}
    got = response(run(decoder(), [*text(0, "x"), event("message_delta", delta=refused), END]))
    assert got["incomplete_details"] == {"reason": "content_filter"}
    assert got["warnings"] == ["The upstream refused: 'Not this'."]


def test_a_stream_that_ends_without_its_last_event_is_fine_once_the_model_has_stopped() -> None:
    assert ended(run(decoder(), [*text(0, "x"), said()])).status == "completed"
    assert ended(run(decoder(), text(0, "x"))).error == Failure(
        "upstream_protocol_error", "The upstream's stream stopped before its end."
    )
    assert ended(run(decoder(), text(0, "x"), truncated=True)).error == Failure(
        "upstream_error", "The connection to the upstream broke before its answer was complete."
    )


def test_the_latest_count_of_each_kind_is_the_usage() -> None:
    begun = {"input_tokens": 9, "cache_read_input_tokens": 20, "cache_creation_input_tokens": 3, "output_tokens": 1}
    later = {"input_tokens": None, "output_tokens": 7, "output_tokens_details": {"thinking_tokens": 2}}
    events = [event("message_start", message={"usage": begun}), *text(0, "x"), said(usage=later), END]
    assert ended(run(decoder(), events)).usage == usage(32, 7, cached=20, written=3, reasoning=2)
    assert ended(run(decoder(), [event("message_start"), *text(0, "x"), said(), END])).usage == usage(0, 0)


def test_usage_counts_what_the_cache_held_as_input() -> None:
    assert read_usage({}) == usage(0, 0)
    assert read_usage({"cache_read_input_tokens": 5}) == usage(5, 0, cached=5)
    assert read_usage({"cache_creation_input_tokens": 5}) == usage(5, 0, written=5)
