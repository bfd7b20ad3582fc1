"""Streams of Chat Completions, chunk by chunk."""

from __future__ import annotations

import json
from typing import Any

import pytest

from segue.dialects.chat.stream import FINISH, ChatDecoder, read_usage
from segue.dialects.interface import Output
from segue.dialects.sealed_reasoning import seal
from segue.http.sse import SseEvent
from segue.protocol.events import Ended, Event
from segue.protocol.responses import Failure, usage
from tests.dialects.conversations import CHAT, RESPONSE_ID, response, run
from tests.dialects.golden import Json, outline

STOP = {"choices": [{"delta": {}, "finish_reason": "stop"}]}
DONE = SseEvent("", b"[DONE]")


def event(chunk: Json) -> SseEvent:
    return SseEvent("", json.dumps(chunk).encode())


def delta(**fields: object) -> SseEvent:
    return event({"choices": [{"index": 0, "delta": fields}]})


def finished(reason: str, **fields: object) -> SseEvent:
    return event({"choices": [{"index": 0, "delta": fields, "finish_reason": reason}]})


def calls(*deltas: Json) -> SseEvent:
    return delta(tool_calls=list(deltas))


def decoder(*custom: str) -> ChatDecoder:
    return ChatDecoder(RESPONSE_ID, CHAT, custom=frozenset(custom))


def result(*events: SseEvent) -> Json:
    """The response that a client gets when the stream ends after these events and a stop."""
    return response(run(decoder("patch"), [*events, event(STOP), DONE]))


def items(*events: SseEvent) -> list[Json]:
    return [outline(item) for item in result(*events)["output"]]


def ended(output: Output) -> Ended:
    assert isinstance(output[-1], Ended)
    return output[-1]


# ------------------------------------------------------------------------------------------------------------ reasoning


@pytest.mark.parametrize(("first", "second"), [("reasoning", "reasoning_content"), ("reasoning_content", "reasoning")])
def test_reasoning_that_comes_in_two_fields_counts_once(first: str, second: str) -> None:
    """Some servers send every piece in both, so that clients of either kind see it; the first one is believed."""
    both = [delta(**{first: text, second: text}) for text in ("Let me ", "see.")]
    assert items(*both, delta(content="42")) == [
        {"reasoning": "Let me see.", "returned": {"field": first}},
        {"message": ["42"]},
    ]
    assert "warnings" not in result(*both, delta(content="42"))


@pytest.mark.parametrize(("first", "second"), [("reasoning", "reasoning_content"), ("reasoning_content", "reasoning")])
def test_reasoning_that_only_another_field_has_is_left_out_with_a_warning(first: str, second: str) -> None:
    got = result(delta(**{first: "Let me "}), delta(**{second: "see."}), delta(content="42"))
    assert [outline(item) for item in got["output"]] == [
        {"reasoning": "Let me ", "returned": {"field": first}},
        {"message": ["42"]},
    ]
    assert got["warnings"] == [f"'{second}' in the upstream's answer was left out: it has no counterpart."]


def test_reasoning_goes_on_until_something_else_is_said() -> None:
    stream = decoder()
    assert [one.type for one in stream.feed(delta(reasoning="a")) if isinstance(one, Event)] == [
        "response.output_item.added",
        "response.reasoning_summary_part.added",
        "response.reasoning_summary_text.delta",
    ]
    assert [one.type for one in stream.feed(delta(reasoning="b")) if isinstance(one, Event)] == [
        "response.reasoning_summary_text.delta"
    ]
    done = [one for one in stream.feed(delta(content="x")) if isinstance(one, Event) and one.item]
    assert [outline(json.loads(one.item)) for one in done] == [{"reasoning": "ab", "returned": {"field": "reasoning"}}]


def test_reasoning_says_whose_it_is() -> None:
    (item, _) = result(delta(reasoning="a"), delta(content="x"))["output"]
    assert item["encrypted_content"] == seal(CHAT, '{"field":"reasoning"}')


