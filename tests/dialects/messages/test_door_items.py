"""Messages as items: every block becomes what says the same, or is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from segue.dialects.messages.door_items import FAILED_NOTE, is_from_model, read_messages, system_text
from segue.protocol.items import Input
from segue.protocol.problems import Problem
from segue.protocol.request_size import DEFAULT_LIMITS, RequestLimits

Json = dict[str, Any]


def read(*messages: Json) -> list[Json]:
    given = read_messages(json.dumps(messages).encode(), DEFAULT_LIMITS)
    assert isinstance(given, Input), given
    return [json.loads(item) for item in given.items]


def refused(*messages: Json) -> Problem:
    problem = read_messages(json.dumps(messages).encode(), DEFAULT_LIMITS)
    assert isinstance(problem, Problem)
    return problem


def user(*blocks: Json | str) -> Json:
    return {"role": "user", "content": list(blocks)}


def text(said: str) -> Json:
    return {"type": "input_text", "text": said}


PNG = {"type": "base64", "media_type": "image/png", "data": "AAAA"}


def test_a_tool_session_becomes_items_in_its_order() -> None:
    """Thinking keeps its signature, and blocks that stand together become one message."""
    items = read(
        {"role": "user", "content": "hi"},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "Hm.", "signature": "sig"},
                {"type": "redacted_thinking", "data": "xyz"},
                {"type": "text", "text": "A", "citations": None},
                {"type": "text", "text": "B"},
                {"type": "tool_use", "id": "t1", "name": "f", "input": {"a": [1, 2]}},
            ],
        },
        user({"type": "tool_result", "tool_use_id": "t1", "content": "out"}, {"type": "text", "text": "go on"}),
        {"role": "system", "content": [{"type": "text", "text": "note"}]},
    )
    said = [{"type": "output_text", "text": word, "annotations": []} for word in "AB"]
    assert items == [
        {"type": "message", "role": "user", "content": [text("hi")]},
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Hm."}], "encrypted_content": "sig"},
        {"type": "reasoning", "summary": [], "encrypted_content": "xyz"},
        {"type": "message", "role": "assistant", "content": said},
        {"type": "function_call", "call_id": "t1", "name": "f", "arguments": '{"a": [1, 2]}'},
        {"type": "function_call_output", "call_id": "t1", "output": "out"},
        {"type": "message", "role": "user", "content": [text("go on")]},
        {"type": "message", "role": "system", "content": [text("note")]},
    ]


@pytest.mark.parametrize(
    ("block", "parts"),
    [
        ({"type": "image", "source": PNG}, [{"type": "input_image", "image_url": "data:image/png;base64,AAAA"}]),
        ({"type": "image", "source": {"type": "url", "url": "u"}}, [{"type": "input_image", "image_url": "u"}]),
        (
            {"type": "document", "source": {**PNG, "media_type": "application/pdf"}, "title": "T"},
            [{"type": "input_file", "filename": "T", "file_data": "data:application/pdf;base64,AAAA"}],
        ),
        ({"type": "document", "source": {"type": "url", "url": "u"}}, [{"type": "input_file", "file_url": "u"}]),
        (
            {"type": "document", "source": {"type": "text", "data": "D"}, "title": "T", "context": "C"},
            [text('<document title="T">\nC\nD\n</document>')],
        ),
        (
            {"type": "document", "source": {"type": "content", "content": [{"type": "text", "text": "D"}]}},
            [text("<document>\nD\n</document>")],
        ),
        (
            {
                "type": "search_result",
                "title": "T",
                "content": [{"type": "text", "text": "D"}, {"type": "image", "source": PNG}],
            },
            [
                text('<search_result title="T">\nD'),
                {"type": "input_image", "image_url": "data:image/png;base64,AAAA"},
                text("\n</search_result>"),
            ],
        ),
    ],
)
def test_what_a_user_shows_becomes_parts(block: Json, parts: list[Json]) -> None:
    assert read(user(block)) == [{"type": "message", "role": "user", "content": parts}]


@pytest.mark.parametrize(
    ("result", "output"),
    [
        ({}, ""),
        ({"content": []}, ""),
        ({"content": "x", "is_error": False}, "x"),
        ({"content": [{"type": "text", "text": "x"}]}, "x"),
        ({"content": [{"type": "text", "text": "x"}, {"type": "text", "text": "y"}]}, [text("x"), text("y")]),
        ({"is_error": True}, FAILED_NOTE),
        ({"content": "x", "is_error": True}, [text(FAILED_NOTE), text("x")]),
        (
            {"content": [{"type": "image", "source": PNG}]},
            [{"type": "input_image", "image_url": "data:image/png;base64,AAAA"}],
        ),
        ({"content": [{"type": "tool_reference", "tool_name": "f"}]}, '{"type": "tool_reference", "tool_name": "f"}'),
    ],
)
def test_the_result_of_a_tool_becomes_its_output(result: Json, output: object) -> None:
    items = read(
        {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "f"}]},
        user({"type": "tool_result", "tool_use_id": "t", **result}),
    )
    assert items[0]["arguments"] == "{}"
    assert items[1]["output"] == output


def test_what_the_provider_ran_itself_is_a_call_and_its_output() -> None:
    blocks = [
        {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"q": "x"}},
        {"type": "web_search_tool_result", "tool_use_id": "s", "content": [{"url": "u"}]},
    ]
    call, output = read({"role": "assistant", "content": blocks})
    assert (call["name"], output["call_id"]) == ("web_search", "s")
    assert json.loads(output["output"]) == [{"url": "u"}]


@pytest.mark.parametrize(
    ("block", "param"),
    [
        ({"type": "container_upload", "file_id": "f"}, "messages[0].content[0].type"),
        ({"type": "text"}, "messages[0].content[0].text"),
        ({"text": "x"}, "messages[0].content[0].type"),
        ({"type": "tool_use", "name": "f"}, "messages[0].content[0].id"),
        ({"type": "tool_use", "id": "t"}, "messages[0].content[0].name"),
        ({"type": "tool_result"}, "messages[0].content[0].tool_use_id"),
        ({"type": "tool_result", "tool_use_id": "t", "content": 1}, "messages[0].content[0].content"),
        (
            {"type": "tool_result", "tool_use_id": "t", "content": [{"type": 1}]},
            "messages[0].content[0].content[0].type",
        ),
        (
            {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "image", "source": {"type": "file"}}]},
            "messages[0].content[0].content[0].source",
        ),
        ({"type": "image", "source": {"type": "file", "file_id": "f"}}, "messages[0].content[0].source"),
        ({"type": "image"}, "messages[0].content[0].source"),
        ({"type": "document", "source": {"type": "file", "file_id": "f"}}, "messages[0].content[0].source"),
        ({"type": "search_result", "content": 1}, "messages[0].content[0]"),
        ({"type": "search_result", "content": [{"type": 1}]}, "messages[0].content[0].content[0].type"),
        ([[[]]], "messages[0].content[0]"),
    ],
)
def test_what_no_other_model_can_read_is_refused(block: object, param: str) -> None:
    problem = refused({"role": "user", "content": [block]})
    assert problem.param == param or problem.code == "invalid_json"


def test_what_is_no_list_of_messages_is_refused() -> None:
    assert refused({"role": "tool", "content": "x"}).code == "invalid_value"
    assert refused(user({"type": "text", "text": "x" * 3}, json.loads("[" * 70 + "]" * 70))).code == "invalid_json"
    many = read_messages(json.dumps([{"role": "user", "content": "x"}] * 3).encode(), RequestLimits(items=2))
    assert isinstance(many, Problem)
    assert many.param == "input"


@pytest.mark.parametrize(
    ("system", "said"),
    [
        (None, ""),
        ("S", "S"),
        ([{"type": "text", "text": "x-anthropic-billing-header: cch=1;"}, {"type": "text", "text": "S"}], "S"),
        ([{"type": "text", "text": "S"}, {"type": "text", "text": ""}, {"type": "text", "text": "T"}], "S\n\nT"),
        (1, ""),
    ],
)
def test_the_system_prompt_is_a_text_without_what_is_for_billing(system: object, said: str) -> None:
    assert system_text(json.dumps(system).encode()) == said


def test_messages_of_the_model_are_told_from_others() -> None:
    assert is_from_model(b'{"content":[],"role":"assistant"}')
    assert not is_from_model(b'{"role":"user"}')
    assert not is_from_model(b"[]")
