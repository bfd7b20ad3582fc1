"""From a history to the messages that a chat model is shown: pure.

Instructions and `developer` messages become `system` messages. A tool call belongs to the assistant's message before
it, if there is one, and its output is a `tool` message. Reasoning is left out, as a model is not shown its earlier
thoughts. Everything else (images, files, hosted tools) is refused, since leaving it out would silently change the
question. What a message becomes depends on the items alone, not on which turn brought them. Not here: how a model's
template writes messages (`template`), and what fits into the context (`fitting`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal, TypeVar

import msgspec

from segue.history.chains import History, Turn, path
from segue.protocol.codec import decode, encode
from segue.protocol.items import Item
from segue.protocol.problems import Problem, Refused, quoted, unsupported
from segue.protocol.requests import Settings

Role = Literal["system", "user", "assistant", "tool"]
T = TypeVar("T")


class ToolCall(msgspec.Struct, frozen=True):
    """A call that the model made; `arguments` is the JSON text it wrote."""

    id: str
    name: str
    arguments: str


class Message(msgspec.Struct, frozen=True):
    """One message, as chat templates know them; `answers` is the id of the call that a tool message answers."""

    role: Role
    text: str
    calls: tuple[ToolCall, ...] = ()
    answers: str = ""


class Conversation(msgspec.Struct, frozen=True):
    """A history as messages: the opening (instructions), the earlier turns, oldest first, and the new input."""

    opening: tuple[Message, ...]
    turns: tuple[tuple[Message, ...], ...]
    input: tuple[Message, ...]

    def without(self, dropped: int) -> list[Message]:
        """Return all messages but those of the oldest `dropped` turns."""
        kept = [message for turn in self.turns[dropped:] for message in turn]
        return [*self.opening, *kept, *self.input]


class Tool(msgspec.Struct, frozen=True):
    """A function that the model may call, with the JSON schema of its arguments."""

    name: str
    definition: dict[str, Any]

    @property
    def parameters(self) -> dict[str, Any]:
        """The schema; without one any object is allowed."""
        return self.definition["function"].get("parameters") or {"type": "object"}


class Tools(msgspec.Struct, frozen=True):
    """What of the request's tools concerns this model.

    `shown` are the functions it is told about, `allowed` the names it may call, `must` says that it has to call one.
    """

    shown: tuple[Tool, ...] = ()
    allowed: tuple[str, ...] = ()
    must: bool = False
    many: bool = True


def check_settings(settings: Settings) -> Problem | None:
    """Say what this engine cannot do."""
    choice = settings.tool_choice
    kind = choice.get("type") if isinstance(choice, dict) else "function"
    if kind not in {"function", "allowed_tools"}:
        return unsupported("tool_choice", "the local model calls functions only")
    tools = read_tools(settings)
    if tools.must and not tools.allowed:
        return Problem("invalid_value", "'tool_choice' demands a function that 'tools' does not have.", "tool_choice")
    form = settings.text.get("format") or {}
    if form.get("type", "text") not in {"text", "json_object", "json_schema"}:
        return unsupported("text.format", "the local model writes text, json_object and json_schema")
    return None


def read_tools(settings: Settings) -> Tools:
    """Return the functions of a request and which of them may be called."""
    functions = [tool for tool in settings.tools if tool.get("type") == "function"]
    shown = tuple(Tool(tool["name"], _definition(tool)) for tool in functions)
    names = [tool.name for tool in shown]
    choice = settings.tool_choice
    must = choice == "required"
    if isinstance(choice, dict):
        wanted = choice.get("tools") if choice.get("type") == "allowed_tools" else [choice]
        named = {tool.get("name") for tool in wanted or () if isinstance(tool, dict)}
        names = [name for name in names if name in named]
        must = choice.get("type") != "allowed_tools" or choice.get("mode") == "required"
    if choice == "none":
        shown, names = (), []
    return Tools(shown, tuple(names), must, settings.parallel_tool_calls)


def _definition(tool: dict[str, Any]) -> dict[str, Any]:
    """Return a tool as chat templates know it (the form of Chat Completions)."""
    kept = {name: tool[name] for name in ("name", "description", "parameters") if tool.get(name) is not None}
    return {"type": "function", "function": kept}


def read(history: History, instructions: str | None) -> Conversation:
    """Turn a history into messages, or raise `Refused` naming the item that cannot be represented."""
    opening = (Message("system", instructions),) if instructions else ()
    turns = path(history.parent)
    numbered: list[tuple[int, Message]] = []
    for number, turn in enumerate(turns):
        numbered += [(number, message) for message in _read_turn(turn)]
    numbered += [(len(turns), message) for message in _read_input(history.input)]
    merged = _merge(numbered)
    split = [tuple(message for at, message in merged if at == number) for number in range(len(turns) + 1)]
    return Conversation(opening, tuple(split[:-1]), split[-1])


def read_continuation(history: History) -> list[Message] | None:
    """Return what a turn adds to the prompt of its parent: the parent's answer and the new input, as messages.

    None if the two cannot be told apart from what stands before: then all of it must be read.
    """
    parent = history.parent
    if parent is None or not parent.input or not parent.output:
        return None
    before = _read(parent.input[-1], _place_in(parent))
    if before is None or before.role == "assistant":
        return None  # the answer would be one message with what stands before it
    answer = [(0, message) for item in parent.output if (message := _read(item, _place_in(parent))) is not None]
    added = [(1, message) for message in _read_input(history.input)]
    if not answer or (added and added[0][1].role == "assistant"):
        return None
    return [message for _, message in _merge([*answer, *added])]


def _read_turn(turn: Turn) -> Iterator[Message]:
    place = _place_in(turn)
    return (message for item in (*turn.input, *turn.output) if (message := _read(item, place)) is not None)


def _place_in(turn: Turn) -> _Place:
    # these items are not in the request: what the client can act on is the id that it continued
    return _Place("previous_response_id", f"an item of response '{turn.id}' in the history")


def _read_input(items: Sequence[Item]) -> Iterator[Message]:
    places = (_Place(f"input[{index}]", f"'input[{index}]'") for index in range(len(items)))
    pairs = zip(items, places, strict=True)
    return (message for item, place in pairs if (message := _read(item, place)) is not None)


def _merge(numbered: Iterable[tuple[int, Message]]) -> list[tuple[int, Message]]:
    """Put calls into the assistant's message before them."""
    merged: list[tuple[int, Message]] = []
    for at, message in numbered:
        if message.calls and merged and merged[-1][1].role == "assistant":
            began, before = merged[-1]
            merged[-1] = (began, msgspec.structs.replace(before, calls=(*before.calls, *message.calls)))
        else:
            merged.append((at, message))
    return merged