def test_a_detail_grows_as_long_as_its_type_and_index_are_the_same() -> None:
    pieces = [
        {"type": "reasoning.text", "index": 0, "text": "Let ", "signature": None},
        {"type": "reasoning.text", "index": 0, "text": "me.", "signature": "s", "format": "f"},
        {"type": "reasoning.text", "index": 0, "text": None, "signature": None},
        {"type": "reasoning.encrypted", "index": 0, "data": "a"},
        {"type": "reasoning.encrypted", "index": 0, "data": "b", "id": "r"},
        {"type": "reasoning.encrypted", "index": 1, "data": "c"},
        {"type": "reasoning.encrypted", "index": 1, "data": 7},
    ]
    (reasoning, _) = items(*(delta(reasoning_details=[piece]) for piece in pieces), delta(content="x"))
    assert reasoning == {
        "reasoning": "",
        "returned": {
            "details": [
                {"type": "reasoning.text", "index": 0, "text": "Let me.", "signature": "s", "format": "f"},
                {"type": "reasoning.encrypted", "index": 0, "data": "ab", "id": "r"},
                {"type": "reasoning.encrypted", "index": 1, "data": 7},
            ]
        },
    }


def test_details_with_other_ids_are_others() -> None:
    pieces = [
        {"type": "reasoning.encrypted", "index": 0, "id": "a", "data": "A"},
        {"type": "reasoning.encrypted", "index": 0, "id": "a", "data": "A"},
        {"type": "reasoning.encrypted", "index": 0, "data": "A"},
        {"type": "reasoning.encrypted", "index": 0, "id": "b", "data": "B"},
    ]
    (reasoning, _) = items(*(delta(reasoning_details=[piece]) for piece in pieces), delta(content="x"))
    assert [(detail["id"], detail["data"]) for detail in reasoning["returned"]["details"]] == [("a", "AAA"), ("b", "B")]


def test_thinking_in_the_content_is_reasoning_without_a_field_to_go_back_in() -> None:
    thinking = {"type": "thinking", "thinking": [{"type": "text", "text": "Let "}, "me", 7, {"type": "text"}]}
    parts = [thinking, {"type": "text", "text": "42"}, {"type": "reference", "ids": [1]}]
    assert items(delta(content=parts)) == [{"reasoning": "Let me", "returned": {}}, {"message": ["42"]}]


# -------------------------------------------------------------------------------------------------------------- content


def test_text_and_refusals_are_parts_of_one_message() -> None:
    said = [delta(content="a"), delta(content="b"), delta(refusal="no"), delta(content="c")]
    assert items(*said) == [{"message": ["ab", "!no", "c"]}]


@pytest.mark.parametrize("nothing", [None, "", [], {}])
@pytest.mark.parametrize("field", ["content", "refusal", "reasoning", "tool_calls", "audio"])
def test_an_empty_field_says_nothing(field: str, nothing: object) -> None:
    """Not even one that is not known."""
    got = result(delta(content="a"), delta(**{field: nothing}), delta(content="b"))
    assert ([outline(item) for item in got["output"]], got.get("warnings")) == ([{"message": ["ab"]}], None)


def test_a_field_without_a_counterpart_is_left_out_with_a_warning() -> None:
    assert result(delta(content="a"), delta(audio={"id": "x"}), delta(audio={"id": "y"}))["warnings"] == [
        "'audio' in the upstream's answer was left out: it has no counterpart."
    ]


def choice(index: int, text: str) -> SseEvent:
    return event({"choices": [{"index": index, "delta": {"content": text}}]})


@pytest.mark.parametrize(("first", "other"), [(0, 1), (1, 0), (-1, 2)])
def test_of_several_answers_the_first_is_taken(first: int, other: int) -> None:
    cut = event({"choices": [{"index": other, "delta": {"content": "b"}, "finish_reason": "length"}]})
    stop = event({"choices": [{"index": first, "finish_reason": "stop"}]})
    got = response(run(decoder(), [choice(first, "a"), cut, choice(first, "c"), stop, DONE]))
    assert got["status"] == "completed"
    assert [outline(item) for item in got["output"]] == [{"message": ["ac"]}]
    assert got["warnings"] == ["The upstream gave more than one answer: the first is here."]


