"""Items are read as typed values, each type as the struct that it has."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
from tests.strategies import examples

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


@pytest.mark.parametrize("item", [b"[]", b"{", b'"text"', b"\xff", b"{" + b'"a":{' * 2000])
def test_what_is_no_object_is_a_problem(item: bytes) -> None:
    assert isinstance(read_typed_item(item, "function_call"), Problem)
    problem = read_typed_item(b"[]", "function_call", "input[3]")
    message = "Invalid type for 'input[3]': expected an object, but got an array instead."
    assert problem == Problem("invalid_type", message, "input[3]")
    assert read_typed_item(b"[]", "function_call") == read_typed_item(b"[]", "function_call", "input")


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
    ("item", "read"),
    [
        ({"role": "tool", "content": "hi"}, MessageItem("assistant", "hi")),
        ({"role": 7, "content": None, "phase": 7}, MessageItem("assistant", [])),
        ({"role": [7], "content": "hi"}, MessageItem("assistant", "hi")),
        ({"role": "user"}, MessageItem("user", [])),
        ({"role": "assistant", "content": ["hi"]}, MessageItem("assistant", [ContentPart("output_text", "hi")])),
        ({"role": "user", "content": {"text": "hi"}}, MessageItem("user", [ContentPart("output_text", "hi")])),
        ({"role": "assistant", "content": [{"type": 7}]}, MessageItem("assistant", [ContentPart("unknown")])),
        ({"role": "assistant", "content": 7}, MessageItem("assistant", [ContentPart("output_text", "7")])),
        ({"type": "function_call", "call_id": "c", "arguments": {"a": 1}}, FunctionCallItem("c", "unknown", '{"a":1}')),
        ({"type": "function_call", "name": "f", "arguments": None}, FunctionCallItem("", "f", "")),
        ({"type": "custom_tool_call", "call_id": "c", "name": "f", "input": [1]}, CustomToolCallItem("c", "f", "[1]")),
        ({"type": "custom_tool_call_output", "call_id": "c"}, ToolOutputItem("c", [])),
        ({"type": "reasoning", "summary": None, "content": "So", "encrypted_content": 7},
         ReasoningItem([], [ReasoningText("So")])),
        ({"type": "reasoning", "summary": [{"text": None}, {"text": "So"}, "on"], "content": {}},
         ReasoningItem([ReasoningText("So"), ReasoningText("on")])),
        ({"type": "reasoning", "summary": {}, "encrypted_content": "sealed"}, ReasoningItem([], None, "sealed")),
    ],
)  # fmt: skip
def test_what_a_provider_wrote_in_other_types_is_read_for_what_it_says(
    item: dict[str, object], read: TypedItem
) -> None:
    """No conversation ends because of it."""
    assert read_typed_item(msgspec.json.encode(item), str(item.get("type", "message"))) == read


fields = st.dictionaries(
    st.sampled_from(["role", "content", "phase", "call_id", "name", "arguments", "input", "output", "summary", "text"]),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=3),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["type", "text", "input_audio"]), inner)
        ),
        max_leaves=6,
    ),
)


@given(st.sampled_from(sorted(ITEM_TYPES)), fields)
@settings(max_examples=examples(1000))
def test_any_object_is_read_as_some_item(kind: str, item: dict[str, object]) -> None:
    read = read_typed_item(msgspec.json.encode(item), kind)
    assert type(read) is ITEM_TYPES[kind]
    assert read == msgspec.convert(msgspec.to_builtins(read), ITEM_TYPES[kind]), "of the types that it says"
