"""Items: the units a conversation is made of, kept as the JSON bytes they came in.

An item is parsed once, when it arrives, to answer three questions: is it sound JSON, does it have the fields that we
act on, and does it make or answer a tool call. After that it is bytes. Item types that are not in the table below pass
through untouched; an upstream refuses what it cannot represent. Not here: items as typed values (`item_types`), and how
a dialect writes an item.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from segue.protocol.codec import decode, decode_value, encode, without_field
from segue.protocol.item_types import CustomToolCallItem, FunctionCallItem, Role
from segue.protocol.problems import Problem, missing, unsupported

#: One item: a JSON object on the wire, byte for byte as its author wrote it.
Item = bytes


class _ItemHead(msgspec.Struct):
    """What every item may carry; `message` and `item_reference` may omit `type`."""

    type: str | None = None
    role: str | None = None
    id: str | None = None
    call_id: str | None = None


class _CheckedPart(msgspec.Struct):
    """What is checked of a part. Its other fields are checked by the dialect that reads them, if one does."""

    type: str
    text: str | None = None


class _CheckedMessage(msgspec.Struct):
    role: Role
    content: str | list[_CheckedPart]


class _CheckedToolOutput(msgspec.Struct):
    call_id: str
    output: str | list[_CheckedPart]


class _CheckedReasoning(msgspec.Struct):
    summary: list[_CheckedPart] = []
    content: list[_CheckedPart] | None = None
    encrypted_content: str | None = None


#: The item types whose fields are checked on arrival, because we or every upstream act on them.
_CHECKED: dict[str, msgspec.json.Decoder[object]] = {
    "message": msgspec.json.Decoder(_CheckedMessage),
    "function_call": msgspec.json.Decoder(FunctionCallItem),
    "function_call_output": msgspec.json.Decoder(_CheckedToolOutput),
    "custom_tool_call": msgspec.json.Decoder(CustomToolCallItem),
    "custom_tool_call_output": msgspec.json.Decoder(_CheckedToolOutput),
    "reasoning": msgspec.json.Decoder(_CheckedReasoning),
}
_TEXT_PARTS = frozenset({"input_text", "output_text", "summary_text", "reasoning_text"})

#: The field of reasoning that only its provider can read, as it stands in an item's JSON.
ENCRYPTED = b'"encrypted_content"'

_heads = msgspec.json.Decoder(_ItemHead)
_list = msgspec.json.Decoder(list[msgspec.Raw])
_input = msgspec.json.Decoder(str | list[msgspec.Raw])


class Input(msgspec.Struct, frozen=True):
    """The items of one request, checked.

    `calls` are the ids of the tool calls among the items. `answers` are the (call_id, index) of tool outputs whose call
    is not among the items: the history that the request continues must have it.
    """

    items: tuple[Item, ...] = ()
    calls: frozenset[str] = frozenset()
    answers: tuple[tuple[str, int], ...] = ()


def parse_input(raw: bytes | msgspec.Raw) -> Input | Problem:
    """Check the `input` of a request, in O(new items): a string is one user message, a list is items."""
    value = decode(raw, _input, "input")
    if isinstance(value, Problem):
        return value
    if isinstance(value, str):
        return Input((user_message(value),))
    calls: set[str] = set()
    answers: list[tuple[str, int]] = []
    items: list[Item] = []
    for index, item in enumerate(value):
        head = _check(item, f"input[{index}]")
        if isinstance(head, Problem):
            return head
        if head.call_id is not None and head.type is not None:
            if head.type.endswith("_call"):
                calls.add(head.call_id)
            elif head.type.endswith("_call_output") and head.call_id not in calls:
                answers.append((head.call_id, index))
        items.append(bytes(item))  # a copy, since a view would keep the whole message in memory
    return Input(tuple(items), frozenset(calls), tuple(answers))


def user_message(text: str) -> Item:
    """Return the item that a plain string input stands for."""
    content = [{"type": "input_text", "text": text}]
    return encode({"type": "message", "role": "user", "content": content})


def calls_of(items: Sequence[Item]) -> frozenset[str]:
    """Return the ids of the tool calls among a model's finished items."""
    heads = (_heads.decode(item) for item in items)
    return frozenset(head.call_id for head in heads if head.call_id and (head.type or "").endswith("_call"))


def hide_encrypted(item: Item) -> Item:
    """Return reasoning without `encrypted_content`, and any other item as it is.

    The item is parsed only if the quoted name occurs in it. Inside a text it cannot occur, since JSON escapes the
    quotes there.
    """
    if ENCRYPTED not in item or _heads.decode(item).type != "reasoning":
        return item
    return without_field(item, "encrypted_content")


def split(raw: bytes) -> list[Item]:
    """Split a JSON array of items into the items' own bytes."""
    return [bytes(item) for item in _list.decode(raw)]


def join(items: Sequence[Item]) -> bytes:
    """Return the JSON array of `items`; no item is parsed."""
    return b"[" + b",".join(items) + b"]"


def _check(item: msgspec.Raw, where: str) -> _ItemHead | Problem:
    head = decode(item, _heads, where)
    if isinstance(head, Problem):
        return head
    kind = head.type if head.type is not None else _implied_type(head)
    if kind is None:
        return missing(f"{where}.type")
    if kind == "item_reference":
        return unsupported(where, "an item_reference cannot be resolved; send the item itself")
    value = decode_value(item, where)
    if isinstance(value, Problem):
        return value
    return _check_fields(item, kind, where) or head


def _implied_type(head: _ItemHead) -> str | None:
    if head.role is not None:
        return "message"
    return "item_reference" if head.id is not None else None


def _check_fields(item: msgspec.Raw, kind: str, where: str) -> Problem | None:
    if kind not in _CHECKED:
        return None
    value = decode(item, _CHECKED[kind], where)
    if isinstance(value, Problem):
        return value
    for name, parts in _part_lists(value):
        for index, part in enumerate(parts):
            if part.type in _TEXT_PARTS and part.text is None:
                return missing(f"{where}.{name}[{index}].text")
    return None


def _part_lists(value: object) -> tuple[tuple[str, list[_CheckedPart]], ...]:
    """Return the lists of parts in an item, by the names of their fields."""
    match value:
        case _CheckedMessage(content=list() as parts):
            return (("content", parts),)
        case _CheckedToolOutput(output=list() as parts):
            return (("output", parts),)
        case _CheckedReasoning(summary=summary, content=content):
            return (("content", content or []), ("summary", summary))
        case _:
            return ()
