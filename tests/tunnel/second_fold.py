"""A second fold, of whole replies, written from docs/spec/fold.md alone: it shares no code with the first.

An error in the text or in one of the two shows as a difference. Not here: speed, and replies that come in pieces.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, NoReturn

Write = Callable[[str], object]

_LIMIT = 4_194_304
_DEPTH = 128
_DIGITS = 4_300
_HALF_A_PAIR = re.compile("[\ud800-\udfff]")
_ESCAPES = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


class Unreadable(Exception):
    """An event is not readable for an API."""


class Unspecified(Exception):
    """The specification leaves it to each end whether an event is readable."""


class Number(NamedTuple):
    """A number as it stands in an event."""

    raw: str
    is_integer: bool


def _never(_: str) -> NoReturn:
    raise Unreadable


def read(data: bytes) -> dict[str, Any]:
    """Read the JSON object of an event, strictly."""
    try:
        event = json.loads(
            data.decode(),
            parse_float=lambda raw: Number(raw, is_integer=False),
            parse_int=lambda raw: Number(raw, is_integer=True),
            parse_constant=_never,
            object_pairs_hook=_object,
        )
    except (ValueError, RecursionError):
        raise Unreadable from None
    _check(event, 0)
    if not isinstance(event, dict):
        raise Unreadable
    return event


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found and type(found[name]) is not type(value):
            raise Unspecified
        found[name] = value
    return found


def _check(value: object, depth: int) -> None:
    if isinstance(value, str) and _HALF_A_PAIR.search(value):
        raise Unreadable
    if isinstance(value, dict | list) and depth == _DEPTH:
        raise Unreadable
    if isinstance(value, dict):
        for key in value:
            _check(key, depth)
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _check(inner, depth + 1)


def field(within: dict[str, Any], name: str, kind: type) -> Any:  # noqa: ANN401 - any JSON
    """Return a field of this type; None if it is absent or null."""
    value = within.get(name)
    if value is None:
        return None
    if not isinstance(value, kind) or (isinstance(value, Number) and kind is Number and not value.is_integer):
        raise Unreadable
    _check_digits(value)
    return int(value.raw) if isinstance(value, Number) and kind is Number else value


def objects(within: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """Return a list of objects; none if it is absent or null."""
    listed: list[Any] = field(within, name, list) or []
    if not all(isinstance(one, dict) for one in listed):
        raise Unreadable
    return listed


def required(within: dict[str, Any], name: str) -> None:
    """Note that a field must be there."""
    if within.get(name) is None:
        raise Unreadable


def _check_digits(value: object) -> None:
    if isinstance(value, Number):
        if value.is_integer and len(value.raw.lstrip("-")) > _DIGITS:
            raise Unreadable
        return
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _check_digits(inner)


def text_of(string: str) -> str:
    """Return the text of a string."""
    return "".join(_ESCAPES.get(one) or (f"\\u{ord(one):04x}" if one < " " else one) for one in string)


def json_of(value: object) -> str:
    """Return the JSON of a value."""
    match value:
        case Number(raw, is_integer):
            return "0" if is_integer and raw == "-0" else raw
        case str():
            return f'"{text_of(value)}"'
        case list():
            return f"[{','.join(map(json_of, value))}]"
        case dict():
            return "{" + ",".join(f'"{text_of(name)}":{json_of(inner)}' for name, inner in value.items()) + "}"
        case _:
            return {None: "null", True: "true", False: "false"}[value]  # type: ignore[index]  # the three that are left


class WithoutSpace:
    """Characters without white space outside of strings."""

    def __init__(self) -> None:
        self._in_string = self._escaped = False

    def feed(self, characters: str) -> str:
        """Take the next characters."""
        return "".join(filter(self._keeps, characters))

    def _keeps(self, one: str) -> bool:
        if not self._in_string:
            self._in_string = one == '"'
            return one not in " \t\r\n"
        if self._escaped:
            self._escaped = False
        else:
            self._escaped, self._in_string = one == "\\", one != '"'
        return True


# ------------------------------------------------------------------------------------------------------------ Responses

#: type -> keys before, field, its type, keys after
_ITEMS: dict[str, tuple[list[str], str, type, list[str]]] = {
    "message": (["type", "status", "id", "role"], "content", list, []),
    "function_call": (["type", "status", "id", "name"], "arguments", str, ["call_id"]),
    "custom_tool_call": (["type", "id", "status", "call_id", "name"], "input", str, []),
    "reasoning": (["type", "id"], "summary", list, ["content", "encrypted_content"]),
}
#: delta -> type of the item, the part's number, how a part begins, how it ends before another, its type
_DELTAS: dict[str, tuple[str, str, str, str, str]] = {
    "output_text": (
        "message",
        "content_index",
        '{"type":"output_text","text":"',
        '","annotations":[],"logprobs":[]},',
        "output_text",
    ),
    "refusal": ("message", "content_index", '{"type":"refusal","refusal":"', '"},', "refusal"),
    "reasoning_summary_text": (
        "reasoning",
        "summary_index",
        '{"type":"summary_text","text":"',
        '"},',
        "summary_text",
    ),
    "function_call_arguments": ("function_call", "", "", "", ""),
    "custom_tool_call_input": ("custom_tool_call", "", "", "", ""),
}


class Responses:
    """Folds events of Responses."""

    def __init__(self, write: Write) -> None:
        self._write = write
        self._current: tuple[str, str] | None = None
        self._head: dict[str, Any] = {}
        self._parts: list[tuple[str, int, int]] = []
        """Delta, part number, and how many characters came."""

    def take(self, data: bytes) -> bool:
        """Take an event; False if it is none of this API."""
        event = read(data)
        required(event, "type")
        kind, item_id, item = field(event, "type", str), field(event, "item_id", str), field(event, "item", dict)
        numbers = {name: field(event, name, Number) or 0 for name in ("content_index", "summary_index")}
        delta = field(event, "delta", object)
        name = kind.removeprefix("response.").removesuffix(".delta")
        if kind == "response.output_item.added":
            self._begin(item or {})
        elif kind == "response.output_item.done":
            self._end(item or {})
        elif kind == f"response.{name}.delta" and name in _DELTAS and isinstance(delta, str):
            self._add(name, item_id, numbers.get(_DELTAS[name][1], 0), delta)
        return bool(kind.startswith("response."))

    def _begin(self, item: dict[str, Any]) -> None:
        self._current = None
        kind, item_id = item.get("type"), item.get("id")
        if isinstance(kind, str) and kind in _ITEMS and isinstance(item_id, str) and item_id:
            before, name, field_type, _ = _ITEMS[kind]
            self._head = {key: "completed" if key == "status" else item[key] for key in before if key in item}
            self._current, self._parts = (item_id, kind), []
            self._write(f',{json_of(self._head)[:-1]},"{name}":{"[" if field_type is list else chr(34)}')

    def _add(self, name: str, item_id: str | None, number: int, delta: str) -> None:
        kind, _, beginning, _, _ = _DELTAS[name]
        if self._current != (item_id, kind):
            return
        if not self._parts or self._parts[-1][:2] != (name, number):
            self._write((_DELTAS[self._parts[-1][0]][3] if self._parts else "") + beginning)
            self._parts.append((name, number, 0))
        self._parts[-1] = (name, number, self._parts[-1][2] + len(delta))
        self._write(text_of(delta))

    def _end(self, item: dict[str, Any]) -> None:
        current, self._current = self._current, None
        kind = item.get("type")
        if not isinstance(kind, str) or kind not in _ITEMS:
            self._write(f",{json_of(item)}" if item else "")
            return
        if kind == "reasoning":
            item = {**item, "content": item.get("content")}
        before, name, field_type, after = _ITEMS[kind]
        ordered = {key: item[key] for key in (*before, name, *after, *item) if key in item}
        value = item.get(name)
        if current != (item.get("id"), kind) or not isinstance(value, field_type) or not self._add_up(value):
            self._write(f",{json_of(ordered)}")
            return
        rest = {key: inner for key, inner in ordered.items() if key != name and key not in self._head}
        self._write(self._end_of(value) + ("," + json_of(rest)[1:] if rest else "}"))

    def _add_up(self, value: object) -> bool:
        counts = [count for _, _, count in self._parts]
        if not self._parts or isinstance(value, str):
            return not self._parts or sum(counts) == len(str(value))
        assert isinstance(value, list)
        kinds = [_DELTAS[name][4] for name, _, _ in self._parts]
        return len(value) == len(kinds) and all(map(_is_part, value, kinds, counts))

    def _end_of(self, value: Any) -> str:  # noqa: ANN401 - a text or a list
        if not self._parts:
            return json_of(value)[1:]
        if isinstance(value, str):
            return '"'
        keys = {"type", "refusal" if self._parts[-1][0] == "refusal" else "text"}
        others = {key: inner for key, inner in value[-1].items() if key not in keys}
        return '"' + ("," + json_of(others)[1:] if others else "}") + "]"


def _is_part(part: object, kind: str, count: int) -> bool:
    text = part.get("refusal" if kind == "refusal" else "text") if isinstance(part, dict) else None
    return isinstance(part, dict) and part.get("type") == kind and isinstance(text, str) and len(text) == count


# ----------------------------------------------------------------------------------------------------- Chat Completions


class OpenField(NamedTuple):
    """The open field of a message: of a call, its index and id."""

    choice: int
    name: str
    call: int = -1
    call_id: str = ""


_TEXTS = ("reasoning_content", "reasoning", "content", "refusal")
_BETWEEN = {
    (False, False): '",',
    (False, True): '","tool_calls":[',
    (True, True): '"}},',
    (True, False): '"}}],',
}


class Chat:
    """Folds chunks of Chat Completions."""

    def __init__(self, write: Write) -> None:
        self._write = write
        self._open: OpenField | None = None

    def take(self, data: bytes) -> bool:
        """Take an event; False if it is none of this API."""
        if data == b"[DONE]":
            return True
        chunk = read(data)
        required(chunk, "choices")
        for choice in [self._read(one) for one in objects(chunk, "choices")]:
            choice()
        return True

    def _read(self, choice: dict[str, Any]) -> Callable[[], None]:
        """Read a choice, and return what it does: nothing is done before all of the event was read."""
        number, reason = field(choice, "index", Number) or 0, field(choice, "finish_reason", str)
        delta = field(choice, "delta", dict) or {}
        texts = {name: field(delta, name, str) or "" for name in _TEXTS}
        calls = [self._read_call(number, call) for call in objects(delta, "tool_calls")]

        def act() -> None:
            for name, text in texts.items():
                if text:
                    self._begin(OpenField(number, name), f'"{name}":"')
                    self._write(text_of(text))
            for call in calls:
                call()
            if reason:
                self._end()

        return act

    def _read_call(self, choice: int, call: dict[str, Any]) -> Callable[[], None]:
        number, call_id = field(call, "index", Number) or 0, field(call, "id", str) or ""
        function = field(call, "function", dict) or {}
        name, arguments = (field(function, key, str) or "" for key in ("name", "arguments"))

        def act() -> None:
            goes_on = self._open is not None and self._open[:3] == (choice, "call", number)
            if not goes_on or (self._open is not None and call_id not in ("", self._open.call_id)):
                self._open = None if self._open is None else self._open._replace(call=-2)
                head = {"id": call_id, "type": "function", "function": {"name": name, "arguments": ""}}
                self._begin(OpenField(choice, "call", number, call_id), json_of(head).removesuffix('"}}'))
            self._write(text_of(arguments))

        return act

    def _begin(self, opened: OpenField, beginning: str) -> None:
        if self._open == opened:
            return
        is_call = opened.name == "call"
        if self._open is None or self._open.choice != opened.choice:
            self._end()
            self._write(',{"role":"assistant",' + ('"content":null,"tool_calls":[' if is_call else ""))
        else:
            self._write(_BETWEEN[self._open.name == "call", is_call])
        self._open = opened
        self._write(beginning)

    def _end(self) -> None:
        if self._open is not None:
            self._write('"}}]}' if self._open.name == "call" else '"}')
        self._open = None


# ------------------------------------------------------------------------------------------------------------- Messages

_TYPES = frozenset({"message_delta", "ping", "error"})
_ENDS_BLOCK = frozenset({"message_start", "content_block_start", "content_block_stop", "message_stop"})


class Messages:
    """Folds events of Messages."""

    def __init__(self, write: Write) -> None:
        self._write = write
        self._block: dict[str, Any] | None = None
        self._signed = self._has_input = False
        self._input = WithoutSpace()

    def take(self, data: bytes) -> bool:
        """Take an event; False if it is none of this API."""
        event = read(data)
        required(event, "type")
        kind, block, delta = field(event, "type", str), field(event, "content_block", dict), field(event, "delta", dict)
        names = ("type", "text", "thinking", "signature", "partial_json")
        pieces = {name: field(delta or {}, name, str) or "" for name in names}
        if kind == "content_block_delta":
            self._add(pieces)
        if kind in _ENDS_BLOCK:
            self._end()
            self._write({"message_start": '},{"role":"assistant","content":[', "message_stop": "]}"}.get(kind, ""))
        if kind == "content_block_start" and block is not None:
            self._begin(block)
        return kind in _TYPES or kind in _ENDS_BLOCK or kind == "content_block_delta"

    @property
    def _kind(self) -> str:
        kind = None if self._block is None else self._block.get("type")
        if kind in ("tool_use", "server_tool_use"):
            return "tool"
        return str(kind) if kind in ("text", "thinking") else "other"

    def _begin(self, block: dict[str, Any]) -> None:
        self._block = block
        self._signed = self._has_input = False
        self._input = WithoutSpace()
        if self._kind == "other":
            self._write(json_of(block))
        elif self._kind == "tool":
            self._write(json_of({key: block.get(key) for key in ("type", "id", "name")})[:-1] + ',"input":')
        else:
            text = block.get(self._kind)
            self._write(f'{{"type":"{self._kind}","{self._kind}":"{text_of(text) if isinstance(text, str) else ""}')

    def _add(self, pieces: dict[str, str]) -> None:
        match self._kind, pieces["type"]:
            case ("text", "text_delta") | ("thinking", "thinking_delta"):
                self._write(text_of(pieces[self._kind]))
            case "thinking", "signature_delta":
                self._write(("" if self._signed else '","signature":"') + text_of(pieces["signature"]))
                self._signed = True
            case "tool", "input_json_delta" if pieces["partial_json"]:
                self._has_input = True
                self._write(self._input.feed(pieces["partial_json"]))
            case _:
                pass

    def _end(self) -> None:
        if self._block is None:
            return
        own = self._block.get("input")
        missing = "" if self._has_input else json_of({} if own is None else own)
        self._write({"tool": missing + "}", "other": ""}.get(self._kind, '"}') + ",")
        self._block = None


# --------------------------------------------------------------------------------------------------------------- Gemini


class Gemini:
    """Folds chunks of Gemini."""

    def __init__(self, write: Write) -> None:
        self._write = write
        self._begun = False
        self._open: bool | None = None
        """Whether the open text is a thought."""

    def take(self, data: bytes) -> bool:
        """Take an event; False if it is none of this API."""
        chunk = read(data)
        required(chunk, "candidates")
        read_ones = [
            (objects(field(one, "content", dict) or {}, "parts"), field(one, "finishReason", str))
            for one in objects(chunk, "candidates")
        ]
        for parts, reason in read_ones:
            for part in parts:
                self._add(part)
            if reason and self._begun:
                self._end_text()
                self._write("]}")
                self._begun = False
        return True

    def _add(self, part: dict[str, Any]) -> None:
        text = part.get("text")
        others = {key: value for key, value in part.items() if key not in ("text", "thought")}
        if text == "" and not others:
            return
        self._write("" if self._begun else '},{"role":"model","parts":[')
        self._begun = True
        if not isinstance(text, str):
            self._end_text()
            self._write(json_of(part) + ",")
            return
        is_thought = part.get("thought") is True
        if self._open is not is_thought:
            self._end_text()
            self._write('{"thought":true,"text":"' if is_thought else '{"text":"')
        self._open = is_thought
        self._write(text_of(text))
        if others:
            self._write('",' + json_of(others)[1:] + ",")
            self._open = None

    def _end_text(self) -> None:
        self._write("" if self._open is None else '"},')
        self._open = None


# -------------------------------------------------------------------------------------------------------------- replies


def events(reply: bytes) -> Iterator[bytes]:
    """Return the data of each event that has ended."""
    *lines, _ = re.split(rb"\r\n|\r|\n", reply)
    data: list[bytes] = []
    too_long = False
    for number, line in enumerate(lines):
        too_long |= len(line) > _LIMIT
        shown = line.removeprefix(b"\xef\xbb\xbf") if number == 0 else line
        name, _, value = shown.partition(b":")
        if name == b"data":
            data.append(value.removeprefix(b" "))
        if not shown:
            if data and not too_long and sum(map(len, data)) + len(data) <= _LIMIT:
                yield b"\n".join(data)
            data, too_long = [], False


def _takes(api: Responses | Chat | Messages | Gemini, event: bytes) -> bool:
    try:
        return api.take(event)
    except Unreadable:
        return False


def fold(content_type: bytes, reply: bytes) -> bytes:
    """Return the fold of a whole reply."""
    media_type = content_type.partition(b";")[0].strip().lower()
    if media_type == b"application/json" or media_type.endswith(b"+json"):
        return WithoutSpace().feed(reply.decode("latin-1")).encode("latin-1")[:_LIMIT]
    if media_type != b"text/event-stream":
        return reply[:_LIMIT]
    folded = bytearray()

    def write(text: str) -> None:
        folded.extend(text.encode())

    api: Responses | Chat | Messages | Gemini | None = None
    for event in events(reply):
        if api is not None:
            _takes(api, event)
            continue
        kinds = [kind(write) for kind in (Responses, Chat, Messages, Gemini)]
        api = next((one for one in kinds if _takes(one, event)), None)
        if api is None:
            folded += event + b"\n"
    return bytes(folded[:_LIMIT])
