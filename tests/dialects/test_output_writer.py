"""The events of an output whose items may overlap at their source: here they end in their order."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.dialects.output_writer import InterleavedOutputWriter
from segue.protocol.events import Ended, Event, ItemStatus
from segue.protocol.ids import item_id
from segue.protocol.responses import usage
from tests.dialects.conversations import RESPONSE_ID, fold
from tests.dialects.golden import outline
from tests.strategies import examples

Json = dict[str, Any]


def writer() -> InterleavedOutputWriter:
    return InterleavedOutputWriter(RESPONSE_ID, frozenset({"patch"}))


def kinds(events: list[Event]) -> list[str]:
    return [event.type.removeprefix("response.") for event in events]


def folded(events: list[Event], status: ItemStatus = "completed") -> tuple[bytes, ...]:
    """The finished items of a response with this status, and every event is held to the protocol."""
    ended = (
        Ended("completed", usage(0, 0))
        if status == "completed"
        else Ended("incomplete", None, None, "max_output_tokens")
    )
    return fold([*events, ended]).output


def items(events: list[Event], status: ItemStatus = "completed") -> list[Json]:
    output = folded(events, status)
    return [outline(json.loads(item)) for item in output]


def test_a_message() -> None:
    writing = writer()
    assert kinds(writing.text("a")) == ["output_item.added", "content_part.added", "output_text.delta"]
    assert kinds(writing.text("b")) == ["output_text.delta"]
    assert kinds(writing.refusal("no")) == [
        *("output_text.done", "content_part.done"),
        *("content_part.added", "refusal.delta"),
    ]
    assert kinds(writing.end_part()) == ["refusal.done", "content_part.done"]
    assert writing.end_part() == []
    assert writing.said() == "abno"
    assert kinds(writing.end()) == ["output_item.done"]
    assert writing.end() == writing.end_part() == []


def test_the_events_of_a_message_in_full() -> None:
    writing = writer()
    events = [*writing.text("a", [{"token": "a"}]), *writing.end()]
    ident = item_id("msg", RESPONSE_ID, 0)
    place = {"item_id": ident, "output_index": 0, "content_index": 0}
    empty = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
    part = {"type": "output_text", "text": "a", "annotations": [], "logprobs": [{"token": "a"}]}
    item = {"id": ident, "type": "message", "role": "assistant"}
    begun = item | {"status": "in_progress", "content": []}
    done = item | {"status": "completed", "content": [part]}
    wanted = [
        {"type": "response.output_item.added", "output_index": 0, "item": begun},
        {"type": "response.content_part.added", **place, "part": empty},
        {"type": "response.output_text.delta", **place, "delta": "a", "logprobs": [{"token": "a"}]},
        {"type": "response.output_text.done", **place, "text": "a", "logprobs": [{"token": "a"}]},
        {"type": "response.content_part.done", **place, "part": part},
        {"type": "response.output_item.done", "output_index": 0, "item": done},
    ]
    assert [json.loads(event.data) for event in events] == [
        value | {"sequence_number": number} for number, value in enumerate(wanted, 2)
    ]
    assert [(event.type, event.sequence_number) for event in events] == [
        (value["type"], number) for number, value in enumerate(wanted, 2)
    ]
    assert [json.loads(event.item) for event in events if event.item] == [done]


def test_parts_of_a_message_are_counted() -> None:
    writing = writer()
    events = [*writing.text("a"), *writing.end_part(), *writing.text("b"), *writing.end()]
    places = [json.loads(event.data).get("content_index") for event in events]
    assert places == [None, 0, 0, 0, 0, 1, 1, 1, 1, None]
    assert items(events) == [{"message": ["a", "b"]}]


def test_empty_pieces_say_nothing() -> None:
    writing = writer()
    writing.start_call("k", writing.new_call_id("c"), "look")
    assert writing.text("") == writing.refusal("") == writing.reasoning("") == writing.arguments("k", "") == []


def test_reasoning_is_over_when_it_is_sealed() -> None:
    writing = writer()
    events = [*writing.reasoning("a"), *writing.reasoning("b"), *writing.seal("x"), *writing.reasoning("c")]
    assert kinds(events) == [
        *("output_item.added", "reasoning_summary_part.added"),
        *("reasoning_summary_text.delta", "reasoning_summary_text.delta"),
        *("reasoning_summary_text.done", "reasoning_summary_part.done", "output_item.done"),
        *("output_item.added", "reasoning_summary_part.added", "reasoning_summary_text.delta"),
    ]
    sealed, bare = [json.loads(event.item) for event in (*events, *writing.end()) if event.item]
    summary = [{"type": "summary_text", "text": "ab"}]
    assert sealed == {
        "id": item_id("rs", RESPONSE_ID, 0),
        "type": "reasoning",
        "status": "completed",
        "summary": summary,
        "encrypted_content": "x",
    }
    assert bare == {
        "id": item_id("rs", RESPONSE_ID, 1),
        "type": "reasoning",
        "status": "completed",
        "summary": [{"type": "summary_text", "text": "c"}],
    }


def test_what_is_sealed_without_words_is_an_item_of_its_own() -> None:
    writing = writer()
    assert kinds(writing.seal("x")) == ["output_item.added", "output_item.done"]


def test_the_end_of_reasoning_is_said_where_there_is_any() -> None:
    writing = writer()
    assert writing.end_reasoning() == []
    writing.reasoning("a")
    assert kinds(writing.end_reasoning())[-1] == "output_item.done"
    assert writing.end_reasoning() == []
    writing.text("b")
    assert writing.end_reasoning() == []


def test_something_else_ends_a_message_and_reasoning() -> None:
    writing = writer()
    events = [*writing.reasoning("a"), *writing.text("b"), *writing.reasoning("c"), *writing.text("d"), *writing.end()]
    assert [one.get("message", one.get("reasoning")) for one in items(events)] == ["a", ["b"], "c", ["d"]]


def test_calls_may_overlap_and_end_in_the_order_in_which_they_began() -> None:
    writing = writer()
    events = [*writing.start_call(0, "a", "look"), *writing.start_call(1, "b", "read")]
    events += [*writing.arguments(1, "{}"), *writing.arguments(0, "[")]
    assert [event for event in writing.end_call(1) if event.item] == []
    assert (writing.is_open(0), writing.is_open(1), writing.is_open(2)) == (True, False, False)
    events += writing.arguments(0, "]")
    ended = writing.end_call(0)
    assert len([event for event in ended if event.item]) == 2
    assert items([*events, *ended]) == [{"call": ["a", "look", "[]"]}, {"call": ["b", "read", "{}"]}]


def test_what_is_said_while_a_call_grows_ends_after_it() -> None:
    writing = writer()
    events = [*writing.start_call(0, "a", "look"), *writing.text("x"), *writing.arguments(0, "{}")]
    events += [*writing.end_call(0), *writing.end()]
    assert items(events) == [{"call": ["a", "look", "{}"]}, {"message": ["x"]}]


def test_a_call_without_arguments_has_an_empty_object_unless_it_was_cut_off() -> None:
    whole, cut = writer(), writer()
    assert items([*whole.start_call(0, "a", "look"), *whole.end_call(0)]) == [{"call": ["a", "look", "{}"]}]
    assert items([*cut.start_call(0, "a", "look"), *cut.end("incomplete")], "incomplete") == [
        {"call": ["a", "look", ""], "cut": True}
    ]


@pytest.mark.parametrize(
    ("arguments", "given_to_it"),
    [
        ('{"input":"x"}', "x"),
        ('{"input":"x\\ud83d"}', "x\ufffd"),
        ('{"input":"x","more":1}', "x"),
        ("x", "x"),
        ('{"input":1}', '{"input":1}'),
        ("", ""),
    ],
)
def test_a_custom_call_gets_its_input_when_its_arguments_are_over(arguments: str, given_to_it: str) -> None:
    writing = writer()
    events = writing.start_call(0, "a", "patch")
    assert writing.arguments(0, arguments) == []
    ended = writing.end_call(0)
    delta = ["custom_tool_call_input.delta"] if given_to_it else []
    assert kinds(ended) == [*delta, "custom_tool_call_input.done", "output_item.done"]
    assert items([*events, *ended]) == [{"custom": ["a", "patch", given_to_it]}]


def deltas(events: list[Event]) -> str:
    return "".join(json.loads(event.data)["delta"] for event in events if event.type.endswith(".delta"))


def test_a_placeholder_for_arguments_is_sent_only_if_nothing_replaces_it() -> None:
    writing = writer()
    events = [*writing.start_call(0, "a", "look"), *writing.start_call(1, "b", "look")]
    assert writing.arguments(0, "{}") == writing.arguments(1, "{}") == []
    events += writing.arguments(0, '{"x":1}')
    events += writing.end()
    assert items(events) == [{"call": ["a", "look", '{"x":1}']}, {"call": ["b", "look", "{}"]}]
    assert deltas(events) == '{"x":1}{}'


def test_arguments_that_go_on_are_noticed() -> None:
    writing = writer()
    writing.start_call(0, "a", "look")
    assert not writing.has_partial_call()
    writing.arguments(0, '{"x":')
    assert writing.has_partial_call()
    writing.arguments(0, "1}")
    assert (writing.has_partial_call(), writing.arguments_of(0).state()) == (False, "whole")


@pytest.mark.parametrize(
    ("pieces", "text"),
    [
        (["a\ud83d", "\ude00b"], "a\U0001f600b"),
        (["a\ud83d", "b"], "a\ufffdb"),
        (["a\ud83d"], "a\ufffd"),
        (["\ude00b"], "\ufffdb"),
        (["\ud83d", "\ude00"], "\U0001f600"),
    ],
)
def test_characters_that_were_cut_in_two_are_sent_whole(pieces: list[str], text: str) -> None:
    """Whatever they stand in; what is streamed is what stands at the end."""
    for what in ("text", "refusal", "reasoning", "arguments"):
        writing = writer()
        events = writing.start_call(0, "a", "look") if what == "arguments" else []
        for piece in pieces:
            events += writing.arguments(0, piece) if what == "arguments" else getattr(writing, what)(piece)
        events += writing.end()
        assert deltas(events) == text
        (item,) = items(events)
        assert {"text": [text], "refusal": ["!" + text]}.get(what, text) == (
            item["call"][2] if what == "arguments" else item["reasoning"] if what == "reasoning" else item["message"]
        )


def test_halves_of_characters_in_a_custom_call_are_joined() -> None:
    writing = writer()
    events = writing.start_call(0, "a", "patch")
    for piece in ('{"input":"\ud83d', '\ude00\ud83d"}'):
        events += writing.arguments(0, piece)
    assert items([*events, *writing.end()]) == [{"custom": ["a", "patch", "\U0001f600\ufffd"]}]


def test_only_the_last_item_can_be_cut_off() -> None:
    writing = writer()
    events = [*writing.start_call(0, "a", "look"), *writing.start_call(1, "b", "look"), *writing.end("incomplete")]
    assert items(events, "incomplete") == [{"call": ["a", "look", "{}"]}, {"call": ["b", "look", ""], "cut": True}]


def test_every_call_has_an_id_of_its_own() -> None:
    writing = writer()
    ids = [writing.new_call_id(name) for name in ("a", "a", "", "", "b")]
    assert ids[0] == "a"
    assert ids[4] == "b"
    assert len(set(ids)) == 5
    assert all(ids)


@given(
    steps=st.lists(
        st.one_of(
            st.tuples(st.sampled_from(["text", "refusal", "reasoning", "seal"]), st.text(max_size=2)),
            st.tuples(st.sampled_from(["end_part", "end_reasoning"])),
            st.tuples(st.just("start"), st.sampled_from(["look", "patch"])),
            st.tuples(st.sampled_from(["grow", "end"]), st.integers(0, 3)),
        ),
        max_size=20,
    ),
    status=st.sampled_from(["completed", "incomplete"]),
)
@settings(max_examples=examples(300))
def test_whatever_a_source_does_the_events_keep_the_protocol(steps: list[tuple[Any, ...]], status: ItemStatus) -> None:
    writing = writer()
    events: list[Event] = []
    made = 0
    for what, *value in steps:
        if what == "start":
            events += writing.start_call(made, writing.new_call_id("c"), value[0])
            made += 1
        elif what in ("grow", "end"):
            if writing.is_open(value[0]):
                events += writing.arguments(value[0], "{}") if what == "grow" else writing.end_call(value[0])
        else:
            events += getattr(writing, what)(*value)
    folded([*events, *writing.end(status)], status)
