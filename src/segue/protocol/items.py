"""Items: the units a conversation is made of, kept as the JSON bytes they came in.

An item is parsed once, when it arrives, to answer three questions: is it sound JSON, does it have the fields that we
act on, and does it make or answer a tool call. After that it is bytes. Item types that are not in the table below pass
through untouched; an upstream refuses what it cannot represent. Not here: items as typed values (`item_types`), and how
a dialect writes an item.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import msgspec

from segue.protocol.codec import (
    decode,
    decode_value,
    encode_exactly,
    is_long_text,
    is_utf8,
    join_long,
    not_unicode,
    without_field,
)
from segue.protocol.item_types import CustomToolCallItem, FunctionCallItem, Role
from segue.protocol.problems import Problem, foreign_part, misplaced_trigger, missing
from segue.protocol.request_size import DEFAULT_LIMITS, RequestLimits, too_many_items

#: One item: a JSON object on the wire, byte for byte as its author wrote it.
Item = bytes


_NULL = msgspec.Raw(b"null")


class _ItemHead(msgspec.Struct):
    """What every item may carry; `message` and `item_reference` may omit `type`."""

    type: str | None = None
    role: str | None = None
    id: str | None = None
    call_id: str | None = None


class _CheckedPart(msgspec.Struct):
    """What is checked of a part: the fields that hold what it says, if its type is known."""

    type: str
    text: str | None = None
    refusal: msgspec.Raw = _NULL
    image_url: msgspec.Raw = _NULL
    file_data: msgspec.Raw = _NULL
    file_url: msgspec.Raw = _NULL
    file_id: msgspec.Raw = _NULL
    filename: msgspec.Raw = _NULL


class _CheckedMessage(msgspec.Struct):
    role: Role
    content: str | list[_CheckedPart]


class _CheckedToolOutput(msgspec.Struct):
    call_id: str
    output: str | list[_CheckedPart]


class _CheckedCompaction(msgspec.Struct):
    encrypted_content: str


class _CheckedTool(msgspec.Struct):
    type: str
    name: str | None = None


class _CheckedTools(msgspec.Struct):
    tools: list[_CheckedTool]


class _CheckedUpdate(msgspec.Struct):
    reasoning: dict[str, msgspec.Raw] | None = None
    text: dict[str, msgspec.Raw] | None = None


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
    "compaction": msgspec.json.Decoder(_CheckedCompaction),
    "compaction_summary": msgspec.json.Decoder(_CheckedCompaction),
    "additional_tools": msgspec.json.Decoder(_CheckedTools),
    "configuration_update": msgspec.json.Decoder(_CheckedUpdate),
}
_REFERENCE = "item_reference"
#: The type of an item that stands for the history before it; Codex reads the second name of it, too.
COMPACTION = "compaction"
COMPACTIONS = frozenset({COMPACTION, "compaction_summary"})
#: The last item of an input that asks for nothing but the compaction of all before it.
TRIGGER = "compaction_trigger"
#: Items that change the settings of the turns behind them.
CONFIGURATION = frozenset({"additional_tools", "configuration_update"})
_ABOUT_HISTORY = COMPACTIONS | CONFIGURATION | {TRIGGER}
_TEXT_PARTS = frozenset({"input_text", "output_text", "summary_text", "reasoning_text"})
#: Parts of Chat Completions, which SDKs of many kinds let pass, and what they are called here.
_FOREIGN_PARTS: Mapping[str, str] = {"image_url": "input_image", "file": "input_file"}

#: What stands around the text of a plain message.
_BEFORE_TEXT = b'{"type":"message","role":"user","content":[{"type":"input_text","text":'
_BEHIND_TEXT = b"}]}"

#: So many items are checked between two pauses: in well under a millisecond if they are small.
_ITEMS_AT_ONCE = 16

#: The longest id by which an item can be referred to; the APIs that give ids have at most a quarter of it.
MAX_ITEM_ID = 256

#: The field of reasoning that only its provider can read, as it stands in an item's JSON.
ENCRYPTED = b'"encrypted_content"'

_heads = msgspec.json.Decoder(_ItemHead)
_list = msgspec.json.Decoder(list[msgspec.Raw])
_optional_text = msgspec.json.Decoder(str | None)
_input = msgspec.json.Decoder(str | list[msgspec.Raw])


class ItemReference(NamedTuple):
    """An `item_reference` in an input: the id of the item that it stands for, and its own place among the items."""

    id: str
    place: int


class ItemKey(NamedTuple):
    """What tells an item from others: its place among them, its type and its ids; and whether a model makes such items.

    `call_id` is that of the tool call that the item is, or that it answers.
    """

    place: int
    kind: str
    id: str | None
    call_id: str | None
    by_model: bool

    @property
    def is_call(self) -> bool:
        """Whether it is a tool call."""
        return self.kind.endswith("_call")

    @property
    def is_output(self) -> bool:
        """Whether it is the output of a tool call."""
        return self.kind.endswith("_call_output")


#: Every turn has a set of ids and nearly always an empty one: each that is made anew is one more to look through for
#: cycles.
NO_IDS: frozenset[str] = frozenset()


class Input(msgspec.Struct, frozen=True):
    """The items of one request, checked.

    `calls` are the ids of the tool calls among the items. `answers` are the (call_id, index) of tool outputs whose call
    is not among the items: the history that the request continues must have it. `references` are the items that stand
    for others; `resolve_references` puts those in their place. `keys` are those of the items that may be in the history
    already: all that have an id or a `call_id`, or that a model makes. The input is `compacted` if an item stands for
    all before it; it `triggers` a compaction if its last item asks for one. `updates` are the items that change
    settings.
    """

    items: tuple[Item, ...] = ()
    calls: frozenset[str] = NO_IDS
    answers: tuple[tuple[str, int], ...] = ()
    references: tuple[ItemReference, ...] = ()
    keys: tuple[ItemKey, ...] = ()
    compacted: bool = False
    triggers: bool = False
    updates: tuple[Item, ...] = ()

    @property
    def answered(self) -> frozenset[str]:
        """The ids of the calls whose output is among the items."""
        if not self.keys:
            return NO_IDS
        return _ids(key.call_id for key in self.keys if key.call_id is not None and key.is_output)


class _InputBuilder:
    """Collects the items of an input, and what is known of them."""

    __slots__ = ("answers", "calls", "compacted", "items", "keys", "triggers", "updates")

    def __init__(self) -> None:
        self.items: list[Item] = []
        self.keys: list[ItemKey] = []
        self.calls: set[str] = set()
        self.answers: list[tuple[str, int]] = []
        self.compacted = False
        self.triggers: list[int] = []
        self.updates: list[Item] = []

    def add(self, head: _ItemHead, item: Item, index: int) -> None:
        """Take the next item, which has this place in the request."""
        key = _key(head, len(self.items))
        self.items.append(item)
        if key.kind in _ABOUT_HISTORY:
            self._add_about_history(key, item, index)
        if key.by_model or key.id is not None or key.call_id is not None:
            self.keys.append(key)
        if key.call_id is None:
            return
        if key.is_call:
            self.calls.add(key.call_id)
        elif key.is_output and key.call_id not in self.calls:
            self.answers.append((key.call_id, index))

    def _add_about_history(self, key: ItemKey, item: Item, index: int) -> None:
        if key.kind == TRIGGER:
            self.triggers.append(index)
        elif key.kind in CONFIGURATION:
            self.updates.append(item)
        else:
            self.compacted = True

    def build(self, references: Sequence[ItemReference] = ()) -> Input:
        """Return the input."""
        return Input(
            tuple(self.items),
            frozenset(self.calls) if self.calls else NO_IDS,
            tuple(self.answers),
            tuple(references),
            tuple(self.keys),
            self.compacted,
            bool(self.triggers),
            tuple(self.updates),
        )


def parse_input(raw: bytes | msgspec.Raw, limits: RequestLimits = DEFAULT_LIMITS) -> Input | Problem:
    """Check the `input` of a request, in O(new items): a string is one user message, a list is items."""
    if isinstance(raw, msgspec.Raw) and is_long_text(raw):
        return Input((join_long(_BEFORE_TEXT, raw, _BEHIND_TEXT),)) if is_utf8(memoryview(raw)) else not_unicode()
    value = decode(raw, _input, "input")
    if isinstance(value, str):
        return Input((user_message(value),))
    return value if isinstance(value, Problem) else _parse_items(value, limits)


def _parse_items(value: Sequence[msgspec.Raw], limits: RequestLimits) -> Input | Problem:
    if len(value) > limits.items:
        return too_many_items(limits, len(value))
    builder = _InputBuilder()
    references: list[ItemReference] = []
    for index, item in enumerate(value):
        if index % _ITEMS_AT_ONCE == _ITEMS_AT_ONCE - 1:
            limits.pause()
        head = _check(item, f"input[{index}]")
        if isinstance(head, Problem):
            return head
        data = bytes(item)  # a copy, since a view would keep the whole message in memory
        if head.id is not None and _kind(head) == _REFERENCE:
            references.append(ItemReference(head.id, index))
            builder.items.append(data)
        else:
            builder.add(head, data, index)
    if builder.triggers and builder.triggers != [len(value) - 1]:
        return misplaced_trigger(builder.triggers[0])
    return builder.build(references)


def input_of(items: Sequence[Item]) -> Input:
    """Return the input of items that are sound, since they were written here. None of them is a reference."""
    builder = _InputBuilder()
    for index, item in enumerate(items):
        builder.add(_heads.decode(item), item, index)
    return builder.build()


def resolve_references(given: Input, found: Mapping[str, Item]) -> Input:
    """Return the input with the items that its references stand for, each of them once, where it stands first.

    What is not in `found` is left out: the history, or the input itself, has that item already.
    """
    wanted = {reference.place: reference.id for reference in given.references}
    builder = _InputBuilder()
    taken: set[str] = set()
    for index, item in enumerate(given.items):
        ident, resolved = wanted.get(index), item
        if ident is not None:
            if ident in taken or ident not in found:
                continue
            taken.add(ident)
            resolved = found[ident]
        builder.add(_heads.decode(resolved), resolved, index)
    return builder.build()


def with_trigger(given: Input) -> Input:
    """Return an input that ends in an item that asks for the compaction of all before it."""
    if given.triggers:
        return given
    return msgspec.structs.replace(given, items=(*given.items, encode_exactly({"type": TRIGGER})), triggers=True)


def user_message(text: str) -> Item:
    """Return the item that a plain string input stands for."""
    return _user_message(encode_exactly(text))


def _user_message(text: bytes) -> Item:
    """Return that item for a JSON string, which it holds as it came."""
    return b"%b%b%b" % (_BEFORE_TEXT, text, _BEHIND_TEXT)


def key_of(item: Item, place: int = 0) -> ItemKey:
    """Return the key of an item that was checked."""
    return _key(_heads.decode(item), place)


def answered_by(items: Sequence[Item]) -> frozenset[str]:
    """Return the ids of the calls whose output is among the items."""
    keys = map(key_of, items)
    return _ids(key.call_id for key in keys if key.call_id is not None and key.is_output)


def calls_of(items: Sequence[Item], more: frozenset[str] = NO_IDS) -> frozenset[str]:
    """Return the ids of the tool calls among a model's finished items, and `more`."""
    calls: list[str] = []
    for item in items:
        head = _heads.decode(item)
        if head.call_id and (head.type or "").endswith("_call"):
            calls.append(head.call_id)
    return more.union(calls) if calls else more


