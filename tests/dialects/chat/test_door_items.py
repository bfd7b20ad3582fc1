"""What messages of Chat Completions say, as items."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from segue.dialects.chat.door_items import ReadMessages, read_messages, read_opening
from segue.dialects.sealed_reasoning import seal
from segue.protocol.problems import Problem
from tests.dialects.chat.doors import USER
from tests.dialects.conversations import CHAT, PIXEL

Json = dict[str, Any]


def raws(*messages: Json) -> list[msgspec.Raw]:
    return [msgspec.Raw(json.dumps(message).encode()) for message in messages]


def read(*messages: Json) -> ReadMessages:
    found = read_messages(raws(*messages))
    assert isinstance(found, ReadMessages), found
    return found


def items(*messages: Json) -> list[Json]:
    return [msgspec.json.decode(item) for item in read(*messages).input.items]


def problem(*messages: Json) -> tuple[str, str | None]:
    found = read_messages(raws(*messages))
    assert isinstance(found, Problem)
    return found.code, found.param


def call(ident: str = "a", name: str = "look", arguments: str = "{}") -> Json:
    return {"id": ident, "type": "function", "function": {"name": name, "arguments": arguments}}


def answer(*calls: Json, **fields: object) -> Json:
    return {"role": "assistant", "content": None, "tool_calls": list(calls), **fields}


def output(ident: str = "a", content: object = "seen") -> Json:
    return {"role": "tool", "tool_call_id": ident, "content": content}


def test_what_each_role_says() -> None:
    assert items(
        {"role": "system", "content": "Be brief."},
        {"role": "developer", "content": "Be kind."},
        USER,
        {"role": "assistant", "content": "Looking."},
    ) == [
        {"type": "message", "role": "system", "content": "Be brief."},
        {"type": "message", "role": "developer", "content": "Be kind."},
        {"type": "message", "role": "user", "content": "go"},
        {"type": "message", "role": "assistant", "content": "Looking."},
    ]


def test_the_parts_of_a_message() -> None:
    parts = [
        {"type": "text", "text": "see", "cache_control": {"type": "ephemeral"}},
        {"type": "image_url", "image_url": {"url": PIXEL, "detail": "low"}},
        {"type": "image_url", "image_url": {"url": PIXEL}},
        {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,AA=="}},
        {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}},
        {"type": "video_url", "text": "a film"},
    ]
    found = read({"role": "user", "content": parts})
    (item,) = found.input.items
    assert msgspec.json.decode(item)["content"] == [
        {"type": "input_text", "text": "see"},
        {"type": "input_image", "image_url": PIXEL, "detail": "low"},
        {"type": "input_image", "image_url": PIXEL},
        {"type": "input_file", "filename": "a.pdf", "file_data": "data:application/pdf;base64,AA=="},
        {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}},
        {"type": "video_url", "text": "a film"},
    ]
    assert found.warnings == ()


def test_an_answer_is_its_text_and_its_calls() -> None:
    custom = {"id": "b", "type": "custom", "custom": {"name": "patch", "input": "*** Begin"}}
    assert items(
        USER,
        answer(call(arguments='{"at":1}'), custom, content="Looking."),
        output("b", "patched"),
        output("a", [{"type": "text", "text": "seen"}]),
    )[1:] == [
        {"type": "message", "role": "assistant", "content": "Looking."},
        {"type": "function_call", "call_id": "a", "name": "look", "arguments": '{"at":1}'},
        {"type": "custom_tool_call", "call_id": "b", "name": "patch", "input": "*** Begin"},
        {"type": "custom_tool_call_output", "call_id": "b", "output": "patched"},
        {"type": "function_call_output", "call_id": "a", "output": [{"type": "input_text", "text": "seen"}]},
    ]


def test_what_a_request_holds_is_told_of_its_input() -> None:
    given = read(USER, answer(call(), call("b")), output("b"), output("a")).input
    assert given.calls == {"a", "b"}
    assert given.answers == ()
    assert given.answered == {"a", "b"}


@pytest.mark.parametrize(
    ("message", "content"),
    [
        ({"content": "", "refusal": "No."}, [{"type": "refusal", "refusal": "No."}]),
        (
            {"content": "Well,", "refusal": "no."},
            [{"type": "output_text", "text": "Well,"}, {"type": "refusal", "refusal": "no."}],
        ),
        ({"content": [{"type": "refusal", "refusal": "No."}]}, [{"type": "refusal", "refusal": "No."}]),
        ({"content": [{"type": "text", "text": "Yes."}]}, [{"type": "output_text", "text": "Yes."}]),
    ],
)
def test_a_refusal_is_a_part(message: Json, content: list[Json]) -> None:
    assert items(USER, {"role": "assistant", **message})[1]["content"] == content


def test_an_answer_that_says_nothing_is_no_item() -> None:
    assert items(USER, {"role": "assistant", "content": ""}, {"role": "assistant", "content": None}) == items(USER)


def test_a_call_may_have_the_id_of_one_that_has_its_output() -> None:
    """Some servers number the calls of each answer."""
    found = items(USER, answer(call()), output(), answer(call()), output("a", "again"))
    assert [item.get("output") for item in found if "output" in item] == ["seen", "again"]


def test_reasoning_goes_back_as_its_details_say_and_stands_where_it_stood() -> None:
    first, second = seal(CHAT, '{"a":1}'), seal(CHAT, '{"b":2}')
    details = [
        {"type": "reasoning.text", "text": "hm", "signature": first, "format": "segue-v1", "index": 0},
        {"type": "reasoning.encrypted", "data": second, "format": "segue-v1", "index": 2},
    ]
    message = answer(call(), call("b"), content="Looking.", reasoning_content="hm", reasoning_details=details)
    found = items(USER, message)[1:]
    assert [item["type"] for item in found] == [
        "reasoning",
        "message",
        "reasoning",
        "function_call",
        "function_call",
    ]
    assert found[0] == {
        "type": "reasoning",
        "summary": [{"type": "summary_text", "text": "hm"}],
        "encrypted_content": first,
    }
    assert found[2] == {"type": "reasoning", "summary": [], "encrypted_content": second}


def test_details_without_a_place_stand_first() -> None:
    sealed = seal(CHAT, "{}")
    details = [{"signature": sealed, "text": "one"}, {"signature": sealed, "text": "two"}]
    kinds = [item["type"] for item in items(USER, answer(call(), reasoning_details=details))[1:]]
    assert kinds == ["reasoning", "reasoning", "function_call"]


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_shown_reasoning_is_told_for_what_it_is(field: str) -> None:
    found = items(USER, answer(call(), **{field: "hm"}))[1]
    assert found == {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]}


def test_details_of_another_server_are_left_out_with_a_warning() -> None:
    details = [{"type": "reasoning.encrypted", "data": "gAAAA", "index": 0}]
    found = read(USER, answer(call(), reasoning_details=details, reasoning="hm"))
    assert [key.kind for key in found.input.keys] == ["reasoning", "function_call"]
    assert "'reasoning_details'" in found.warnings[0]


def test_fields_that_no_item_has_are_left_out_with_a_warning_each() -> None:
    found = read(
        {"role": "user", "name": "bob", "content": [{"type": "text", "text": "x", "mood": 1}]},
        {"role": "assistant", "content": "y", "audio": None, "annotations": [], "name": "", "mood": 1},
        {"role": "user", "name": "eve", "content": "z", "cache_control": {"type": "ephemeral"}},
    )
    named = [warning.split("'")[1] for warning in found.warnings]
    assert named == ["name", "content.mood", "mood"]


@pytest.mark.parametrize(
    ("messages", "code", "param"),
    [
        ([{"role": "wizard", "content": "x"}], "invalid_value", "messages[0].role"),
        ([{"content": "x"}], "missing_required_parameter", "messages[0].role"),
        ([USER, {"role": "user"}], "missing_required_parameter", "messages[1].content"),
        ([{"role": "user", "content": 1}], "invalid_type", "messages[0].content"),
        (
            [{"role": "user", "content": [{"type": "text"}]}],
            "missing_required_parameter",
            "messages[0].content[0].text",
        ),
        (
            [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}],
            "invalid_type",
            "messages[0].content[0].image_url",
        ),
        ([{"role": "function", "name": "f", "content": "x"}], "unsupported_parameter", "messages[0].role"),
        (
            [{"role": "assistant", "function_call": {"name": "f", "arguments": ""}}],
            "unsupported_parameter",
            "messages[0].function_call",
        ),
        ([answer({"id": "a", "type": "function"})], "missing_required_parameter", "messages[0].tool_calls[0].function"),
        ([answer({"id": "a", "type": "custom"})], "missing_required_parameter", "messages[0].tool_calls[0].custom"),
        (
            [{"role": "assistant", "content": [{"type": "text"}]}],
            "missing_required_parameter",
            "messages[0].content[0].text",
        ),
        ([{"role": "tool", "content": "x"}], "missing_required_parameter", "messages[0].tool_call_id"),
        ([output()], "invalid_value", "messages[0].tool_call_id"),
        ([answer(call()), output(), output()], "invalid_value", "messages[2].tool_call_id"),
        ([answer(call()), output("b")], "invalid_value", "messages[1].tool_call_id"),
        ([answer(call()), output("a", None)], "missing_required_parameter", "messages[1].content"),
        ([1], "invalid_type", "messages[0]"),
    ],
)
def test_what_is_wrong_is_told_by_its_place(messages: list[Json], code: str, param: str | None) -> None:
    found, where = problem(*messages)
    assert (found, where) == (code, param)


def test_the_opening_tells_conversations_apart() -> None:
    spoke: Json = {"role": "assistant", "content": "x"}
    system: Json = {"role": "system", "content": "Be brief."}
    opening, replayed = read_opening(raws(system, USER))
    assert not replayed
    assert read_opening(raws(system, USER, spoke, USER)) == (opening, True)
    assert read_opening(raws(system, USER, spoke, USER, spoke)) == (opening, True)
    assert read_opening(raws(USER, spoke))[0] != opening
    assert read_opening([msgspec.Raw(b"1")])[1] is False
