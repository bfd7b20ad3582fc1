"""The events of items that came without them: all that a client of this API relies on, in order."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segue.dialects.interface import Output
from segue.dialects.responses.item_events import (
    UnannouncedItem,
    added,
    done,
    lacks_nothing,
    normal,
    rest_of_item,
    text_of,
    whole_item,
)
from segue.protocol.events import Ended, Event, ItemStatus
from segue.protocol.responses import usage
from tests.dialects.conversations import response
from tests.strategies import json_values

Json = dict[str, Any]
NOTE = {"type": "url_citation", "start_index": 0, "end_index": 2, "url": "https://example.com", "title": "x"}


def part(text: str, **fields: object) -> Json:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": [], **fields}


def shown(events: list[Event]) -> list[Json]:
    """The output of a response with these events, each of which is held to the protocol."""
    output: Output = [*events, Ended("incomplete", usage(1, 1), None, "max_output_tokens")]
    return [*response(output)["output"]]


def whole(item: Json, status: ItemStatus = "completed") -> Json:
    read = normal(item, "made", "call_made", status)
    assert read is not None
    (made,) = shown(whole_item(read, 0))
    assert made == read
    return read


@pytest.mark.parametrize(
    ("item", "made"),
    [
        (
            {"type": "message", "id": "m", "role": "assistant", "status": "completed", "content": [part("Hi")]},
            {"type": "message", "id": "m", "role": "assistant", "status": "completed", "content": [part("Hi")]},
        ),
        (
            {"type": "message", "content": "Hi"},
            {"type": "message", "id": "made", "role": "assistant", "status": "completed", "content": [part("Hi")]},
        ),
        (
            {"type": "message", "id": 7, "role": 7, "content": None, "status": "in_progress"},
            {"type": "message", "id": "made", "role": "assistant", "status": "completed", "content": []},
        ),
        (
            {
                "type": "message",
                "id": "m",
                "content": [part("Hi", annotations=[NOTE]), part(""), {"type": "refusal", "refusal": "No"}],
            },
            {
                "type": "message",
                "id": "m",
                "role": "assistant",
                "status": "completed",
                "content": [part("Hi", annotations=[NOTE]), part(""), {"type": "refusal", "refusal": "No"}],
            },
        ),
        (
            {"type": "function_call", "name": "look", "arguments": {"a": 1}},
            {
                "type": "function_call",
                "id": "made",
                "call_id": "call_made",
                "name": "look",
                "arguments": '{"a":1}',
                "status": "completed",
            },
        ),
        (
            {"type": "function_call", "id": "f", "call_id": "c", "name": "look"},
            {
                "type": "function_call",
                "id": "f",
                "call_id": "c",
                "name": "look",
                "arguments": "{}",
                "status": "completed",
            },
        ),
        (
            {"type": "custom_tool_call", "id": "t", "call_id": "c", "name": "patch"},
            {
                "type": "custom_tool_call",
                "id": "t",
                "call_id": "c",
                "name": "patch",
                "input": "",
                "status": "completed",
            },
        ),
        (
            {"type": "reasoning", "content": None, "encrypted_content": "x"},
            {"type": "reasoning", "id": "made", "summary": [], "encrypted_content": "x"},
        ),
        (
            {
                "type": "reasoning",
                "id": "r",
                "summary": [{"type": "summary_text", "text": "hm"}],
                "content": [{"type": "reasoning_text", "text": "open"}],
            },
            {
                "type": "reasoning",
                "id": "r",
                "summary": [{"type": "summary_text", "text": "hm"}],
                "content": [{"type": "reasoning_text", "text": "open"}],
            },
        ),
    ],
)
def test_an_item_that_came_whole(item: Json, made: Json) -> None:
    assert whole(item) == made


def test_only_an_item_that_is_cut_is_incomplete() -> None:
    assert whole({"type": "message", "content": "Hi"}, "incomplete")["status"] == "incomplete"
    assert whole({"type": "message", "content": "Hi", "status": "incomplete"})["status"] == "incomplete"
    assert "status" not in whole({"type": "reasoning", "id": "r"}, "incomplete")


@pytest.mark.parametrize("kind", ["function_call", "custom_tool_call"])
@pytest.mark.parametrize("name", [None, "", 7])
def test_a_call_without_a_name_is_none(kind: str, name: object) -> None:
    assert normal({"type": kind, "call_id": "c", "name": name}, "made", "call", "completed") is None


def test_an_item_of_another_type_begins_and_ends_as_it_is() -> None:
    item = {"type": "web_search_call", "id": "ws", "status": "completed", "action": {"query": "q"}}
    assert normal(item, "made", "call", "completed") == item
    first, last = whole_item(item, 3)
    assert json.loads(first.data) == {"type": "response.output_item.added", "output_index": 3, "item": item}
    assert json.loads(last.data) == {"type": "response.output_item.done", "output_index": 3, "item": item}
    assert json.loads(last.item) == item
    assert last == done(item, 3)
    assert first == added(item, 3)


def test_what_encrypts_reasoning_is_told_at_its_end_only() -> None:
    first, *_, last = whole_item({"type": "reasoning", "id": "r", "summary": [], "encrypted_content": "x"}, 0)
    assert b"encrypted_content" not in first.data
    assert b"encrypted_content" in last.data


def test_a_part_of_another_type_has_no_events() -> None:
    item = {
        "type": "message",
        "id": "m",
        "role": "assistant",
        "status": "completed",
        "content": [{"type": "hologram"}, 7],
    }
    assert [event.type for event in whole_item(item, 0)] == ["response.output_item.added", "response.output_item.done"]


@pytest.mark.parametrize(
    ("item", "text"),
    [
        ({"type": "message", "content": [part("a"), {"type": "refusal", "refusal": "b"}, 7, {"text": 7}]}, "ab"),
        ({"type": "message", "content": "a"}, "a"),
        ({"type": "reasoning", "summary": [{"text": "a"}], "content": [{"text": "b"}]}, "ab"),
        ({"type": "function_call", "arguments": "x"}, "x"),
        ({"type": "function_call", "arguments": {"a": 1}}, '{"a":1}'),
        ({"type": "function_call", "arguments": None}, "{}"),
        ({"type": "custom_tool_call", "input": "x"}, "x"),
        ({"type": "custom_tool_call"}, ""),
        ({}, ""),
    ],
)
def test_the_text_of_an_item(item: Json, text: str) -> None:
    assert text_of(item) == text


@pytest.mark.parametrize(
    ("last", "missing"),
    [
        (
            "",
            [
                "content_part.added",
                "output_text.delta",
                "output_text.annotation.added",
                "output_text.done",
                "content_part.done",
            ],
        ),
        (
            "content_part.added",
            ["output_text.delta", "output_text.annotation.added", "output_text.done", "content_part.done"],
        ),
        ("output_text.delta", ["output_text.annotation.added", "output_text.done", "content_part.done"]),
        ("output_text.annotation.added", ["output_text.done", "content_part.done"]),
        ("output_text.done", ["content_part.done"]),
        ("new_thing", []),
    ],
)
def test_what_is_missing_of_a_message_is_told_by_what_came_last(last: str, missing: list[str]) -> None:
    item = {"type": "message", "id": "m", "content": [part("Hi", annotations=[NOTE])]}
    came = f"response.{last}" if last else ""
    assert not lacks_nothing("message", came)
    assert [event.type for event in rest_of_item(item, 0, came)] == [f"response.{name}" for name in missing]
    assert rest_of_item({**item, "content": []}, 0, came) == []


def test_what_is_missing_of_a_call_is_told_by_what_came_last() -> None:
    item = {"type": "function_call", "id": "f", "name": "look", "arguments": "{}"}
    name = "response.function_call_arguments"
    assert [event.type for event in rest_of_item(item, 0, "")] == [f"{name}.delta", f"{name}.done"]
    assert [event.type for event in rest_of_item(item, 0, f"{name}.delta")] == [f"{name}.done"]
    assert rest_of_item(item, 0, "response.new_thing") == []
    custom = {"type": "custom_tool_call", "id": "t", "name": "patch", "input": ""}
    assert [event.type for event in rest_of_item(custom, 0, "")] == ["response.custom_tool_call_input.done"]


def test_an_item_that_ended_as_it_should_lacks_nothing() -> None:
    assert lacks_nothing("message", "response.content_part.done")
    assert lacks_nothing("reasoning", "response.reasoning_summary_part.done")
    assert lacks_nothing("function_call", "response.function_call_arguments.done")
    assert lacks_nothing("web_search_call", "")
    assert not lacks_nothing("function_call", "")


# --- items that were not announced -----------------------------------------------------------------------------------


def finished(item: UnannouncedItem, events: list[Event], last: Json, status: ItemStatus = "completed") -> Json:
    more, made = item.finish(last, status)
    (told,) = shown([*events, *more, done(made, 0)])
    assert told == made
    return made


def test_a_text_that_grows() -> None:
    item = UnannouncedItem("message", "m", 0)
    events = [event for text in ("Hel", "", "lo") for event in item.add("response.output_text", 0, text)]
    assert item.text == "Hello"
    message = {"type": "message", "id": "m", "role": "assistant", "status": "completed", "content": [part("Hello")]}
    assert finished(item, events, {"content": "Hello"}) == message


def test_the_end_may_say_more_and_show_notes() -> None:
    item = UnannouncedItem("message", "m", 0)
    last = {"type": "message", "id": "x", "content": [part("Hello", annotations=[NOTE])], "phase": "final_answer"}
    made = finished(item, item.add("response.output_text", None, "Hel"), last, "incomplete")
    assert made == {
        "type": "message",
        "id": "m",
        "role": "assistant",
        "status": "incomplete",
        "content": [part("Hello", annotations=[NOTE])],
        "phase": "final_answer",
    }


def test_an_item_that_was_announced_is_not_announced_again() -> None:
    item = UnannouncedItem("message", "m", 0, begun=True)
    events, made = item.finish({"content": "Hi"}, "completed")
    assert events[0].type == "response.content_part.added"
    assert made["content"] == [part("Hi")]


def test_parts_follow_each_other() -> None:
    item = UnannouncedItem("message", "m", 0)
    events = [*item.add("response.output_text", 0, "a"), *item.add("response.output_text", 1, "b")]
    events += item.add("response.refusal", 1, "No")
    assert finished(item, events, {"content": "abNo"})["content"] == [
        part("a"),
        part("b"),
        {"type": "refusal", "refusal": "No"},
    ]


def test_reasoning_has_a_summary_and_a_text() -> None:
    item = UnannouncedItem("reasoning", "r", 0)
    events = [*item.add("response.reasoning_summary_text", 0, "hm"), *item.add("response.reasoning_text", 0, "open")]
    last = {"type": "reasoning", "summary": "hmopen", "encrypted_content": "x"}
    assert finished(item, events, last) == {
        "type": "reasoning",
        "id": "r",
        "encrypted_content": "x",
        "summary": [{"type": "summary_text", "text": "hm"}],
        "content": [{"type": "reasoning_text", "text": "open"}],
    }


def test_a_whole_text_adds_what_is_missing() -> None:
    item = UnannouncedItem("message", "m", 0)
    events = item.add("response.output_text", 0, "Hel")
    events += item.complete("response.output_text", 0, "Hello")
    assert item.complete("response.output_text", 0, "Hello") == item.complete("response.output_text", 0, "Bye") == []
    events += item.complete("response.output_text", 1, "!")
    assert finished(item, events, {"content": "Hello!"})["content"] == [part("Hello"), part("!")]


@given(
    st.dictionaries(
        st.sampled_from(["id", "role", "status", "content", "summary", "name", "arguments", "input", "call_id"]),
        json_values,
    )
)
def test_any_item_is_written(fields: Json) -> None:
    for kind in ("message", "reasoning", "function_call", "custom_tool_call", "web_search_call"):
        item = normal({**fields, "type": kind}, "made", "call", "completed")
        if item is not None:
            *_, last = whole_item(item, 0)
            assert json.loads(last.item)["id"]