@pytest.mark.parametrize("cut", ["", None])
def test_logprobs_of_a_part_of_a_character_wait_for_its_text(cut: str | None) -> None:
    """OpenAI sends an empty text for a token that does not complete a character; null is no text but another field."""
    tokens: list[Json] = [{"token": token, "logprob": -0.5, "bytes": [], "top_logprobs": []} for token in ("x", "y")]
    chunks = [
        event({"choices": [{"delta": {"content": cut}, "logprobs": {"content": tokens[:1]}}]}),
        event({"choices": [{"delta": {"content": "é"}, "logprobs": {"content": tokens[1:]}}]}),
        delta(content="z"),
    ]
    assert items(*chunks) == [{"message": ["éz"], "logprobs": tokens if cut == "" else tokens[1:]}]


def test_logprobs_belong_to_the_text_they_came_with() -> None:
    token = {"token": "a", "logprob": -0.5}
    full = {"token": "b", "logprob": -1.5, "bytes": [98], "top_logprobs": [{"token": "c", "logprob": -2.5}]}
    chunks = [
        event({"choices": [{"delta": {"content": "a"}, "logprobs": {"content": [token]}}]}),
        event({"choices": [{"delta": {"content": "b"}, "logprobs": {"content": [full]}}]}),
        event({"choices": [{"delta": {"content": "c"}, "logprobs": {"content": None}}]}),
        event({"choices": [{"delta": {"content": "d"}, "logprobs": None}]}),
    ]
    assert items(*chunks) == [
        {
            "message": ["abcd"],
            "logprobs": [
                {"token": "a", "logprob": -0.5, "bytes": [], "top_logprobs": []},
                {
                    "token": "b",
                    "logprob": -1.5,
                    "bytes": [98],
                    "top_logprobs": [{"token": "c", "logprob": -2.5, "bytes": []}],
                },
            ],
        }
    ]


def test_an_event_of_another_api_is_left_out_with_a_warning() -> None:
    other = SseEvent("content_block_delta", b'{"type":"content_block_delta","delta":{"type":"text_delta","text":"x"}}')
    got = result(delta(content="a"), other, SseEvent("ping", b'{"type":"ping"}'))
    assert [outline(item) for item in got["output"]] == [{"message": ["a"]}]
    assert got["warnings"] == ["'content_block_delta' in the upstream's answer was left out: it has no counterpart."]


@pytest.mark.parametrize("content", [7, True, [7], [["x"]]])
def test_content_that_is_no_text_breaks_the_answer(content: object) -> None:
    message = "The upstream's answer cannot be read: a chunk is no JSON of a known shape."
    assert ended(run(decoder(), [delta(content=content)])).error == Failure("upstream_protocol_error", message)


@pytest.mark.parametrize("calls", [7, "x", [7], [{"function": "x"}]])
def test_calls_that_are_none_break_the_answer(calls: object) -> None:
    assert ended(run(decoder(), [delta(tool_calls=calls)])).status == "failed"


@pytest.mark.parametrize(
    ("field", "value"),
    [("refusal", 7), ("reasoning", [7]), ("reasoning_content", True), ("reasoning_details", "x")],
)
def test_a_field_beside_the_answer_that_cannot_be_read_is_left_out_with_a_warning(field: str, value: object) -> None:
    got = result(delta(content="a", **{field: value}), delta(content="b"))
    assert [outline(item) for item in got["output"]] == [{"message": ["ab"]}]
    assert got["warnings"] == [f"'{field}' in the upstream's answer was left out: it cannot be read."]


def test_the_old_form_of_a_call_may_hold_half_a_character() -> None:
    old = [delta(function_call={"name": "look", "arguments": part}) for part in ('{"a":"\ud83d', '\ude00"}')]
    (call,) = items(*old)
    assert call["call"][1:] == ["look", '{"a":"\U0001f600"}']


# ---------------------------------------------------------------------------------------------------------------- calls


def test_calls_grow_by_their_index_however_they_are_mixed() -> None:
    events = [
        calls({"index": 0, "id": "a", "function": {"name": "look", "arguments": ""}}),
        calls({"index": 1, "id": "b", "function": {"name": "read", "arguments": '{"x"'}}),
        calls({"index": 0, "function": {"arguments": "{}"}}, {"index": 1, "function": {"arguments": ":1}"}}),
    ]
    assert items(*events) == [{"call": ["a", "look", "{}"]}, {"call": ["b", "read", '{"x":1}']}]


