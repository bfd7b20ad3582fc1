"""Items are read as typed values, each type as the struct that it has."""

from __future__ import annotations

import msgspec
import pytest

from segue.protocol.item_types import (
    ITEM_TYPES,
    ContentPart,
    CustomToolCallItem,
    FunctionCallItem,
    MessageItem,
    ReasoningItem,
    ReasoningText,
    ToolOutputItem,
    TypedItem,
    read_typed_item,
)
from segue.protocol.problems import Problem

PARTS = [{"type": "input_text", "text": "Hi"}, {"type": "input_image", "image_url": "http://x/y.png", "detail": "low"}]
READ_PARTS = [ContentPart("input_text", "Hi"), ContentPart("input_image", image_url="http://x/y.png", detail="low")]


@pytest.mark.parametrize(
    ("item", "read"),
    [
        ({"type": "message", "role": "user", "content": "Hi"}, MessageItem("user", "Hi")),
        ({"role": "assistant", "content": PARTS, "phase": "final"}, MessageItem("assistant", READ_PARTS, "final")),
        (
            {"type": "function_call", "call_id": "c", "name": "look", "arguments": "{}"},
            FunctionCallItem("c", "look", "{}"),
        ),
        (
            {"type": "custom_tool_call", "call_id": "c", "name": "patch", "input": "Hi"},
            CustomToolCallItem("c", "patch", "Hi"),
        ),
        ({"type": "function_call_output", "call_id": "c", "output": "done"}, ToolOutputItem("c", "done")),
        ({"type": "custom_tool_call_output", "call_id": "c", "output": PARTS}, ToolOutputItem("c", READ_PARTS)),
        (
            {"type": "reasoning", "summary": [{"type": "summary_text", "text": "So"}], "encrypted_content": "x"},
            ReasoningItem([ReasoningText("So")], None, "x"),
        ),
        (
            {"type": "reasoning", "content": [{"text": "So"}, {}]},
            ReasoningItem([], [ReasoningText("So"), ReasoningText()]),
        ),
    ],
)
def test_an_item_is_read_as_the_struct_of_its_type(item: dict[str, object], read: TypedItem) -> None:
    kind = str(item.get("type", "message"))
    assert read_typed_item(msgspec.json.encode(item), kind) == read
    assert type(read) is ITEM_TYPES[kind]


@pytest.mark.parametrize("kind", ["", "item_reference", "web_search_call", "compaction", "Message"])
def test_a_type_of_the_responses_api_alone_is_not_read(kind: str) -> None:
    """Not even as JSON: its bytes may be anything."""
    assert read_typed_item(b"{", kind) is None


def test_a_problem_says_where_the_item_is() -> None:
    item = b'{"type":"function_call","call_id":"c","name":7,"arguments":"{}"}'
    message = "Invalid type for '%s.name': expected a string, but got an integer instead."
    assert read_typed_item(item, "function_call") == Problem("invalid_type", message % "input", "input.name")
    assert read_typed_item(item, "function_call", "input[3]") == Problem(
        "invalid_type", message % "input[3]", "input[3].name"
    )


def test_a_text_stands_for_one_part() -> None:
    assert MessageItem("user", "Hi").parts() == [ContentPart("input_text", "Hi")]
    assert ToolOutputItem("c", "done").parts() == [ContentPart("input_text", "done")]
    assert MessageItem("user", READ_PARTS).parts() is READ_PARTS
    assert ToolOutputItem("c", READ_PARTS).parts() is READ_PARTS


def test_the_text_of_reasoning_is_its_summary_and_then_its_content() -> None:
    both = ReasoningItem([ReasoningText("a"), ReasoningText("b")], [ReasoningText("c")])
    assert (both.text, ReasoningItem([ReasoningText("a")]).text, ReasoningItem().text) == ("abc", "a", "")


@pytest.mark.parametrize(
    ("item", "read"),
    [
        (
            {"role": "user", "content": [{"type": "image_3d", "image_url": {"url": "x"}, "text": "a cube"}]},
            MessageItem("user", [ContentPart("image_3d", "a cube")]),
        ),
        (
            {"role": "assistant", "content": [{"type": "output_text", "text": "a", "annotations": {}}], "phase": "x"},
            MessageItem("assistant", [ContentPart("output_text", "a")], "x"),
        ),
        (
            {"type": "function_call_output", "call_id": "c", "output": [{"type": "x", "input_audio": "y"}, *PARTS]},
            ToolOutputItem("c", [ContentPart("x"), *READ_PARTS]),
        ),
    ],
)
def test_a_part_is_read_without_what_is_of_another_type(item: dict[str, object], read: TypedItem) -> None:
    """A provider may have said it, and a conversation must go on with it."""
    assert read_typed_item(msgspec.json.encode(item), str(item.get("type", "message"))) == read


@pytest.mark.parametrize(
    "item",
    [
        {"role": "user", "content": [{"type": 7}]},
        {"role": "user", "content": [{"text": "no type", "image_url": 7}]},
        {"role": "wizard", "content": [{"type": "x"}]},
        {"role": "user", "content": 7},
        {"role": "user"},
    ],
)
def test_what_has_no_type_or_role_is_a_problem(item: dict[str, object]) -> None:
    assert isinstance(read_typed_item(msgspec.json.encode(item), "message"), Problem)