def _ids(found: Iterable[str]) -> frozenset[str]:
    return frozenset(found) or NO_IDS


def given_ids(items: Sequence[Item]) -> Iterator[tuple[int, str | None, str]]:
    """Yield for each item its place, the id that its author gave it, if any, and its type."""
    for place, item in enumerate(items):
        head = _heads.decode(item)
        yield place, head.id or None, head.type or "message"


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
    kind = _kind(head)
    if kind is None:
        return missing(f"{where}.type")
    if kind == _REFERENCE and head.id is None:
        return missing(f"{where}.id")
    value = decode_value(item, where)
    if isinstance(value, Problem):
        return value
    return _check_fields(item, kind, where) or head


def _key(head: _ItemHead, place: int) -> ItemKey:
    kind = head.type or "message"
    by_model = head.role == "assistant" or kind == "reasoning" or kind.endswith("_call")
    return ItemKey(place, kind, head.id or None, head.call_id, by_model)


def _kind(head: _ItemHead) -> str | None:
    """Return the type of an item, which a message and a reference may omit; None if it has none."""
    if head.type is not None:
        return head.type
    if head.role is not None:
        return "message"
    return None if head.id is None else _REFERENCE


def _check_fields(item: msgspec.Raw, kind: str, where: str) -> Problem | None:
    if kind not in _CHECKED:
        return None
    value = decode(item, _CHECKED[kind], where)
    if isinstance(value, Problem):
        return value
    for name, parts in _part_lists(value):
        for index, part in enumerate(parts):
            problem = _check_part(part, f"{where}.{name}[{index}]")
            if problem is not None:
                return problem
    return None


def _check_part(part: _CheckedPart, where: str) -> Problem | None:
    if part.type in _TEXT_PARTS:
        return missing(f"{where}.text") if part.text is None else None
    if part.type in _FOREIGN_PARTS:
        return foreign_part(f"{where}.type", part.type, _FOREIGN_PARTS[part.type])
    for name, raw in _strings_of(part).items():
        value = decode(raw, _optional_text, f"{where}.{name}")
        if isinstance(value, Problem):
            return value
    return None


def _strings_of(part: _CheckedPart) -> dict[str, msgspec.Raw]:
    """Return the fields of a part that must be strings, if they are there. Those of unknown types need not."""
    match part.type:
        case "refusal":
            return {"refusal": part.refusal}
        case "input_image":
            return {"image_url": part.image_url, "file_id": part.file_id}
        case "input_file":
            about = {"file_id": part.file_id, "filename": part.filename}
            return {"file_data": part.file_data, "file_url": part.file_url, **about}
        case _:
            return {}


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