def test_a_new_id_is_a_new_call_at_an_index_that_was_used() -> None:
    events = [
        calls({"index": 0, "id": "a", "function": {"name": "look", "arguments": "{"}}),
        calls({"index": 0, "id": "a", "function": {"arguments": "}"}}),
        calls({"index": 0, "id": "b", "function": {"name": "read", "arguments": "[]"}}),
    ]
    assert items(*events) == [{"call": ["a", "look", "{}"]}, {"call": ["b", "read", "[]"]}]


def test_without_an_index_an_id_begins_a_call_and_what_has_none_goes_on() -> None:
    events = [
        calls({"id": "a", "function": {"name": "look", "arguments": "{"}}),
        calls({"function": {"arguments": "}"}}),
        calls({"id": "b", "function": {"name": "read", "arguments": "[]"}}),
    ]
    assert items(*events) == [{"call": ["a", "look", "{}"]}, {"call": ["b", "read", "[]"]}]


def test_an_id_may_come_after_its_call_began() -> None:
    """What came before the name is not lost."""
    events = [
        calls({"index": 0, "function": {"arguments": "{"}}),
        calls({"index": 0, "id": "a", "function": {"arguments": ""}}),
        calls({"index": 0, "function": {"name": "look", "arguments": "}"}}),
    ]
    assert items(*events) == [{"call": ["a", "look", "{}"]}]


def test_arguments_may_be_an_object_or_missing() -> None:
    events = [
        calls({"index": 0, "id": "a", "function": {"name": "look", "arguments": {"x": [1]}}}),
        calls({"index": 1, "id": "b", "function": {"name": "read", "arguments": None}}),
        calls({"index": 2, "id": "c", "function": {"name": "read"}}, {"index": 2}),
    ]
    assert items(*events) == [
        {"call": ["a", "look", '{"x":[1]}']},
        {"call": ["b", "read", "{}"]},
        {"call": ["c", "read", "{}"]},
    ]


def test_the_old_form_of_a_call_has_one_at_most() -> None:
    old = [delta(function_call={"name": "look", "arguments": "{"}), delta(function_call={"arguments": "}"})]
    (call,) = items(*old)
    assert call["call"][1:] == ["look", "{}"]
    assert call["call"][0]


def test_a_custom_tool_gets_its_one_argument_as_its_input() -> None:
    assert items(calls({"index": 0, "id": "a", "function": {"name": "patch", "arguments": '{"input":"x"}'}})) == [
        {"custom": ["a", "patch", "x"]}
    ]


def test_what_a_provider_wants_back_with_a_call_stands_before_it() -> None:
    signed = {"google": {"thought_signature": "s"}}
    got = items(
        calls({"index": 0, "id": "a", "function": {"name": "look", "arguments": "{}"}, "extra_content": signed})
    )
    assert got == [{"reasoning": "", "returned": {"calls": {"a": signed}}}, {"call": ["a", "look", "{}"]}]


def test_a_call_without_a_name_breaks_the_answer() -> None:
    failed = ended(run(decoder(), [calls({"index": 0, "id": "a", "function": {"arguments": "{}"}}), event(STOP)]))
    message = "The upstream's answer cannot be read: a tool call has no name."
    assert failed.error == Failure("upstream_protocol_error", message)


# -------------------------------------------------------------------------------------------------------------- the end


@pytest.mark.parametrize(("reason", "cut"), FINISH.items())
def test_a_reason_to_stop_that_is_known(reason: str, cut: str | None) -> None:
    end = event({"choices": [{"delta": {"content": "a"}, "finish_reason": reason}]})
    status = "completed" if cut is None else "incomplete"
    got = response(run(decoder(), [end, DONE]))
    details = None if cut is None else {"reason": cut}
    assert (got["status"], got["incomplete_details"], got.get("warnings")) == (status, details, None)
    assert [item["status"] for item in got["output"]] == [status]


def test_a_reason_to_stop_that_is_not_known_counts_as_an_end_with_a_warning() -> None:
    end = event({"choices": [{"delta": {}, "finish_reason": "x" * 50}]})
    got = response(run(decoder(), [delta(content="a"), end, DONE]))
    assert got["status"] == "completed"
    assert got["warnings"] == [f"The upstream stopped for a reason that is not known here: '{'x' * 40}'."]


