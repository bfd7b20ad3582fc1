"""From a history to the messages of a chat model: pure.

Instructions and `developer` messages become `system` messages. A tool call joins the assistant's message before it, if
there is one, and its output is a `tool` message. Reasoning joins the assistant's message behind it, if it is there in
words: the template decides which thoughts the model reads again. Summaries beside sealed thoughts are left out.
Everything else (images, files, hosted tools) is refused, since dropping it would silently change the question. The
messages depend on the items alone, not on which turn brought them. Not here: how a model's template writes messages
(`chat_template`), and what fits into the context (`truncation`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal

import msgspec

from segue.dialects.items import call_arguments, custom_arguments
from segue.dialects.loss_warnings import BROKEN_ARGUMENTS
from segue.history.chains import History, Turn, path
from segue.protocol.codec import decode
from segue.protocol.item_types import (
    ContentPart,
    CustomToolCallItem,
    FunctionCallItem,
    MessageItem,
    ReasoningItem,
    ToolOutputItem,
    read_typed_item,
)
from segue.protocol.items import CONFIGURATION, Item
from segue.protocol.problems import Problem, Refused, quoted, unsupported
from segue.protocol.requests import Settings

PromptRole = Literal["system", "user", "assistant", "tool"]


class ToolCall(msgspec.Struct, frozen=True):
    """A call that the model made; `arguments` is a JSON object, as templates want it.

    `rewritten` means that the model wrote something else, which stands in that object.
    """

    id: str
    name: str
    arguments: str
    rewritten: bool = False


class PromptMessage(msgspec.Struct, frozen=True):
    """One message in the form for chat templates; `call_id` is the id of the call that a tool message answers.

    `reasoning` is what the model thought before it.
    """

    role: PromptRole
    text: str
    calls: tuple[ToolCall, ...] = ()
    call_id: str = ""
    reasoning: str = ""


class Conversation(msgspec.Struct, frozen=True):
    """A history as messages: the opening (instructions), the earlier turns, oldest first, and the new input."""

    opening: tuple[PromptMessage, ...]
    turns: tuple[tuple[PromptMessage, ...], ...]
    input: tuple[PromptMessage, ...]

    def without(self, dropped: int) -> list[PromptMessage]:
        """Return all messages but those of the oldest `dropped` turns."""
        kept = [message for turn in self.turns[dropped:] for message in turn]
        return [*self.opening, *kept, *self.input]


class PromptTool(msgspec.Struct, frozen=True):
    """A function that the model may call, with the JSON schema of its arguments."""

    name: str
    definition: dict[str, Any]

    @property
    def parameters(self) -> dict[str, Any]:
        """The schema; without one any object is allowed."""
        return self.definition["function"].get("parameters") or {"type": "object"}


class Tools(msgspec.Struct, frozen=True):
    """The tools of a request that this model can call.

    The prompt describes the `shown` functions. The model may call the `allowed` names; it has to call one of them if a
    call is `required`, and may make several calls in one answer if `parallel`.
    """

    shown: tuple[PromptTool, ...] = ()
    allowed: tuple[str, ...] = ()
    required: bool = False
    parallel: bool = True


def check_settings(settings: Settings) -> Problem | None:
    """Return the problem of settings that this engine cannot obey; None if it can."""
    choice = settings.tool_choice
    kind = choice.get("type") if isinstance(choice, dict) else "function"
    if kind not in {"function", "allowed_tools"}:
        return unsupported("tool_choice", "the local model calls functions only")
    tools = read_tools(settings)
    if tools.required and not tools.allowed:
        return Problem("invalid_value", "'tool_choice' demands a function that 'tools' does not have.", "tool_choice")
    text_format = settings.text.get("format") or {}
    if text_format.get("type", "text") not in {"text", "json_object", "json_schema"}:
        return unsupported("text.format", "the local model writes text, json_object and json_schema")
    return None


def read_tools(settings: Settings) -> Tools:
    """Return the functions of a request and which of them may be called."""
    functions = [tool for tool in settings.tools if tool.get("type") == "function"]
    shown = tuple(PromptTool(tool["name"], _definition(tool)) for tool in functions)
    names = [tool.name for tool in shown]
    choice = settings.tool_choice
    required = choice == "required"
    if isinstance(choice, dict):
        wanted = choice.get("tools") if choice.get("type") == "allowed_tools" else [choice]
        named = {tool.get("name") for tool in wanted or () if isinstance(tool, dict)}
        names = [name for name in names if name in named]
        required = choice.get("type") != "allowed_tools" or choice.get("mode") == "required"
    if choice == "none":
        shown, names = (), []
    return Tools(shown, tuple(names), required, settings.parallel_tool_calls)


def _definition(tool: dict[str, Any]) -> dict[str, Any]:
    """Return a tool in the form for chat templates, which is that of Chat Completions."""
    kept = {name: tool[name] for name in ("name", "description", "parameters") if tool.get(name) is not None}
    return {"type": "function", "function": kept}


def read_conversation(history: History, instructions: str | None) -> Conversation:
    """Turn a history into messages, or raise `Refused` with the name of an item that cannot be a message."""
    opening = (PromptMessage("system", instructions),) if instructions else ()
    turns = path(history.parent)
    numbered: list[tuple[int, PromptMessage]] = []
    for number, turn in enumerate(turns):
        numbered += [(number, message) for message in _read_turn(turn)]
    numbered += [(len(turns), message) for message in _read_input(history.input)]
    merged = _merge(numbered)
    split = [tuple(message for at, message in merged if at == number) for number in range(len(turns) + 1)]
    return Conversation(opening, tuple(split[:-1]), split[-1])


def read_continuation(history: History) -> list[PromptMessage] | None:
    """Return what a turn adds to the prompt of its parent: the parent's answer and the new input, as messages.

    None if they would merge with the messages before them: then the whole conversation must be rendered.
    """
    parent = history.parent
    if parent is None or not parent.input or not parent.output:
        return None
    before = _read(parent.input[-1], _location_in(parent))
    if before is None or before.role == "assistant":
        return None  # the answer would merge with the message before it
    answer = [(0, message) for item in parent.output if (message := _read(item, _location_in(parent))) is not None]
    added = [(1, message) for message in _read_input(history.input)]
    if not answer or (added and added[0][1].role == "assistant"):
        return None
    return [message for _, message in _merge([*answer, *added])]


def message_warnings(messages: Iterable[PromptMessage]) -> tuple[str, ...]:
    """Return a sentence for each kind of thing that the messages do not say as the history does."""
    rewritten = any(call.rewritten for message in messages for call in message.calls)
    return (BROKEN_ARGUMENTS,) if rewritten else ()


def _read_turn(turn: Turn) -> Iterator[PromptMessage]:
    location = _location_in(turn)
    return (message for item in (*turn.input, *turn.output) if (message := _read(item, location)) is not None)


def _location_in(turn: Turn) -> _ItemLocation:
    # these items are not in the request; the client can only act on the id that it continues
    return _ItemLocation("previous_response_id", f"an item of response '{turn.id}' in the history")


def _read_input(items: Sequence[Item]) -> Iterator[PromptMessage]:
    locations = (_ItemLocation(f"input[{index}]", f"'input[{index}]'") for index in range(len(items)))
    pairs = zip(items, locations, strict=True)
    return (message for item, location in pairs if (message := _read(item, location)) is not None)


def _merge(numbered: Iterable[tuple[int, PromptMessage]]) -> list[tuple[int, PromptMessage]]:
    """Move calls into the assistant's message before them, and thoughts into the one behind them."""
    merged: list[tuple[int, PromptMessage]] = []
    thoughts: list[str] = []
    for at, message in numbered:
        if _is_thought(message):
            thoughts.append(message.reasoning)
            continue
        if message.role != "assistant":
            thoughts = []  # nothing came of them
        whole = msgspec.structs.replace(message, reasoning="\n\n".join(thoughts)) if thoughts else message
        thoughts = []
        if message.calls and merged and merged[-1][1].role == "assistant":
            began, before = merged[-1]
            both = "\n\n".join(filter(None, (before.reasoning, whole.reasoning)))
            calls = (*before.calls, *message.calls)
            merged[-1] = (began, msgspec.structs.replace(before, calls=calls, reasoning=both))
        else:
            merged.append((at, whole))
    return merged


