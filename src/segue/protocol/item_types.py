"""Items as typed values: one struct for each type of item that other APIs have too, and the one reader of them.

A dialect or a chat template that writes a history in another form reads its items here. Item types that only the
Responses API has are not read. Not here: the checks when an item arrives, which look at fewer fields (`items`), and
what becomes of an item elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import msgspec

from segue.protocol.codec import decode, encode
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
    if not isinstance(value, Problem):
        return value
    fields = decode(item, _objects, where)
    return value if isinstance(fields, Problem) else _LENIENT[kind](fields)


def _as_parts(content: str | list[ContentPart]) -> list[ContentPart]:
    return [ContentPart("input_text", content)] if isinstance(content, str) else content


# --- what is not as the API has it -----------------------------------------------------------------------------------

# What clients send is checked when it arrives. A provider may answer anything, and its item stays in the history: a
# conversation must not end because another provider cannot be told of it. So what has another type than the API gives
# it is read for what it says.

_ROLES: Mapping[str, Role] = {"user": "user", "assistant": "assistant", "system": "system", "developer": "developer"}
_PART_TYPES: Mapping[str, type] = {"input_audio": dict, "annotations": list}
_objects = msgspec.json.Decoder(dict[str, Any])

Fields = dict[str, Any]


def _read_message(fields: Fields) -> MessageItem:
    role, phase = fields.get("role"), fields.get("phase")
    known = _ROLES.get(role, "assistant") if isinstance(role, str) else "assistant"
    return MessageItem(known, _content(fields.get("content")), phase if isinstance(phase, str) else None)


def _read_call(fields: Fields) -> FunctionCallItem:
    return FunctionCallItem(_text(fields.get("call_id")), _name(fields), _text(fields.get("arguments")))


def _read_custom_call(fields: Fields) -> CustomToolCallItem:
    return CustomToolCallItem(_text(fields.get("call_id")), _name(fields), _text(fields.get("input")))


def _name(fields: Fields) -> str:
    """Return the name of a tool, which no API lets be empty."""
    return _text(fields.get("name")) or "unknown"


def _read_output(fields: Fields) -> ToolOutputItem:
    return ToolOutputItem(_text(fields.get("call_id")), _content(fields.get("output")))


def _read_reasoning(fields: Fields) -> ReasoningItem:
    summary, content = (_texts(fields.get(name)) for name in ("summary", "content"))
    sealed = fields.get("encrypted_content")
    return ReasoningItem(summary, content or None, sealed if isinstance(sealed, str) else None)


def _texts(value: object) -> list[ReasoningText]:
    return [ReasoningText(part.text) for part in _parts(value) if part.text is not None]


def _content(value: object) -> str | list[ContentPart]:
    return value if isinstance(value, str) else _parts(value)


def _parts(value: object) -> list[ContentPart]:
    """Return the parts that a value stands for; what is none is a text."""
    if value is None:
        return []
    return [
        _part(one) if isinstance(one, dict) else ContentPart("output_text", _text(one))
        for one in (value if isinstance(value, list) else [value])
    ]


def _part(fields: Fields) -> ContentPart:
    """Return a part without the fields that are of another type."""
    kept = {name: value for name, value in fields.items() if isinstance(value, _PART_TYPES.get(name, str))}
    return msgspec.convert({"type": "output_text" if "text" in kept else "unknown", **kept}, ContentPart)


def _text(value: object) -> str:
    """Return a text as it is, and another value as JSON."""
    if value is None:
        return ""
    return value if isinstance(value, str) else encode(value).decode()


_LENIENT: Mapping[str, Callable[[Fields], TypedItem]] = {
    "message": _read_message,
    "function_call": _read_call,
    "custom_tool_call": _read_custom_call,
    "function_call_output": _read_output,
    "custom_tool_call_output": _read_output,
    "reasoning": _read_reasoning,
}
