"""A lean stream: the events of a turn without what its client knows already, or gets again at the end of an item.

The events of a turn say most things several times. Three of them repeat the instructions and tools of the request. A
text comes in deltas, then with its own end, and with those of its part, its item and the response. A client that asks
for it gets the response with its id, status and usage, the deltas of texts, several of them as one, and every finished
item as the bytes that the record holds. The types stay; the numbers are those of the whole stream, so there are gaps.
An event that `LEFT_OUT` and `TEXTS` do not name passes as it is. Nothing is remembered but text that is held, so a
stream that is resumed anywhere is lean in the same way. Not here: how long text is held (`gateway.turns.lean_batches`),
and the record, which knows nothing of this.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from msgspec import UNSET, UnsetType

from segue.protocol.codec import UNREADABLE, encode
from segue.protocol.events import Event, response_event
from segue.protocol.responses import Failure, IncompleteDetails, Status, Usage

#: Items whose `output_item.done` is all that one needs to know of them.
WHOLE_ITEMS = frozenset({"message", "reasoning", "function_call", "custom_tool_call"})

_TEXT_NAMES = ("output_text", "refusal", "reasoning", "reasoning_text", "reasoning_summary_text")
_PARTS = ("content_part", "reasoning_summary_part")
_CALLS = ("function_call_arguments", "custom_tool_call_input")

#: Deltas of texts. Consecutive ones of one text become one event.
TEXTS = frozenset(f"response.{name}.delta" for name in _TEXT_NAMES)

#: Events that say nothing that another one does not say.
LEFT_OUT = frozenset(
    {
        "response.in_progress",
        "response.output_text.annotation.added",
        *(f"response.{name}.done" for name in _TEXT_NAMES),
        *(f"response.{name}.{what}" for name in _PARTS for what in ("added", "done")),
        *(f"response.{name}.{what}" for name in _CALLS for what in ("delta", "done")),
    }
)

_ADDED = "response.output_item.added"
_CARRIERS = frozenset(f"response.{what}" for what in ("created", "completed", "incomplete", "failed"))

#: Where the head of a response object begins and ends in an event. No string holds it: its quotation marks are escaped.
_RESPONSE, _OUTPUT = b'"response":', b',"output":['


class LeanResponse(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a lean stream says of the response object, beside an `output` that is empty. What is null is left out."""

    id: str
    object: str
    created_at: int
    completed_at: int | None = None
    status: Status
    error: Failure | None = None
    incomplete_details: IncompleteDetails | None = None
    usage: Usage | None = None
    warnings: tuple[str, ...] = ()


class _Item(msgspec.Struct):
    type: str


class _Added(msgspec.Struct):
    item: _Item


class LeanDelta(msgspec.Struct):
    """A piece of a text; its other members name the text."""

    item_id: str
    output_index: int
    delta: str
    content_index: int | UnsetType = UNSET
    summary_index: int | UnsetType = UNSET

    def continues(self, other: LeanDelta) -> bool:
        """Return whether both are pieces of one text, if their events are of one type."""
        return (
            self.item_id == other.item_id
            and self.output_index == other.output_index
            and self.content_index == other.content_index
            and self.summary_index == other.summary_index
        )


_heads = msgspec.json.Decoder(LeanResponse)
_added = msgspec.json.Decoder(_Added)
_deltas = msgspec.json.Decoder(LeanDelta)


class _HeldText:
    """Consecutive deltas of one text."""

    __slots__ = ("first", "number", "pieces", "size", "type")

    def __init__(self, event: Event, delta: LeanDelta) -> None:
        self.type = event.type
        self.first = delta
        self.pieces: list[str] = []
        self.size = 0
        self.number = 0

    def add(self, event: Event, delta: LeanDelta) -> None:
        """Add a delta. Its number is that of the whole now: a client that resumes after it gets exactly the rest."""
        self.pieces.append(delta.delta)
        self.size += len(delta.delta)
        self.number = event.sequence_number


class LeanWriter:
    """Writes what is left of a turn's events as JSON objects of the API."""

    def response(self, event: Event, head: LeanResponse) -> Event:
        """Write an event that carries a response object."""
        return response_event(event.type, encode(head)[:-1] + _OUTPUT + b"]}", event.sequence_number)

    def text(self, kind: str, first: LeanDelta, delta: str, *, number: int) -> Event:
        """Write deltas of the text that `first` belongs to as one; for more of it, `first` is the same object."""
        fields: dict[str, object] = {"type": kind, "item_id": first.item_id, "output_index": first.output_index}
        if first.content_index is not UNSET:
            fields["content_index"] = first.content_index
        if first.summary_index is not UNSET:
            fields["summary_index"] = first.summary_index
        fields["delta"] = delta
        if kind == "response.output_text.delta":
            fields["logprobs"] = []  # the schema requires it; the finished item has them
        fields["sequence_number"] = number
        return Event(kind, encode(fields), number)

    def other(self, event: Event) -> Event:
        """Write any other event."""
        return event


class LeanStream:
    """Makes the stream of one reader lean; feed it the events in their order."""

    def __init__(self, writer: LeanWriter | None = None) -> None:
        self._writer = LeanWriter() if writer is None else writer
        self._text: _HeldText | None = None  # the latest one

    @property
    def held(self) -> int:
        """How many characters of text are held back; an empty piece counts as well."""
        text = self._text
        return max(1, text.size) if text is not None and text.pieces else 0

    def feed(self, batch: Iterable[Event]) -> list[Event]:
        """Return what is to be sent now. Text at the end of the batch is held, since more of it may follow."""
        ready: list[Event] = []
        for event in batch:
            if event.type in TEXTS:
                self._hold(event, ready)
                continue
            if not _is_left_out(event):
                ready += self.flush()
                ready.append(self._write(event))
        return ready

    def flush(self) -> list[Event]:
        """Return the text that is held, as one event; nothing if none is."""
        text = self._text
        if text is None or not text.pieces:
            return []
        delta, text.pieces, text.size = "".join(text.pieces), [], 0
        return [self._writer.text(text.type, text.first, delta, number=text.number)]

    def _write(self, event: Event) -> Event:
        if event.type in _CARRIERS:
            return self._writer.response(event, _head_of(event))
        return self._writer.other(event)

    def _hold(self, event: Event, ready: list[Event]) -> None:
        try:
            delta = _deltas.decode(event.data)
        except UNREADABLE:  # not what the API defines: it passes as it is
            ready += self.flush()
            ready.append(event)
            return
        text = self._text
        if text is None or event.type != text.type or not delta.continues(text.first):
            ready += self.flush()
            text = self._text = _HeldText(event, delta)
        text.add(event, delta)


def _is_left_out(event: Event) -> bool:
    """Return whether an event says only what is known, or what the end of its item will say."""
    return event.type in LEFT_OUT or (event.type == _ADDED and _is_whole(event))


def _is_whole(added: Event) -> bool:
    """Return whether the end of the item that is added here will say everything about it."""
    try:
        return _added.decode(added.data).item.type in WHOLE_ITEMS
    except UNREADABLE:
        return False


def _head_of(event: Event) -> LeanResponse:
    """Return what is kept of the response object in an event of ours: neither the echo of the request nor output."""
    data = event.data
    return _heads.decode(data[data.index(_RESPONSE) + len(_RESPONSE) : data.index(_OUTPUT)] + b"}")
