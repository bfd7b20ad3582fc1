"""Items as the few kinds that every API has."""

from __future__ import annotations

import json
from typing import Any

import pytest

from segue.dialects.items import (
    DataUrl,
    call_arguments,
    custom_arguments,
    data_url,
    image_url,
    read_item,
    unknown_fields,
)
from segue.protocol.item_types import ContentPart, FunctionCallItem, MessageItem, ToolOutputItem
from segue.protocol.problems import Problem, unreadable_compaction

Json = dict[str, Any]


def read(item: Json) -> object:
    return read_item(json.dumps(item).encode(), item["type"])


@pytest.mark.parametrize(
    ("item", "value"),
    [
        ({"type": "message", "role": "user", "content": "Hi"}, MessageItem("user", "Hi")),
        (
            {"type": "custom_tool_call", "call_id": "c", "name": "patch", "input": 'say "Hi"'},
            FunctionCallItem("c", "patch", '{"input":"say \\"Hi\\""}'),
        ),
        (
            {"type": "shell_call", "id": "i", "status": "completed", "call_id": "c", "action": {"commands": ["ls"]}},
            FunctionCallItem("c", "shell", '{"action":{"commands":["ls"]}}'),
        ),
        ({"type": "shell_call_output", "call_id": "c", "output": "a.txt"}, ToolOutputItem("c", "a.txt")),
        ({"type": "shell_call_output", "call_id": "c", "output": [{"a": 1}]}, ToolOutputItem("c", '[{"a":1}]')),
        ({"type": "shell_call_output", "call_id": "c"}, ToolOutputItem("c", "null")),
        (
            {"type": "shell_call_output", "call_id": "c", "output": "a", "status": "completed", "max": None},
            ToolOutputItem("c", "a"),
        ),
        (
            {"type": "shell_call_output", "call_id": "c", "output": "a", "status": "failed"},
            ToolOutputItem("c", '{"output":"a","status":"failed"}'),
        ),
        (
            {"type": "apply_patch_call_output", "call_id": "c", "status": "failed"},
            ToolOutputItem("c", '{"status":"failed"}'),
        ),
        ({"type": "local_shell_call_output", "id": "c", "output": "a"}, ToolOutputItem("c", "a")),
        ({"type": "tool_search_output", "call_id": "c", "tools": []}, ToolOutputItem("c", '{"tools":[]}')),
        (
            {
                "type": "computer_call_output",
                "call_id": "c",
                "output": {"type": "computer_screenshot", "image_url": "u"},
            },
            ToolOutputItem("c", [ContentPart("input_image", image_url="u")]),
        ),
        (
            {
                "type": "computer_call_output",
                "call_id": "c",
                "output": {"type": "computer_screenshot", "image_url": "u"},
                "status": "failed",
            },
            ToolOutputItem(
                "c", [ContentPart("input_image", image_url="u"), ContentPart("input_text", '{"status":"failed"}')]
            ),
        ),
        (
            {"type": "computer_call_output", "call_id": "c", "output": {"type": "computer_screenshot", "file_id": "f"}},
            ToolOutputItem("c", '{"type":"computer_screenshot","file_id":"f"}'),
        ),
    ],
)
def test_a_call_of_any_tool_is_a_function_call_and_its_output_an_output(item: Json, value: object) -> None:
    assert read(item) == value


@pytest.mark.parametrize(
    "item",
    [
        {"type": "web_search_call", "id": "i"},
        {"type": "shell_call", "call_id": 7},
        {"type": "shell_call_output", "id": "i"},
        {"type": "mcp_list_tools", "call_id": "c"},
    ],
)
def test_what_has_no_counterpart_is_none(item: Json) -> None:
    assert read(item) is None


@pytest.mark.parametrize("kind", ["compaction", "compaction_summary"])
def test_what_stands_for_a_history_that_cannot_be_read_is_refused(kind: str) -> None:
    assert read({"type": kind, "encrypted_content": "x"}) == unreadable_compaction()


def test_what_cannot_be_read_is_a_problem() -> None:
    assert isinstance(read_item(b"[]", "function_call"), Problem)
    assert isinstance(read_item(b"[]", "shell_call"), Problem)


