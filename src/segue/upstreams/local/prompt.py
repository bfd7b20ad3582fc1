"""From a history to the text that a chat model continues: pure.

Items become messages of three roles, and messages become segments through the model's own chat template. The template
only ever sees placeholders: the text of a message is put in afterwards, as a segment that may not hold control tokens.
So whatever a user writes, `<|im_end|>` included, is text to the model.

How items are shown to a model that knows nothing but messages: instructions and `developer` messages become `system`
messages; a tool call becomes an `assistant` message and its output a `user` message, in plain words; reasoning is left
out, as a model is not shown its earlier thoughts. Everything else (images, files, hosted tools) is refused, since
leaving it out would silently change the question. Each message depends on its own item only.

Not here: tokens, and what fits into the context (`fitting`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Literal, TypeVar

import msgspec

from segue.history.chains import History, path
from segue.protocol.codec import decode
from segue.protocol.items import Item
from segue.protocol.problems import Problem, Refused, quoted, unsupported
from segue.protocol.requests import Settings

Role = Literal["system", "user", "assistant"]
T = TypeVar("T")


class Message(msgspec.Struct, frozen=True):
    """One message, as chat templates know them."""

    role: Role
    text: str


class Conversation(msgspec.Struct, frozen=True):
    """A history as messages: the opening (instructions), the earlier turns, oldest first, and the new input."""

    opening: tuple[Message, ...]
    turns: tuple[tuple[Message, ...], ...]
    input: tuple[Message, ...]

    def without(self, dropped: int) -> list[Message]:
        """Return all messages but those of the oldest `dropped` turns."""
        kept = [message for turn in self.turns[dropped:] for message in turn]
        return [*self.opening, *kept, *self.input]


class Segment(msgspec.Struct, frozen=True):
    """A stretch of the prompt; only in a `control` segment may tokens like `<|im_end|>` be recognised."""

    text: str
    control: bool


#: Write messages as the text of a prompt that ends where the assistant's answer begins.
Template = Callable[[Sequence[Message]], str]


class TemplateError(ValueError):
    """The chat template loses, repeats or changes what it is given."""


def check_settings(settings: Settings) -> Problem | None:
    """Say what this engine cannot do. Tools with tool_choice auto or none are accepted: the model answers in words."""
    choice = settings.tool_choice
    if isinstance(choice, dict):
        optional = choice.get("type") == "allowed_tools" and choice.get("mode", "auto") == "auto"
    else:
        optional = choice in {"auto", "none"}
    if not optional:
        return unsupported("tool_choice", "the local model cannot call tools; send 'auto' or 'none'")
    form = settings.text.get("format") or {"type": "text"}
    if form.get("type", "text") != "text":
        return unsupported("text.format", "the local model answers in plain text; leave it out")
    return None


def read(history: History, instructions: str | None) -> Conversation:
    """Turn a history into messages, or raise `Refused` naming the item that cannot be represented."""
    opening = (Message("system", instructions),) if instructions else ()
    turns = []
    for turn in path(history.parent):
        # these items are not in the request: what the client can act on is the id that it continued
        place = _Place("previous_response_id", f"an item of response '{turn.id}' in the history")
        turns.append(_messages((item, place) for item in (*turn.input, *turn.output)))
    new = ((item, _Place(f"input[{index}]", f"'input[{index}]'")) for index, item in enumerate(history.input))
    return Conversation(opening, tuple(turns), _messages(new))


def segments(messages: Sequence[Message], template: Template) -> list[Segment]:
    """Write messages through `template`, and tell apart what the template wrote and what the messages say."""
    rendered = template([Message(message.role, _placeholder(index)) for index, message in enumerate(messages)])
    pieces = _PLACEHOLDER.split(rendered)
    if sorted(map(int, pieces[1::2])) != list(range(len(messages))):
        raise TemplateError("the chat template does not write every message exactly once")
    found = []
    for index, piece in enumerate(pieces):
        control = index % 2 == 0
        found.append(Segment(piece if control else messages[int(piece)].text, control))
    return [segment for segment in found if segment.text]


_PLACEHOLDER = re.compile("\ue000([0-9]+)\ue001")


def _placeholder(index: int) -> str:
    return f"\ue000{index}\ue001"


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


def _messages(items: Iterable[tuple[Item, _Place]]) -> tuple[Message, ...]:
    messages = (_message(item, place) for item, place in items)
    return tuple(message for message in messages if message is not None)


def _message(item: Item, place: _Place) -> Message | None:
    kind = _decode(item, _heads, place).type or "message"
    if kind == "reasoning":
        return None
    if kind not in _bodies:
        raise _unshowable(place, f"is of type {quoted(kind)}")
    match _decode(item, _bodies[kind], place):
        case _Message(role=role, content=content):
            return Message("system" if role == "developer" else role, _text(content, place))
        case _Call(call_id=call_id, name=name, arguments=said) | _CustomCall(call_id=call_id, name=name, input=said):
            return Message("assistant", f"[Tool call {call_id}] {name}: {said}")
        case _Output(call_id=call_id, output=output):
            return Message("user", f"[Result of tool call {call_id}]\n{_text(output, place)}")


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