@pytest.mark.parametrize("reason", ["error", "insufficient_system_resource"])
def test_a_reason_to_stop_can_be_a_failure(reason: str) -> None:
    end = event({"choices": [{"delta": {}, "finish_reason": reason}, {"index": 0, "delta": {"content": "b"}}]})
    failed = ended(run(decoder(), [delta(content="a"), end, DONE]))
    assert (failed.status, failed.error) == (
        "failed",
        Failure("upstream_error", "The upstream stopped with an error."),
    )


def test_what_comes_after_a_reason_to_stop_belongs_to_the_answer() -> None:
    late = event({"choices": [{"delta": {"content": "b"}}], "usage": {"prompt_tokens": 3, "completion_tokens": 2}})
    got = response(run(decoder(), [delta(content="a"), event(STOP), late, DONE]))
    assert [outline(item) for item in got["output"]] == [{"message": ["ab"]}]
    assert (got["usage"]["input_tokens"], got["usage"]["output_tokens"]) == (3, 2)


def test_what_comes_after_a_reason_to_stop_is_sent_at_once() -> None:
    stream = decoder()
    stream.feed(finished("stop", content="One,"))
    assert b'"delta":" two,"' in b"".join(
        one.data for one in stream.feed(finished("stop", content=" two,")) if isinstance(one, Event)
    )


@pytest.mark.parametrize("nothing", ["", "null", "None", " ", 0, False])
def test_a_reason_to_stop_that_says_nothing_is_none(nothing: Any) -> None:  # noqa: ANN401 - any JSON value
    assert ended(run(decoder(), [finished(nothing, content="a")])).status == "failed"
    got = response(run(decoder(), [finished(nothing, content="a"), finished(nothing), DONE]))
    assert (got["status"], got["warnings"]) == ("completed", ["The upstream did not say why it stopped."])


@pytest.mark.parametrize(
    ("reasons", "status"),
    [
        (["stop", "length"], "incomplete"),
        (["length", "stop"], "incomplete"),
        (["length", "content_filter"], "incomplete"),
        (["stop", "strange"], "completed"),
    ],
)
def test_that_the_answer_was_cut_short_is_not_taken_back(reasons: list[str], status: str) -> None:
    assert ended(run(decoder(), [delta(content="a"), *map(finished, reasons), DONE])).status == status


def test_a_reason_to_stop_is_void_once_the_answer_goes_on() -> None:
    went_on = [finished("length", content="a"), delta(content="b")]
    assert ended(run(decoder(), went_on)).error == Failure(
        "upstream_protocol_error", "The upstream's stream stopped before its end."
    )
    assert ended(run(decoder(), [*went_on, finished("stop"), DONE])).status == "completed"
    assert ended(run(decoder(), [*went_on, DONE])).status == "incomplete"


USAGE = event({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}})


@pytest.mark.parametrize(
    ("events", "awaited"),
    [
        ([delta(content="a")], "answer"),
        ([delta(content="a"), USAGE], "answer"),
        ([delta(content="a"), finished("stop")], "usage"),
        ([delta(content="a"), finished("stop"), USAGE], "end"),
        ([delta(content="a"), event({**STOP, "usage": {"prompt_tokens": 1}})], "end"),
        ([delta(content="a"), finished("stop"), event({"choices": [], "usage": {}})], "usage"),
        ([delta(content="a"), finished("stop"), USAGE, delta(role="assistant", content="")], "end"),
        ([delta(content="a"), finished("stop"), USAGE, delta(content="b")], "answer"),
        # A server that was wrong once, or that counts in every chunk, says nothing about its end.
        ([finished("stop", content="a"), finished("stop", content="b"), USAGE], "usage"),
        ([USAGE, delta(content="a"), finished("stop"), USAGE], "usage"),
        ([USAGE, delta(content="a"), finished("stop")], "usage"),
    ],
)
def test_what_is_still_to_come(events: list[SseEvent], awaited: str) -> None:
    stream = decoder()
    for one in events:
        stream.feed(one)
    assert stream.awaited == awaited


def test_the_last_event_of_the_messages_api_ends_a_stream_too() -> None:
    last = SseEvent("message_stop", b'{"type":"message_stop"}')
    reader = decoder()
    reader.feed(delta(content="Hi"))
    assert ended(reader.feed(last)).status == "completed"


