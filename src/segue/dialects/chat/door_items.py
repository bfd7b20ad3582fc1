"""The messages of a Chat Completions request as items: what a client of this API says, in the form of all upstreams.

A message of the assistant's is several items: its reasoning, its text and its calls. Reasoning comes back only if its
client sends `reasoning_details` back as it got them from here. Each detail says which place it had among the items of
its answer; the text and the calls take the other places, in this order. Fields that no item has are left out, each
with a warning. Not here: the settings of a request (`door_request`), and messages for a provider of this API
(`request`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal

import msgspec
from msgspec import Raw

from segue.dialects.chat.reasoning_details import PlacedReasoning, read_details
from segue.protocol.codec import decode, encode
from segue.protocol.items import Input, Item, input_of
from segue.protocol.problems import Problem, missing, quoted, unsupported

Json = dict[str, Any]
_NULL = Raw(b"null")


class _ImageUrl(msgspec.Struct):
    url: str
    detail: str | None = None


class _FileContent(msgspec.Struct):
    file_data: str | None = None
    file_id: str | None = None
    filename: str | None = None


class _AudioContent(msgspec.Struct):
    data: str
    format: str


class _ChatPart(msgspec.Struct):
    type: str
    text: str | None = None
    refusal: str | None = None
    image_url: _ImageUrl | None = None
    file: _FileContent | None = None
    input_audio: _AudioContent | None = None


class _CalledFunction(msgspec.Struct):
    name: str
    arguments: str = ""


class _CalledCustom(msgspec.Struct):
    name: str
    input: str = ""


class _ChatCall(msgspec.Struct):
    id: str
    type: Literal["function", "custom"] = "function"
    function: _CalledFunction | None = None
    custom: _CalledCustom | None = None


class _ChatMessage(msgspec.Struct):
    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[_ChatPart] | None = None
    refusal: str | None = None
    reasoning_content: Raw = _NULL
    reasoning: Raw = _NULL
    reasoning_details: Raw = _NULL
    tool_calls: list[_ChatCall] | None = None
    tool_call_id: str | None = None
    function_call: Raw = _NULL


class _ChatAuthor(msgspec.Struct):
    role: str = ""


_messages = msgspec.json.Decoder(_ChatMessage)
_authors = msgspec.json.Decoder(_ChatAuthor)
_fields = msgspec.json.Decoder(dict[str, Raw])
_part_fields = msgspec.json.Decoder(list[dict[str, Raw]])
_texts = msgspec.json.Decoder(str)

_KNOWN = frozenset(_ChatMessage.__struct_fields__)
_KNOWN_IN_PARTS = frozenset(_ChatPart.__struct_fields__)
#: What says nothing that could be lost.
_EMPTY = frozenset({b"null", b'""', b"[]", b"{}"})
#: Marks of where a cached prefix ends: prefixes are cached without them.
_ABOUT_CACHES = frozenset({"cache_control"})
#: The field that a part of a known type must have.
_PART_FIELDS: Mapping[str, str] = MappingProxyType(
    {
        "text": "text",
        "refusal": "refusal",
        "image_url": "image_url",
        "file": "file",
        "input_audio": "input_audio",
    }
)
_OUTPUTS: Mapping[str, str] = MappingProxyType(
    {"function": "function_call_output", "custom": "custom_tool_call_output"}
)


class ReadMessages(msgspec.Struct, frozen=True):
    """What the messages of a request say; `warnings` are about what no item has."""

    input: Input
    warnings: tuple[str, ...] = ()


def read_messages(messages: Sequence[Raw]) -> ReadMessages | Problem:
    """Read the messages of a request as items."""
    reader = _ChatMessageReader()
    for index, raw in enumerate(messages):
        problem = reader.add(raw, f"messages[{index}]")
        if problem is not None:
            return problem
    return ReadMessages(input_of(reader.items), tuple(reader.warnings))


def read_opening(messages: Sequence[Raw]) -> tuple[bytes, bool]:
    """Return a digest of the messages before the model's first one, and whether there is one: a conversation's name."""
    digest = hashlib.sha256()
    for raw in messages:
        author = decode(raw, _authors)
        if not isinstance(author, Problem) and author.role == "assistant":
            return digest.digest(), True
        digest.update(b"\0" + bytes(raw))  # no JSON text holds this byte
    return digest.digest(), False


class _ChatMessageReader:
    """Reads messages one after the other."""

    def __init__(self) -> None:
        self.items: list[Item] = []
        self.warnings: dict[str, None] = {}
        self._open: dict[str, str] = {}  # the types of the calls that no output was read of, by their ids

    def add(self, raw: Raw, where: str) -> Problem | None:
        """Take the next message; return what is wrong with it."""
        message = decode(raw, _messages, where)
        if isinstance(message, Problem):
            return message
        self._warn_of_fields(raw, message)
        match message.role:
            case "assistant":
                return self._add_answer(message, where)
            case "tool":
                return self._add_output(message, where)
            case "function":
                return unsupported(f"{where}.role", "send tool_calls, and the outputs as messages of the role 'tool'")
            case "system" | "developer" | "user":
                content = _content(message, where)
                if isinstance(content, Problem):
                    return content
                self.items.append(encode({"type": "message", "role": message.role, "content": content}))
                return None

    # --- the model's messages

    def _add_answer(self, message: _ChatMessage, where: str) -> Problem | None:
        if message.function_call != _NULL:
            return unsupported(f"{where}.function_call", "send tool_calls")
        said = _said(message, where)
        if isinstance(said, Problem):
            return said
        others = [] if said is None else [said]
        for index, call in enumerate(message.tool_calls or ()):
            item = self._called(call, f"{where}.tool_calls[{index}]")
            if isinstance(item, Problem):
                return item
            others.append(item)
        self.items += _in_places(self._reasoning(message), others)
        return None

    def _called(self, call: _ChatCall, where: str) -> Item | Problem:
        self._open[call.id] = call.type
        if call.type == "custom":
            if call.custom is None:
                return missing(f"{where}.custom")
            custom = call.custom
            return _item("custom_tool_call", call_id=call.id, name=custom.name, input=custom.input)
        if call.function is None:
            return missing(f"{where}.function")
        function = call.function
        return _item("function_call", call_id=call.id, name=function.name, arguments=function.arguments)

    def _reasoning(self, message: _ChatMessage) -> list[PlacedReasoning]:
        """Return the reasoning in a message. Without what its provider wants back, it is the text that was shown."""
        if message.reasoning_details != _NULL:
            placed = read_details(message.reasoning_details)
            if placed is not None:
                return placed
            self._warn("reasoning_details")
        for raw in (message.reasoning_content, message.reasoning):
            text = decode(raw, _texts)
            if isinstance(text, str) and text:
                return [PlacedReasoning(0, _item("reasoning", summary=[{"type": "summary_text", "text": text}]))]
        return []

    # --- the outputs of tools

    def _add_output(self, message: _ChatMessage, where: str) -> Problem | None:
        call_id = message.tool_call_id
        if call_id is None:
            return missing(f"{where}.tool_call_id")
        kind = self._open.pop(call_id, None)
        if kind is None:
            said = (
                f"{quoted(call_id)} is the id of no call that waits for its output. A message of the role 'tool' must "
                "come after the message with the call in its 'tool_calls', once."
            )
            return Problem("invalid_value", said, f"{where}.tool_call_id")
        output = _content(message, where)
        if isinstance(output, Problem):
            return output
        self.items.append(_item(_OUTPUTS[kind], call_id=call_id, output=output))
        return None

    # --- what is left out

    def _warn_of_fields(self, raw: Raw, message: _ChatMessage) -> None:
        for name, value in _fields.decode(raw).items():
            if name not in _KNOWN and bytes(value) not in _EMPTY:
                self._warn(name)
        if isinstance(message.content, list):
            for part in _part_fields.decode(_fields.decode(raw)["content"]):
                for name in part:
                    if name not in _KNOWN_IN_PARTS and name not in _ABOUT_CACHES:
                        self._warn(f"content.{name}")

    def _warn(self, name: str) -> None:
        if name not in _ABOUT_CACHES:
            self.warnings[f"{quoted(name)} of messages was left out: this model's API has nothing like it."] = None


def _in_places(placed: Sequence[PlacedReasoning], others: Sequence[Item]) -> list[Item]:
    """Return the items of one answer: reasoning at its places, and the others around it."""
    items: list[Item] = []
    rest = list(reversed(others))
    for one in placed:
        while rest and len(items) < one.index:
            items.append(rest.pop())
        items.append(one.item)
    return [*items, *reversed(rest)]


def _said(message: _ChatMessage, where: str) -> Item | Problem | None:
    """Return the message item of an answer; None if it says nothing."""
    content: str | list[Json] | Problem = ""
    if message.content:
        content = _content(message, where, own="output_text")
    if isinstance(content, Problem):
        return content
    if message.refusal:
        parts = _as_parts(content)
        content = [*parts, {"type": "refusal", "refusal": message.refusal}]
    return _item("message", role="assistant", content=content) if content else None


def _as_parts(content: str | list[Json]) -> list[Json]:
    if isinstance(content, str):
        return [{"type": "output_text", "text": content}] if content else []
    return content


def _content(message: _ChatMessage, where: str, own: str = "input_text") -> str | list[Json] | Problem:
    """Return the content of a message as that of an item; a text is a part of the type `own`."""
    content = message.content
    if content is None:
        return missing(f"{where}.content")
    if isinstance(content, str):
        return content
    parts: list[Json] = []
    for index, part in enumerate(content):
        field = _PART_FIELDS.get(part.type)
        if field is not None and _field_of(part, field) is None:
            return missing(f"{where}.content[{index}].{field}")
        parts.append(_part(part, own))
    return parts


def _field_of(part: _ChatPart, name: str) -> object:
    return msgspec.structs.asdict(part)[name]


def _part(part: _ChatPart, own: str) -> Json:
    """Return a part as that of an item. One of another type keeps it: each upstream says what becomes of it."""
    if part.image_url is not None:
        detail = {} if part.image_url.detail is None else {"detail": part.image_url.detail}
        return {"type": "input_image", "image_url": part.image_url.url, **detail}
    if part.file is not None:
        about = msgspec.structs.asdict(part.file)
        return {"type": "input_file", **{name: value for name, value in about.items() if value is not None}}
    if part.input_audio is not None:
        return {"type": "input_audio", "input_audio": part.input_audio}
    if part.refusal is not None:
        return {"type": "refusal", "refusal": part.refusal}
    text = {} if part.text is None else {"text": part.text}
    return {"type": own if part.type == "text" else part.type, **text}


def _item(kind: str, **fields: object) -> Item:
    return encode({"type": kind, **fields})