class _Place(msgspec.Struct, frozen=True):
    """Where an item is: the `param` of a problem with it, and the words for it."""

    param: str
    words: str


class _Head(msgspec.Struct):
    type: str | None = None  # a message may omit it


class _Part(msgspec.Struct):
    type: str
    text: str | None = None
    refusal: str | None = None


class _Message(msgspec.Struct):
    role: Literal["user", "assistant", "system", "developer"]
    content: str | list[_Part]


class _Call(msgspec.Struct):
    call_id: str
    name: str
    arguments: str


class _CustomCall(msgspec.Struct):
    call_id: str
    name: str
    input: str


class _Output(msgspec.Struct):
    call_id: str
    output: str | list[_Part]


_heads = msgspec.json.Decoder(_Head)
_bodies: dict[str, msgspec.json.Decoder[_Message | _Call | _CustomCall | _Output]] = {
    "message": msgspec.json.Decoder(_Message),
    "function_call": msgspec.json.Decoder(_Call),
    "function_call_output": msgspec.json.Decoder(_Output),
    "custom_tool_call": msgspec.json.Decoder(_CustomCall),
    "custom_tool_call_output": msgspec.json.Decoder(_Output),
}
_TEXT_PARTS = frozenset({"input_text", "output_text", "text"})


def _read(item: Item, place: _Place) -> Message | None:
    kind = _decode(item, _heads, place).type or "message"
    if kind == "reasoning":
        return None
    if kind not in _bodies:
        raise _unshowable(place, f"is of type {quoted(kind)}")
    match _decode(item, _bodies[kind], place):
        case _Message(role=role, content=content):
            return Message("system" if role == "developer" else role, _text(content, place))
        case _Call(call_id=call_id, name=name, arguments=arguments):
            return Message("assistant", "", (ToolCall(call_id, name, arguments),))
        case _CustomCall(call_id=call_id, name=name, input=said):
            return Message("assistant", "", (ToolCall(call_id, name, encode({"input": said}).decode()),))
        case _Output(call_id=call_id, output=output):
            return Message("tool", _text(output, place), answers=call_id)


def _text(content: str | list[_Part], place: _Place) -> str:
    return content if isinstance(content, str) else "\n".join(_part(part, place) for part in content)


def _part(part: _Part, place: _Place) -> str:
    text = part.refusal if part.type == "refusal" else part.text
    if text is None or part.type not in {*_TEXT_PARTS, "refusal"}:
        raise _unshowable(place, f"holds content of type {quoted(part.type)}")
    return text


def _decode(item: Item, decoder: msgspec.json.Decoder[T], place: _Place) -> T:
    value = decode(item, decoder, place.param)
    if isinstance(value, Problem):
        raise Refused(value)
    return value


def _unshowable(place: _Place, what: str) -> Refused:
    message = f"The local model reads text only: {place.words} {what}. Leave it out, or use another model."
    return Refused(Problem("invalid_value", message, place.param))
