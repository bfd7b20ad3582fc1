"""The events that a turn yields, and the response that it ends with.

The types that a program acts on are typed; every other is an `UnknownEvent`. Each keeps the JSON it came as (`raw`).
Not here: which of the events that come are shown (`turn_machine`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

import msgspec

from segue.client.function_calls import FunctionCall, is_unreadable_call, read_call
from segue.protocol.codec import UNREADABLE

T = TypeVar("T")

#: A server that counts more tokens is not believed; and JSON cannot hold more everywhere.
_MOST_TOKENS = 2**53


class TokenCounts(NamedTuple):
    """Tokens of a turn: of its input, cached ones among them, and of its output. What a server does not say is 0."""

    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0


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
        return "".join(text for item in self.output for _, text in text_parts(item))

    @property
    def function_calls(self) -> tuple[FunctionCall, ...]:
        """The function calls in the output, in order."""
        return tuple(call for item in self.output if (call := read_call(item)) is not None)

    @property
    def unreadable_calls(self) -> tuple[bytes, ...]:
        """The function calls in the output that cannot be carried out, such as one whose name is null."""
        return tuple(item for item in self.output if is_unreadable_call(item))

    @property
    def tokens(self) -> TokenCounts:
        """How many tokens the server reports, as far as its `usage` can be read."""
        used = self.usage or {}
        details = used.get("input_tokens_details")
        cached = details.get("cached_tokens") if isinstance(details, dict) else None
        return TokenCounts(_count(used.get("input_tokens")), _count(cached), _count(used.get("output_tokens")))


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


class ResponseEnd(_ReceivedEvent, frozen=True):
    """The terminal event of a stream as it came, or the whole response in place of a stream.

    It is for the turn to judge; a program gets `ResponseFinished` or an error.
    """

    type: str
    document: bytes
    response_id: str
    status: str
    output: tuple[bytes, ...] = ()
    usage: dict[str, Any] | None = None
    incomplete_reason: str | None = None
    error_code: str | None = None
    error_message: str | None = None
    stored: bool | None = None


#: The type of a `ResponseEnd` that is a response object and no event.
WHOLE_RESPONSE = "response"

#: How the status of a response shows in the type of its terminal event.
_TERMINAL = {f"response.{status}": status for status in ("completed", "incomplete", "failed", "cancelled")}


def read_event(data: bytes) -> ClientEvent | ResponseEnd | None:
    """Read the JSON of one event, or a response object in place of a stream; None if it is neither."""
    head = _read(_heads, data)
    if head is None:
        return None
    if head.type in _TERMINAL:
        return _read_end(head, data, data)
    if head.type is None:
        return _read_end(head, data, data) if head.object == "response" else None
    read = _READERS.get(head.type)
    event = None if read is None else read(data, head)
    return event or UnknownEvent(raw=data, sequence_number=head.number, type=head.type)


def read_response(document: bytes) -> ResponseEnd | None:
    """Read a response object; None if it is none."""
    head = _read(_heads, document)
    return None if head is None or head.type is not None else _read_end(head, document, document)


class _ReceivedHead(msgspec.Struct):
    type: str | None = None
    object: str | None = None
    sequence_number: Any = None

    @property
    def number(self) -> int | None:
        """The number of the event, if it is one: an event is not lost for an odd number."""
        return self.sequence_number if type(self.sequence_number) is int else None


class _ResponseId(msgspec.Struct):
    id: str


class _Opening(msgspec.Struct):
    response: _ResponseId


class _Closing(msgspec.Struct):
    response: msgspec.Raw


class _ResponseFields(msgspec.Struct):
    """Only the id and the items must be as the API has them: an answer is not lost for the rest."""

    id: str
    status: Any = None
    output: list[msgspec.Raw] | None = None
    usage: Any = None
    error: Any = None
    incomplete_details: Any = None
    store: Any = None


class _ItemFields(msgspec.Struct):
    item: msgspec.Raw
    output_index: int


class _DeltaFields(msgspec.Struct):
    delta: str
    output_index: int = 0
    content_index: int = 0
    item_id: str = ""


class _PartFields(msgspec.Struct):
    type: str = ""
    text: str | None = None


class _MessageFields(msgspec.Struct):
    type: str = ""
    content: list[_PartFields] | str = []


_heads = msgspec.json.Decoder(_ReceivedHead)
_openings = msgspec.json.Decoder(_Opening)
_closings = msgspec.json.Decoder(_Closing)
_responses = msgspec.json.Decoder(_ResponseFields)
_items = msgspec.json.Decoder(_ItemFields)
_deltas = msgspec.json.Decoder(_DeltaFields)
_messages = msgspec.json.Decoder(_MessageFields)


def _read_end(head: _ReceivedHead, data: bytes, document: bytes) -> ResponseEnd | None:
    if head.type is not None:
        closing = _read(_closings, data)
        if closing is None:
            return None
        document = bytes(closing.response)
    fields = _read(_responses, document)
    if fields is None:
        return None
    return ResponseEnd(
        raw=data,
        sequence_number=head.number,
        type=head.type or WHOLE_RESPONSE,
        document=document,
        response_id=fields.id,
        status=_worse(_TERMINAL.get(head.type or ""), fields.status if isinstance(fields.status, str) else None),
        output=tuple(map(bytes, fields.output or ())),
        usage=fields.usage if isinstance(fields.usage, dict) else None,
        incomplete_reason=_text(fields.incomplete_details, "reason"),
        error_code=_text(fields.error, "code"),
        error_message=_text(fields.error, "message"),
        stored=fields.store if isinstance(fields.store, bool) else None,
    )


def _count(value: object) -> int:
    return min(value, _MOST_TOKENS) if isinstance(value, int) and value > 0 else 0


def _text(value: object, name: str) -> str | None:
    found = value.get(name) if isinstance(value, dict) else None
    return found if isinstance(found, str) else None


def _worse(told: str | None, inside: str | None) -> str:
    """Return the status of a response whose event and object may disagree: nothing incomplete is called completed."""
    if told is None or inside is None:
        return told or inside or "in_progress"
    return inside if told == "completed" else told


def _read_created(data: bytes, head: _ReceivedHead) -> ResponseCreated | None:
    made = _read(_openings, data)
    if made is None:
        return None
    return ResponseCreated(raw=data, sequence_number=head.number, response_id=made.response.id)


def _read_item(data: bytes, head: _ReceivedHead) -> OutputItemAdded | OutputItemDone | None:
    made = _read(_items, data)
    if made is None:
        return None
    event = OutputItemDone if head.type == _ITEM_DONE else OutputItemAdded
    item = bytes(made.item)
    return event(raw=data, sequence_number=head.number, output_index=made.output_index, item=item)


def _read_text(data: bytes, head: _ReceivedHead) -> OutputTextDelta | None:
    made = _read(_deltas, data)
    if made is None:
        return None
    return OutputTextDelta(
        raw=data,
        sequence_number=head.number,
        delta=made.delta,
        output_index=made.output_index,
        content_index=made.content_index,
        item_id=made.item_id,
    )


def _read_delta(data: bytes, head: _ReceivedHead) -> FunctionCallArgumentsDelta | ReasoningDelta | None:
    made = _read(_deltas, data)
    if made is None:
        return None
    event = FunctionCallArgumentsDelta if head.type == _ARGUMENTS_DELTA else ReasoningDelta
    return event(
        raw=data,
        sequence_number=head.number,
        delta=made.delta,
        output_index=made.output_index,
        item_id=made.item_id,
    )


_ITEM_DONE = "response.output_item.done"
_ARGUMENTS_DELTA = "response.function_call_arguments.delta"
_READERS: Mapping[str, Callable[[bytes, _ReceivedHead], ClientEvent | None]] = {
    "response.created": _read_created,
    "response.output_item.added": _read_item,
    _ITEM_DONE: _read_item,
    "response.output_text.delta": _read_text,
    _ARGUMENTS_DELTA: _read_delta,
    "response.reasoning_text.delta": _read_delta,
    "response.reasoning_summary_text.delta": _read_delta,
}


def _read(decoder: msgspec.json.Decoder[T], data: bytes) -> T | None:
    """Return what a decoder makes of bytes from a server; None if they are not of that kind."""
    try:
        return decoder.decode(data)
    except UNREADABLE:
        return None


def text_parts(item: bytes) -> list[tuple[int, str]]:
    """Return the texts of a message with their places in its content; of any other item none."""
    message = _read(_messages, item) if b'"message"' in item else None
    if message is None or message.type != "message" or isinstance(message.content, str):
        return []
    return [(place, part.text or "") for place, part in enumerate(message.content) if part.type == "output_text"]