def _is_thought(message: PromptMessage) -> bool:
    return bool(message.reasoning) and not message.text and not message.calls


class _ItemLocation(msgspec.Struct, frozen=True):
    """Where an item is: the `param` of a problem with it, and how to name it in a message."""

    param: str
    words: str


class _PromptItemHead(msgspec.Struct):
    type: str | None = None  # a message may omit it


_heads = msgspec.json.Decoder(_PromptItemHead)
_TEXT_PARTS = frozenset({"input_text", "output_text", "text"})


def _read(item: Item, location: _ItemLocation) -> PromptMessage | None:
    head = decode(item, _heads, location.param)
    if isinstance(head, Problem):
        raise Refused(head)
    kind = head.type or "message"
    if kind in CONFIGURATION:  # the settings of the request have what it says
        return None
    match read_typed_item(item, kind, location.param):
        case ReasoningItem(content=parts, summary=summary, encrypted_content=sealed):
            # where nothing is sealed, it may be this model's own, sent back in an API that has no other field for it
            shown = parts or (summary if sealed is None else ())
            words = "".join(part.text for part in shown)
            return PromptMessage("assistant", "", reasoning=words) if words else None
        case MessageItem(role=role, content=content):
            return PromptMessage("system" if role == "developer" else role, _text(content, location))
        case FunctionCallItem(call_id=call_id, name=name, arguments=arguments):
            written = call_arguments(arguments)
            rewritten = written != arguments and bool(arguments.strip())
            return PromptMessage("assistant", "", (ToolCall(call_id, name, written, rewritten),))
        case CustomToolCallItem(call_id=call_id, name=name, input=text):
            return PromptMessage("assistant", "", (ToolCall(call_id, name, custom_arguments(text)),))
        case ToolOutputItem(call_id=call_id, output=output):
            return PromptMessage("tool", _text(output, location), call_id=call_id)
        case Problem() as problem:
            raise Refused(problem)
        case _:
            raise _unshowable(location, f"is of type {quoted(kind)}")


def _text(content: str | list[ContentPart], location: _ItemLocation) -> str:
    return content if isinstance(content, str) else "\n".join(_part_text(part, location) for part in content)


def _part_text(part: ContentPart, location: _ItemLocation) -> str:
    text = part.refusal if part.type == "refusal" else part.text
    if text is None or part.type not in {*_TEXT_PARTS, "refusal"}:
        raise _unshowable(location, f"holds content of type {quoted(part.type)}")
    return text


def _unshowable(location: _ItemLocation, what: str) -> Refused:
    message = f"The local model reads text only: {location.words} {what}. Leave it out, or use another model."
    return Refused(Problem("invalid_value", message, location.param))