@pytest.mark.parametrize(
    ("item", "names"),
    [
        ({"type": "message", "role": "user", "content": "x", "phase": "p", "id": "i", "status": "s"}, []),
        ({"type": "message", "role": "user", "content": "x", "created_by": "u", "new": 1, "old": None}, ["new"]),
        ({"type": "message", "content": [{"type": "t", "logprobs": [], "new": 1, "old": None}]}, ["content.new"]),
        ({"type": "function_call", "call_id": "c", "name": "n", "arguments": "", "namespace": "s"}, ["namespace"]),
        ({"type": "function_call_output", "output": [{"type": "t"}, {"type": "t", "new": 1}]}, ["output.new"]),
        ({"type": "reasoning", "summary": [], "content": [], "encrypted_content": "x", "more": 0}, ["more"]),
        ({"type": "message", "role": "user", "content": ["no part", {"new": 1}], "more": 0}, ["more"]),
        ({"type": "shell_call", "action": {}}, []),
    ],
)
def test_fields_without_a_place_elsewhere_are_named(item: Json, names: list[str]) -> None:
    assert unknown_fields(json.dumps(item).encode(), item["type"]) == names


def test_what_is_no_object_has_no_fields() -> None:
    assert unknown_fields(b"[]", "message") == []


@pytest.mark.parametrize(
    ("url", "read"),
    [
        ("data:image/PNG;base64,AAAA", DataUrl("image/png", "AAAA")),
        ("data:text/plain;charset=utf-8;base64,AA,A\nA", DataUrl("text/plain", "AA,A\nA")),
        ("data:;base64,AAAA", DataUrl("", "AAAA")),
        ("data:text/plain,AAAA", None),
        ("data:text/plain,;base64,AAAA", None),
        ("https://example.com/a.png", None),
        ("", None),
    ],
)
def test_a_data_url_is_taken_apart(url: str, read: DataUrl | None) -> None:
    assert data_url(url) == read


def test_the_input_of_a_custom_tool_is_the_one_argument_of_its_function() -> None:
    assert json.loads(custom_arguments("a\n")) == {"input": "a\n"}


@pytest.mark.parametrize(
    ("arguments", "sent"),
    [
        ("{}", "{}"),
        ('{ "a": 1.50 }', '{ "a": 1.50 }'),
        ("", "{}"),
        (" \n", "{}"),
        ('{"a": "lo', '{"arguments":"{\\"a\\": \\"lo"}'),
        ("[1]", '{"arguments":"[1]"}'),
        ("null", '{"arguments":"null"}'),
        ('{"a":' * 63 + "[]" + "}" * 63, '{"a":' * 63 + "[]" + "}" * 63),
        (
            '{"a":' * 99 + "1" + "}" * 99,
            json.dumps({"arguments": '{"a":' * 99 + "1" + "}" * 99}, separators=(",", ":")),
        ),
        ('{"a": "' + "[" * 99 + '"}', '{"a": "' + "[" * 99 + '"}'),
        ('{"a":' + "[" * 99 + "]" * 99 + "}", '{"arguments":"{\\"a\\":' + "[" * 99 + "]" * 99 + '}"}'),
        ("\ud83d", '{"arguments":"?"}'),
        ('{"a":"\\ud83d"}', '{"a":"\\ufffd"}'),
        ('{"a":"\\ud83d', '{"arguments":"{\\"a\\":\\"\\\\ufffd"}'),
    ],
)
def test_arguments_are_an_object_for_every_server(arguments: str, sent: str) -> None:
    assert call_arguments(arguments) == sent
    assert isinstance(json.loads(sent), dict)


@pytest.mark.parametrize(
    ("url", "sent"),
    [
        ("data:image/jpg;base64,AAAA", "data:image/jpeg;base64,AAAA"),
        ("DATA:image/JPG;x=y;base64,AAAA", "data:image/jpeg;x=y;base64,AAAA"),
        (" data: image/pjpeg ;base64,AAAA", "data:image/jpeg;base64,AAAA"),
        ("data:image/x-png;base64,AAAA", "data:image/png;base64,AAAA"),
        ("data:image/PNG;base64,AAAA", "data:image/png;base64,AAAA"),
        ("data:image/png;base64,AAAA", "data:image/png;base64,AAAA"),
        ("https://example.com/image/jpg;base64,", "https://example.com/image/jpg;base64,"),
        ("data:;base64,AAAA", "data:;base64,AAAA"),
        ("data:image/jpg", "data:image/jpg"),
    ],
)
def test_the_media_type_of_an_image_has_its_registered_name(url: str, sent: str) -> None:
    assert image_url(url) == sent


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("data:image/jpg;base64,AAAA", DataUrl("image/jpeg", "AAAA")),
        (" DATA:Image/X-PNG;name=a;BASE64,AAAA", DataUrl("image/png", "AAAA")),
        ("data:image/png,AAAA", None),
        ("https://example.com/;base64,AAAA", None),
    ],
)
def test_a_data_url_is_read_however_it_is_written(url: str, found: DataUrl | None) -> None:
    assert data_url(url) == found
