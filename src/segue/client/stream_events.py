"""The events that a turn yields, and the response that it ends with.

The types that a program acts on are typed; every other is an `UnknownEvent`. Each keeps the JSON it came as (`raw`).
Not here: which of the events that come are shown (`turn_machine`).
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from segue.protocol.codec import UNREADABLE

T = TypeVar("T")


class FunctionCall(msgspec.Struct, frozen=True):
    """A call of a tool: `arguments` is the JSON text that the model wrote, which may be no JSON."""

    call_id: str
    name: str
    arguments: str


class ClientResponse(msgspec.Struct, frozen=True, kw_only=True):
    """A response that has ended well. `output` holds the items, `raw` the whole object, as JSON bytes."""

    id: str
    status: str
    output: tuple[bytes, ...]
    raw: bytes
    usage: dict[str, Any] | None = None
    incomplete_reason: str | None = None

    @property
    def output_text(self) -> str:
        """The text of all messages in the output, joined."""
        return "".join(part.text or "" for item in self.output for part in _parts(item) if part.type == "output_text")

    @property
    def function_calls(self) -> tuple[FunctionCall, ...]:
        """The function calls in the output, in order."""
        items = (_read(_calls, item) for item in self.output if b'"function_call"' in item)
        return tuple(
            FunctionCall(item.call_id, item.name, item.arguments)
            for item in items
            if item is not None and item.type == "function_call"
        )


class _ReceivedEvent(msgspec.Struct, frozen=True, kw_only=True):
    """What every event has: its `raw` JSON, and its number in the response if it came with one."""

    raw: bytes = b""
    sequence_number: int | None = None


class UnknownEvent(_ReceivedEvent, frozen=True):
    """An event of any other type."""

    type: str


class ResponseCreated(_ReceivedEvent, frozen=True):
    """The response has begun; from here on it has an id."""

    response_id: str


class OutputItemAdded(_ReceivedEvent, frozen=True):
    """An item of the output has begun; `item` is its JSON, not finished yet."""

    output_index: int
    item: bytes


class OutputItemDone(_ReceivedEvent, frozen=True):
    """An item of the output is finished."""

    output_index: int
    item: bytes


class OutputTextDelta(_ReceivedEvent, frozen=True):
    """More text of a message."""

    delta: str
    output_index: int = 0
    content_index: int = 0
    item_id: str = ""


class FunctionCallArgumentsDelta(_ReceivedEvent, frozen=True):
    """More of a call's arguments."""

    delta: str
    output_index: int = 0
    item_id: str = ""


class ReasoningDelta(_ReceivedEvent, frozen=True):
    """More text of the model's reasoning, or of its summary."""

    delta: str
    output_index: int = 0
    item_id: str = ""


class ResponseFinished(_ReceivedEvent, frozen=True):
    """The response has ended well: completed, or incomplete. It is the last event of its turn."""

    response: ClientResponse


ClientEvent = (
    ResponseCreated
    | OutputItemAdded
    | OutputItemDone
    | OutputTextDelta
    | FunctionCallArgumentsDelta
    | ReasoningDelta
    | ResponseFinished
    | UnknownEvent
)


class _CallFields(msgspec.Struct):
    type: str = ""
    call_id: str = ""
    name: str = ""
    arguments: str = ""


class _PartFields(msgspec.Struct):
    type: str = ""
    text: str | None = None


class _MessageFields(msgspec.Struct):
    type: str = ""
    content: list[_PartFields] | str = []


_calls = msgspec.json.Decoder(_CallFields)
_messages = msgspec.json.Decoder(_MessageFields)


def _read(decoder: msgspec.json.Decoder[T], data: bytes) -> T | None:
    """Return what a decoder makes of bytes from a server; None if they are not of that kind."""
    try:
        return decoder.decode(data)
    except UNREADABLE:
        return None


def _parts(item: bytes) -> list[_PartFields]:
    message = _read(_messages, item) if b'"message"' in item else None
    if message is None or message.type != "message" or isinstance(message.content, str):
        return []
    return message.content