def test_done_without_a_reason_completes_the_answer_with_a_warning() -> None:
    got = response(run(decoder(), [delta(content="a"), SseEvent("", b" [DONE]\n")]))
    assert (got["status"], got["warnings"]) == ("completed", ["The upstream did not say why it stopped."])


def test_done_fails_the_turn_if_a_call_is_not_whole() -> None:
    failed = ended(run(decoder(), [calls({"index": 0, "id": "a"}), DONE]))
    assert failed.status == "failed"


def test_a_call_that_was_cut_off_before_its_name_is_left_out_with_a_warning() -> None:
    got = response(run(decoder(), [delta(content="a"), calls({"index": 0, "id": "c"}), finished("length"), DONE]))
    assert (got["status"], [outline(item) for item in got["output"]]) == (
        "incomplete",
        [{"message": ["a"], "cut": True}],
    )
    assert got["warnings"] == ["A call in the upstream's answer was left out: it was cut off before its name."]


HALF_CALL = calls({"index": 0, "id": "a", "function": {"name": "look", "arguments": '{"x":'}})


def test_a_call_that_is_not_whole_is_no_complete_answer_unless_its_stream_ends() -> None:
    """A model may write arguments that are no JSON; a stream that breaks off in them says nothing about that."""
    stream = decoder()
    for one in (HALF_CALL, finished("tool_calls"), USAGE):
        stream.feed(one)
    assert stream.awaited == "answer"
    assert ended(stream.end(truncated=True)).error == Failure(
        "upstream_error", "The connection to the upstream broke before its answer was complete."
    )
    for last in ([], [DONE]):
        assert ended(run(decoder(), [HALF_CALL, finished("tool_calls"), *last])).status == "completed"
    assert ended(run(decoder(), [HALF_CALL, finished("length")], truncated=True)).status == "incomplete"
    assert ended(run(decoder(), [HALF_CALL, DONE])).error == Failure(
        "upstream_protocol_error", "The upstream's stream stopped before its end."
    )


def test_a_stream_that_ends_without_done_is_fine_once_the_model_has_stopped() -> None:
    assert ended(run(decoder(), [delta(content="a"), event(STOP)])).status == "completed"
    assert ended(run(decoder(), [delta(content="a")])).error == Failure(
        "upstream_protocol_error", "The upstream's stream stopped before its end."
    )
    assert ended(run(decoder(), [delta(content="a")], truncated=True)).error == Failure(
        "upstream_error", "The connection to the upstream broke before its answer was complete."
    )


@pytest.mark.parametrize(
    "error",
    [
        event({"error": {"message": "Too many.", "type": "rate_limit_error"}}),
        SseEvent("error", b'{"message":"Too many.","type":"rate_limit_error"}'),
    ],
)
def test_an_error_in_the_stream_fails_the_turn(error: SseEvent) -> None:
    assert ended(run(decoder(), [delta(content="a"), error])).error == Failure("rate_limit_exceeded", "Too many.")


@pytest.mark.parametrize(
    ("told", "counted"),
    [
        ({}, usage(0, 0)),
        ({"prompt_tokens": 9, "completion_tokens": 4}, usage(9, 4)),
        (
            {
                "prompt_tokens": 9,
                "completion_tokens": 4,
                "prompt_tokens_details": {"cached_tokens": 5},
                "completion_tokens_details": {"reasoning_tokens": 3},
                "prompt_cache_hit_tokens": 7,
            },
            usage(9, 4, cached=5, reasoning=3),
        ),
        ({"prompt_tokens": 9, "completion_tokens": 4, "prompt_cache_hit_tokens": 7}, usage(9, 4, cached=7)),
        ({"prompt_tokens": 9, "prompt_tokens_details": {"cached_tokens": 50}}, usage(9, 0, cached=9)),
    ],
)
def test_usage(told: Json, counted: object) -> None:
    assert read_usage(told) == counted


def test_a_call_of_a_custom_tool_is_read_as_that_of_a_function() -> None:
    """Only a client of this API asks for one, and gets the provider's own chunks."""
    pieces = [{"index": 0, "id": "a", "custom": {"name": "say", "input": "he"}}, {"index": 0, "custom": {"input": "y"}}]
    output = run(decoder(), [*map(calls, pieces), finished("tool_calls"), DONE])
    assert [outline(item) for item in response(output)["output"]] == [{"call": ["a", "say", "hey"]}]
