"""Items as the dialects read them that write another API: typed, one struct for each kind that has a counterpart.

Kinds that no API but Responses has are read as plain objects. Not here: what becomes of an item in a dialect.
"""

from __future__ import annotations

import re
from typing import Any, Literal, TypeVar

import msgspec

from segue.dialects.output_writer import CUSTOM_ARGUMENT
from segue.protocol.codec import decode, encode
from segue.protocol.items import Item
from segue.protocol.problems import Problem, unsupported

T = TypeVar("T")


class Part(msgspec.Struct):
    """One part of a message or of a tool's output."""

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


class Message(msgspec.Struct):
    """A message of any role."""

    role: Literal["user", "assistant", "system", "developer"]
    content: str | list[Part]
    phase: str | None = None

    def parts(self) -> list[Part]:
        """Return the content as parts."""
        return parts_of(self.content)


class Call(msgspec.Struct):
    """A call of a function."""

    call_id: str
    name: str
    arguments: str


class _CustomCall(msgspec.Struct):
    call_id: str
    name: str
    input: str


class Output(msgspec.Struct):
    """What a tool answered."""

    call_id: str
    output: str | list[Part]

    def parts(self) -> list[Part]:
        """Return the output as parts."""
        return parts_of(self.output)


class _Texts(msgspec.Struct):
    text: str = ""


class Reasoning(msgspec.Struct):
    """Reasoning, with its text wherever it stands."""

    summary: list[_Texts] = []
    content: list[_Texts] | None = None
    encrypted_content: str | None = None

    @property
    def text(self) -> str:
        """The reasoning in words."""
        return "".join(part.text for part in (*self.summary, *(self.content or ())))


_messages = msgspec.json.Decoder(Message)
_calls = msgspec.json.Decoder(Call)
_custom_calls = msgspec.json.Decoder(_CustomCall)
_outputs = msgspec.json.Decoder(Output)
_reasonings = msgspec.json.Decoder(Reasoning)
_objects = msgspec.json.Decoder(dict[str, Any])

Read = Message | Call | Output | Reasoning | None

#: Fields that are read, or that are about the item and not for the model. What else there is, is said to be left out.
_OWN = frozenset({"type", "id", "status", "created_by"})
_KNOWN: dict[str, frozenset[str]] = {
    "message": _OWN | {"role", "content", "phase"},
    "function_call": _OWN | {"call_id", "name", "arguments"},
    "custom_tool_call": _OWN | {"call_id", "name", "input"},
    "function_call_output": _OWN | {"call_id", "output"},
    "custom_tool_call_output": _OWN | {"call_id", "output"},
    "reasoning": _OWN | {"summary", "content", "encrypted_content"},
}
_PART_FIELDS = frozenset({*Part.__struct_fields__, "logprobs"})
_NULL = msgspec.Raw(b"null")
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])
_part_fields = msgspec.json.Decoder(list[dict[str, msgspec.Raw]])

#: Items that stand for what came before them, in a form that only their provider can read.
_COMPACTIONS = frozenset({"compaction", "compaction_summary"})
_NOT_ARGUMENTS = frozenset({"id", "type", "status", "call_id", "output"})
_NOT_ANSWERS = frozenset({"id", "type", "call_id", "output"})
_DATA_URL = re.compile(r"data:(?P<media>[^;,]*)(?:;[^,]*)?,(?P<data>.*)", re.DOTALL)


class DataUrl(msgspec.Struct, frozen=True):
    """A `data:` URL: its media type, and its data as it stands there (base64)."""

    media: str
    data: str


def data_url(url: str) -> DataUrl | None:
    """Take a `data:` URL apart; None if it is none, or not one of base64."""
    found = _DATA_URL.match(url)
    if found is None or ";base64," not in url[: found.start("data")]:
        return None
    return DataUrl(found["media"].lower(), found["data"])


def parts_of(content: str | list[Part]) -> list[Part]:
    """Return content as parts."""
    return [Part("input_text", content)] if isinstance(content, str) else content


def read_item(item: Item, kind: str) -> Read | Problem:
    """Read an item of a type; None for a type that has no counterpart in other APIs."""
    match kind:
        case "message":
            return decode(item, _messages, "input")
        case "function_call":
            return decode(item, _calls, "input")
        case "custom_tool_call":
            call = decode(item, _custom_calls, "input")
            return call if isinstance(call, Problem) else Call(call.call_id, call.name, custom_arguments(call.input))
        case "function_call_output" | "custom_tool_call_output":
            return decode(item, _outputs, "input")
        case "reasoning":
            return decode(item, _reasonings, "input")
        case _:
            return _read_other(item, kind)


def unknown_fields(item: Item, kind: str) -> list[str]:
    """Return the fields of an item, and of its parts, that no other API has a place for."""
    known = _KNOWN.get(kind)
    if known is None:
        return []
    fields = decode(item, _fields)
    if isinstance(fields, Problem):
        return []
    names = [name for name, value in fields.items() if name not in known and value != _NULL]
    for where in ("content", "output"):
        parts = decode(bytes(fields.get(where, _NULL)), _part_fields)  # a text has none
        for part in () if isinstance(parts, Problem) else parts:
            names += [f"{where}.{name}" for name, value in part.items() if name not in _PART_FIELDS and value != _NULL]
    return names


def custom_arguments(text: str) -> str:
    """Return the arguments of the function that stands for a custom tool."""
    return encode({CUSTOM_ARGUMENT: text}).decode()


def _read_other(item: Item, kind: str) -> Read | Problem:
    """Read a call of a tool that has a type of its own (a shell, a computer): as a function with the type's name."""
    if kind in _COMPACTIONS:
        return unsupported("input", "a compacted history can only be read by the provider that compacted it")
    fields = decode(item, _objects, "input")
    if isinstance(fields, Problem):
        return fields
    call_id = fields.get("call_id")
    if call_id is None and kind == "local_shell_call_output":
        call_id = fields.get("id")  # this one has the id of its call there
    if not isinstance(call_id, str):
        return None
    if kind.endswith("_call"):
        arguments = {name: value for name, value in fields.items() if name not in _NOT_ARGUMENTS}
        return Call(call_id, kind.removesuffix("_call"), encode(arguments).decode())
    if kind.endswith("_call_output") or kind == "tool_search_output":
        return Output(call_id, _answer(fields))
    return None


def _answer(fields: dict[str, Any]) -> str | list[Part]:
    """Return what a tool answered; with what else its item says (that it failed, for example), as JSON."""
    output = fields.get("output")
    more = {name: value for name, value in fields.items() if name not in _NOT_ANSWERS and value is not None}
    if more.get("status") == "completed":
        del more["status"]
    if isinstance(output, dict) and output.get("type") == "computer_screenshot":
        url = output.get("image_url")
        if isinstance(url, str):
            told = [Part("input_text", encode(more).decode())] if more else []
            return [Part("input_image", image_url=url), *told]
    if not more:
        return output if isinstance(output, str) else encode(output).decode()
    return encode(more if output is None else {"output": output, **more}).decode()
