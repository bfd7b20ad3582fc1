"""Items as a dialect reads them that writes another API: as one of the few kinds that such APIs have.

A custom tool's call is read as the function call that stands for it; so is a call of a tool that has an item type of
its own (a shell, a computer). Not here: the shapes of items (`protocol.item_types`), and what becomes of an item in a
dialect.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from segue.dialects.output_writer import CUSTOM_ARGUMENT
from segue.protocol.codec import MAX_DEPTH, UNREADABLE, decode, decode_value, encode, without_lone_surrogates
from segue.protocol.item_types import (
    ITEM_TYPES,
    ContentPart,
    CustomToolCallItem,
    FunctionCallItem,
    MessageItem,
    ReasoningItem,
    ToolOutputItem,
    read_typed_item,
)
from segue.protocol.items import COMPACTIONS, Item
from segue.protocol.problems import Problem, unreadable_compaction

#: An item that has a counterpart in other APIs.
PortableItem = MessageItem | FunctionCallItem | ToolOutputItem | ReasoningItem

#: Fields about an item that are not for the model. What stands beside them and the fields that are read is left out,
#: with a warning.
_ABOUT_THE_ITEM = frozenset({"type", "id", "status", "created_by"})
_KNOWN: Mapping[str, frozenset[str]] = {
    kind: _ABOUT_THE_ITEM.union(struct.__struct_fields__) for kind, struct in ITEM_TYPES.items()
}
_PART_FIELDS = frozenset({*ContentPart.__struct_fields__, "logprobs"})
_NULL = msgspec.Raw(b"null")
_objects = msgspec.json.Decoder(dict[str, Any])
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])
_part_fields = msgspec.json.Decoder(list[dict[str, msgspec.Raw]])

_NOT_ARGUMENTS = frozenset({"id", "type", "status", "call_id", "output"})
_NOT_ANSWERS = frozenset({"id", "type", "call_id", "output"})
_DATA_URL = re.compile(r"data:(?P<media>[^;,]*)(?:;[^,]*)?,(?P<data>.*)", re.DOTALL | re.IGNORECASE)
_HEAD_OF_DATA_URL = re.compile(r"\s*data:\s*(?P<media>[^;,\s]*)\s*(?=[;,])", re.IGNORECASE)
#: Names that people give to media types, and the registered ones (https://www.iana.org/assignments/media-types/).
_REGISTERED = {
    "image/jpg": "image/jpeg",
    "image/pjpeg": "image/jpeg",
    "image/x-jpeg": "image/jpeg",
    "image/x-png": "image/png",
    "image/x-webp": "image/webp",
}


class DataUrl(msgspec.Struct, frozen=True):
    """A `data:` URL: its media type and its data, still in base64."""

    media: str
    data: str


def data_url(url: str) -> DataUrl | None:
    """Take a `data:` URL apart; None for any other URL, and for data that is not base64."""
    found = _DATA_URL.match(url.lstrip())
    if found is None or ";base64," not in found.string[: found.start("data")].lower():
        return None
    return DataUrl(_registered(found["media"]), found["data"])


def image_url(url: str) -> str:
    """Return the URL of an image; a `data:` URL with the registered name of its media type, which servers look at."""
    found = _HEAD_OF_DATA_URL.match(url)
    if found is None or _registered(found["media"]) == found["media"]:
        return url
    return f"data:{_registered(found['media'])}{url[found.end() :]}"


def _registered(media: str) -> str:
    media = media.strip().lower()
    return _REGISTERED.get(media, media)


def call_arguments(arguments: str) -> str:
    """Return the arguments of a call as the JSON object that servers want, or the text in one if it is none.

    A model may write anything, and a server that reads the arguments of earlier calls would refuse the conversation for
    ever: llama-server parses them, and chat templates go through their members. Half a character in them becomes
    U+FFFD, as in any text.
    """
    if not arguments.strip():
        return "{}"
    data = arguments.encode("utf-8", "replace")
    try:
        _fields.decode(data)
    except UNREADABLE:
        repaired = without_lone_surrogates(data)
        return _wrapped(data) if repaired is None else call_arguments(repaired.decode())
    deep = data.count(b"[") + data.count(b"{") > MAX_DEPTH and isinstance(decode_value(msgspec.Raw(data), ""), Problem)
    return _wrapped(data) if deep else arguments


def _wrapped(arguments: bytes) -> str:
    return encode({"arguments": arguments.decode()}).decode()


def read_item(item: Item, kind: str) -> PortableItem | Problem | None:
    """Read an item of a type; None for a type that has no counterpart in other APIs."""
    value = read_typed_item(item, kind)
    if isinstance(value, CustomToolCallItem):
        return FunctionCallItem(value.call_id, value.name, custom_arguments(value.input))
    return _read_other(item, kind) if value is None else value


def unknown_fields(item: Item, kind: str) -> list[str]:
    """Return the names of the fields of an item and its parts that no other API has a place for."""
    known = _KNOWN.get(kind)
    if known is None:
        return []
    fields = decode(item, _fields)
    if isinstance(fields, Problem):
        return []
    names = [name for name, value in fields.items() if name not in known and value != _NULL]
    for where in ("content", "output"):
        raw = bytes(fields.get(where, _NULL))
        if not raw.startswith(b"["):  # a text has no parts
            continue
        parts = decode(raw, _part_fields)
        for part in () if isinstance(parts, Problem) else parts:
            names += [f"{where}.{name}" for name, value in part.items() if name not in _PART_FIELDS and value != _NULL]
    return names


def custom_arguments(text: str) -> str:
    """Return the arguments of the function that stands for a custom tool."""
    return encode({CUSTOM_ARGUMENT: text}).decode()


def _read_other(item: Item, kind: str) -> PortableItem | Problem | None:
    """Read a call of a tool that has its own item type (a shell, a computer) as a call of a function of that name."""
    if kind in COMPACTIONS:  # what the gateway could read stands there as a message
        return unreadable_compaction()
    fields = decode(item, _objects, "input")
    if isinstance(fields, Problem):
        return fields
    call_id = fields.get("call_id")
    if call_id is None and kind == "local_shell_call_output":
        call_id = fields.get("id")  # this type has the id of its call there
    if not isinstance(call_id, str):
        return None
    if kind.endswith("_call"):
        arguments = {name: value for name, value in fields.items() if name not in _NOT_ARGUMENTS}
        return FunctionCallItem(call_id, kind.removesuffix("_call"), encode(arguments).decode())
    if kind.endswith("_call_output") or kind == "tool_search_output":
        return ToolOutputItem(call_id, _answer(fields))
    return None


def _answer(fields: dict[str, Any]) -> str | list[ContentPart]:
    """Return a tool's output. If its item says more (that the tool failed, for example), all of it as JSON."""
    output = fields.get("output")
    more = {name: value for name, value in fields.items() if name not in _NOT_ANSWERS and value is not None}
    if more.get("status") == "completed":
        del more["status"]
    if isinstance(output, dict) and output.get("type") == "computer_screenshot":
        url = output.get("image_url")
        if isinstance(url, str):
            told = [ContentPart("input_text", encode(more).decode())] if more else []
            return [ContentPart("input_image", image_url=url), *told]
    if not more:
        return output if isinstance(output, str) else encode(output).decode()
    return encode(more if output is None else {"output": output, **more}).decode()
