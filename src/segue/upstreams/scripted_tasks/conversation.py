"""A conversation as the scripted model sees it: what the user said, the calls it made, and what the tools answered.

Whoever has a conversation in a dialect writes it in these terms; `read_items` does it for items of the Responses API.
Not here: what the model makes of it (`player`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeAlias

import msgspec


class Said(msgspec.Struct, frozen=True):
    """A message of the user."""

    text: str


class Called(msgspec.Struct, frozen=True):
    """A call that the model made; `arguments` is JSON text."""

    call_id: str
    name: str
    arguments: str


class Answered(msgspec.Struct, frozen=True):
    """What a tool answered to a call."""

    call_id: str
    text: str


Conversation: TypeAlias = Sequence[Said | Called | Answered]


class _Part(msgspec.Struct, frozen=True):
    text: str | None = None


class _TypeAndRole(msgspec.Struct, frozen=True):
    type: str | None = None
    role: str | None = None


class _Message(msgspec.Struct, frozen=True):
    content: str | list[_Part]


class _Call(msgspec.Struct, frozen=True):
    call_id: str
    name: str
    arguments: str


class _CallOutput(msgspec.Struct, frozen=True):
    call_id: str
    output: str | list[_Part]


_heads = msgspec.json.Decoder(_TypeAndRole)
_messages = msgspec.json.Decoder(_Message)
_calls = msgspec.json.Decoder(_Call)
_outputs = msgspec.json.Decoder(_CallOutput)


def read_items(items: Iterable[bytes]) -> Iterator[Said | Called | Answered]:
    """Read items of the Responses API, one after the other; those that say nothing here are left out."""
    for item in items:
        head = _heads.decode(item)
        match head.type or "message":
            case "message" if head.role == "user":
                yield Said(_text(_messages.decode(item).content))
            case "function_call":
                call = _calls.decode(item)
                yield Called(call.call_id, call.name, call.arguments)
            case "function_call_output":
                answer = _outputs.decode(item)
                yield Answered(answer.call_id, _text(answer.output))
            case _:
                pass


def _text(content: str | list[_Part]) -> str:
    return content if isinstance(content, str) else "".join(part.text or "" for part in content)
