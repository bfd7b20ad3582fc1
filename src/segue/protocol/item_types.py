"""Items as typed values: one struct for each type of item that other APIs have too, and the one reader of them.

A dialect or a chat template that writes a history in another form reads its items here. Item types that only the
Responses API has are not read. Not here: the checks when an item arrives, which look at fewer fields (`items`), and
what becomes of an item elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from segue.protocol.codec import decode
from segue.protocol.problems import Problem

Role = Literal["user", "assistant", "system", "developer"]


#: The types of parts that are text and nothing else.
TEXT_PARTS = frozenset({"input_text", "output_text", "text", "summary_text", "reasoning_text"})


class ContentPart(msgspec.Struct):
    """One part of a message or of a tool's output; which fields it has depends on its `type`."""

    type: str
    text: str | None = None
    refusal: str | None = None
    image_url: str | None = None
    detail: str | None = None
    file_id: str | None = None
    file_data: str | None = None
    file_url: str | None = None
    filename: str | None = None
    input_audio: dict[str, Any] | None = None
    annotations: list[Any] | None = None


class MessageItem(msgspec.Struct):
    """A `message` of any role."""

    role: Role
    content: str | list[ContentPart]
    phase: str | None = None

    def parts(self) -> list[ContentPart]:
        """Return the content as parts."""
        return _as_parts(self.content)


class FunctionCallItem(msgspec.Struct):
    """A `function_call`; `arguments` is the JSON text that the model wrote."""

    call_id: str
    name: str
    arguments: str


class CustomToolCallItem(msgspec.Struct):
    """A `custom_tool_call`; `input` is plain text."""

    call_id: str
    name: str
    input: str


class ToolOutputItem(msgspec.Struct):
    """A `function_call_output` or a `custom_tool_call_output`."""

    call_id: str
    output: str | list[ContentPart]

    def parts(self) -> list[ContentPart]:
        """Return the output as parts."""
        return _as_parts(self.output)


class ReasoningText(msgspec.Struct):
    """One part of a reasoning item."""

    text: str = ""


class ReasoningItem(msgspec.Struct):
    """A `reasoning` item; its text stands in its summary or in its content."""

    summary: list[ReasoningText] = []
    content: list[ReasoningText] | None = None
    encrypted_content: str | None = None

    @property
    def text(self) -> str:
        """The reasoning in words."""
        return "".join(part.text for part in (*self.summary, *(self.content or ())))


TypedItem = MessageItem | FunctionCallItem | CustomToolCallItem | ToolOutputItem | ReasoningItem

#: The struct of each type of item.
ITEM_TYPES: Mapping[str, type[TypedItem]] = {
    "message": MessageItem,
    "function_call": FunctionCallItem,
    "custom_tool_call": CustomToolCallItem,
    "function_call_output": ToolOutputItem,
    "custom_tool_call_output": ToolOutputItem,
    "reasoning": ReasoningItem,
}
_decoders: Mapping[str, msgspec.json.Decoder[TypedItem]] = {
    kind: msgspec.json.Decoder(struct) for kind, struct in ITEM_TYPES.items()
}


def read_typed_item(item: bytes, kind: str, where: str = "input") -> TypedItem | Problem | None:
    """Read an item of type `kind`; None for a type that is not in `ITEM_TYPES`.

    `where` is the place of the item in the request, for the `param` of a problem.
    """
    decoder = _decoders.get(kind)
    if decoder is None:
        return None
    value = decode(item, decoder, where)
    if isinstance(value, Problem) and kind in _PARTS_OF:
        return _read_leniently(item, kind) or value
    return value


def _read_leniently(item: bytes, kind: str) -> TypedItem | None:
    """Read an item without the fields of its parts that are of another type than the API's. None if that does not help.

    An item of a provider, or a part of a type that is not known here, may have such fields. Whoever writes the history
    in another form says what was left out.
    """
    fields, name = decode(item, _objects), _PARTS_OF[kind]
    if isinstance(fields, Problem) or not isinstance(fields.get(name), list):
        return None
    parts = [_well_typed(part) for part in fields[name] if isinstance(part, dict)]
    try:
        return msgspec.convert({**fields, name: parts}, ITEM_TYPES[kind])
    except msgspec.ValidationError:
        return None


def _well_typed(part: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in part.items() if isinstance(value, _PART_TYPES.get(name, str))}


#: Where an item has its parts.
_PARTS_OF: Mapping[str, str] = {
    "message": "content",
    "function_call_output": "output",
    "custom_tool_call_output": "output",
}
_PART_TYPES: Mapping[str, type] = {"input_audio": dict, "annotations": list}
_objects = msgspec.json.Decoder(dict[str, Any])


def _as_parts(content: str | list[ContentPart]) -> list[ContentPart]:
    return [ContentPart("input_text", content)] if isinstance(content, str) else content
