"""The door of the Messages API: writing the reply, as events or as one message.

Messages have one block at a time, in the order of the output; what comes of a later item waits until those before it
are whole. Where the upstream speaks this API, its own events are sent: only the id of the message is another, and its
last event waits until the turn is committed. Not here: requests (`door_request`), and what a message is whole
(`message_fold`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import msgspec

from segue.dialects.messages.errors import write_error
from segue.dialects.messages.message_fold import MessageFold
from segue.http.sse import write_event
from segue.protocol.codec import UNREADABLE, encode, with_field
from segue.protocol.events import SOURCE, Event
from segue.protocol.ids import ResponseId, message_id
from segue.protocol.items import key_of
from segue.protocol.problems import Problem, unreadable_answer
from segue.protocol.responses import Usage, usage
from segue.protocol.turns import Finished

Json = dict[str, Any]

#: Why a message ended that was cut short (`incomplete_details.reason`).
_CUT: Mapping[str, str] = MappingProxyType({"max_output_tokens": "max_tokens", "content_filter": "refusal"})
#: What a message has that has not ended.
_NO_REASON: Mapping[str, None] = MappingProxyType(
    dict.fromkeys(("stop_reason", "stop_sequence", "stop_details", "container"))
)
_STOP = b'{"type":"message_stop"}'
_PING = b'{"type":"ping"}'
#: The event that may come anywhere, and that says nothing (https://platform.claude.com/docs/en/build-with-claude/streaming).
PING = write_event("ping", _PING)
_CALLS = frozenset({"function_call", "custom_tool_call"})
#: The items that are blocks of a message.
_WRITTEN = _CALLS | {"message", "reasoning"}
#: An error of the API itself: the type of an error that a stream ends in (`errors.KINDS`).
_UNREADABLE_STATUS = 502
#: What separates the parts of a summary, which are one text here.
_BETWEEN = "\n\n"


class _ReplyItem(msgspec.Struct):
    type: str = "message"
    call_id: str = ""
    name: str = ""
    arguments: str = ""
    input: str = ""
    content: list[Json] | None = None
    summary: list[Json] | None = None
    encrypted_content: str | None = None


class _TurnEvent(msgspec.Struct):
    output_index: int = 0
    content_index: int = 0
    summary_index: int = 0
    delta: str | None = None
    item: msgspec.Raw = msgspec.Raw(b"{}")

    @property
    def said(self) -> str:
        """What the event adds to a text; raises `ValidationError` if it does not say."""
        if self.delta is None:
            raise msgspec.ValidationError("An event that adds to a text has no text")
        return self.delta

    def read_item(self) -> _ReplyItem:
        """Return the item. Of one that no message has, only the type is read."""
        kind = key_of(bytes(self.item)).kind
        return _items.decode(self.item) if kind in _WRITTEN else _ReplyItem(kind)


class _SourceEvent(msgspec.Struct):
    type: str = ""
    message: msgspec.Raw = msgspec.Raw(b"")


_events = msgspec.json.Decoder(_TurnEvent)
_items = msgspec.json.Decoder(_ReplyItem)
_sources = msgspec.json.Decoder(_SourceEvent)


class _OpenReplyBlock:
    """The block that is being written: what it is of, and whether anything of it was said."""

    def __init__(self, kind: str, place: tuple[int, int]) -> None:
        self.kind = kind
        self.place = place


class MessagesWriter:
    """Writes one reply. `streamed` is false if it is wanted whole."""

    def __init__(self, response_id: ResponseId, model: str, *, streamed: bool) -> None:
        self._id = message_id(response_id)
        self._model = model
        self._fold = None if streamed else MessageFold()
        self._passes = False  # the provider's own events come
        self._started = False
        self._index = -1
        self._open: _OpenReplyBlock | None = None
        self._said: set[tuple[int, int]] = set()  # the parts of which something was written
        self._next = 0  # the item whose turn it is
        self._waiting: dict[int, list[Event]] = {}  # of later items
        self._done: set[int] = set()
        self._called = False
        self._unreadable = False  # something of the answer is not written
        self._writers: Mapping[str, Callable[[_TurnEvent], list[bytes]]] = {
            "response.output_item.added": self._on_added,
            "response.output_text.delta": lambda event: self._text(event, event.said),
            "response.refusal.delta": lambda event: self._text(event, event.said),
            "response.reasoning_summary_text.delta": lambda event: self._think(event.summary_index, event),
            "response.reasoning_text.delta": lambda event: self._think(event.content_index, event),
            "response.function_call_arguments.delta": lambda event: self._delta(
                {"type": "input_json_delta", "partial_json": event.said}
            ),
            "response.output_item.done": self._on_done,
        }

    def feed(self, events: Sequence[Event]) -> bytes:
        """Return a batch of events as events of this API."""
        written: list[bytes] = []
        for event in events:
            if event.type == SOURCE:
                written += self._pass(event.data)
            elif not self._passes:
                written += self._read(event)
        return self._write(written)

    def finish(self, finished: Finished) -> bytes:
        """Return the end of the stream. Where something could not be read, the answer is not what it should be."""
        if self._unreadable:
            return write_event("error", write_error(unreadable_answer(), _UNREADABLE_STATUS))
        return self._write([*([] if self._passes else self._end(finished)), _STOP])

    def failed(self, problem: Problem, *, kind: str, status: int) -> bytes:  # noqa: ARG002 - the type is this API's own
        """Return the end of the stream of a turn that failed."""
        return write_event("error", write_error(problem, status))

    def whole(self, finished: Finished) -> bytes | Problem:
        """Return the message, or why it cannot be told."""
        if self._unreadable:
            return unreadable_answer()
        self.finish(finished)
        assert self._fold is not None, "it was asked for as a stream"
        return self._fold.message()

    def _write(self, written: Sequence[bytes]) -> bytes:
        if self._fold is None:
            return b"".join(write_event(_kind_of(data), data) for data in written)
        for data in written:
            self._fold.feed(data)
        return b""

    # --- events of a provider of this API

    def _pass(self, data: bytes) -> list[bytes]:
        self._passes = True
        try:
            event = _sources.decode(data)
        except UNREADABLE:
            return []  # the turn has failed, or can do without
        if event.type in ("message_stop", "error", "") or not event.type.isprintable():
            return []  # it comes when the turn is committed, or says why it failed; or it is no event at all
        if event.type != "message_start":
            return [*([] if event.type == "ping" else self._start()), data]
        if self._started:
            return []
        try:
            own = with_field(data, "message", msgspec.Raw(with_field(bytes(event.message), "id", self._id)))
        except UNREADABLE:
            return self._start()  # it says nothing of its message
        self._started = True
        return [own]

    # --- events of any other

    def _read(self, event: Event) -> list[bytes]:
        if event.type not in self._writers:
            return []
        start = self._start()  # with the first that is said: until then, a turn that fails can get a status
        try:
            return start + self._take(event)
        except UNREADABLE:  # a server of the Responses API may send anything, and most of it passes there
            self._unreadable = True
            return start

    def _take(self, event: Event) -> list[bytes]:
        read = _events.decode(event.data)
        if read.output_index != self._next:
            self._waiting.setdefault(read.output_index, []).append(event)
            return []
        written = self._writers[event.type](read)
        while self._next in self._waiting:  # what came too early
            written += [data for early in self._waiting.pop(self._next) for data in self._take(early)]
        return written

    def _start(self) -> list[bytes]:
        """Return the beginning of the message, once."""
        if self._started:
            return []
        self._started = True
        return [self._message_start(), _PING]

    def _message_start(self) -> bytes:
        message: Json = {"id": self._id, "type": "message", "role": "assistant", "model": self._model, "content": []}
        message |= {**_NO_REASON, "usage": _usage(None)}
        return encode({"type": "message_start", "message": message})

    def _on_added(self, event: _TurnEvent) -> list[bytes]:
        item = event.read_item()
        if item.type not in _CALLS:
            return []
        self._called = True
        block = {"type": "tool_use", "id": item.call_id, "name": item.name, "input": {}, "caller": {"type": "direct"}}
        return self._begin("tool_use", (event.output_index, 0), block)

    def _text(self, event: _TurnEvent, delta: str) -> list[bytes]:
        place = (event.output_index, event.content_index)
        return [
            *self._begin("text", place, {"type": "text", "text": "", "citations": None}),
            *self._delta({"type": "text_delta", "text": delta}),
        ]

    def _think(self, part: int, event: _TurnEvent) -> list[bytes]:
        opening = self._begin(
            "thinking", (event.output_index, 0), {"type": "thinking", "thinking": "", "signature": ""}
        )
        place = (event.output_index, part)
        text = f"{_BETWEEN}{event.said}" if part and place not in self._said else event.said
        self._said.add(place)
        return [*opening, *self._delta({"type": "thinking_delta", "thinking": text})]

    def _on_done(self, event: _TurnEvent) -> list[bytes]:
        item = event.read_item()
        index, written = event.output_index, list[bytes]()
        if item.type == "message":
            for number, part in enumerate(item.content or ()):
                if (index, number) not in self._said:
                    text = part.get("text") or part.get("refusal") or ""
                    written += self._text(_TurnEvent(index, number), str(text)) if text else []
        elif item.type == "reasoning":
            written += self._end_thinking(index, item)
        elif item.type == "custom_tool_call":
            written += self._delta({"type": "input_json_delta", "partial_json": encode({"input": item.input}).decode()})
        self._next = index + 1
        return [*written, *self._stop()]

    def _end_thinking(self, index: int, item: _ReplyItem) -> list[bytes]:
        texts = [str(part.get("text") or "") for part in (*(item.summary or ()), *(item.content or ()))]
        sealed, written = item.encrypted_content, list[bytes]()
        if self._open is None and not any(texts):
            if sealed is None:
                return []
            return self._begin("redacted_thinking", (index, 0), {"type": "redacted_thinking", "data": sealed})
        if self._open is None:
            written = self._think(0, _TurnEvent(index, delta=_BETWEEN.join(texts)))
        if sealed is not None:
            written += self._delta({"type": "signature_delta", "signature": sealed})
        return written

    def _begin(self, kind: str, place: tuple[int, int], block: Json) -> list[bytes]:
        """Start a block, unless it is the open one."""
        if self._open is not None and self._open.kind == kind and self._open.place == place:
            return []
        written = self._stop()
        self._index += 1
        self._open = _OpenReplyBlock(kind, place)
        self._said.add(place)
        return [*written, encode({"type": "content_block_start", "index": self._index, "content_block": block})]

    def _delta(self, delta: Json) -> list[bytes]:
        return [encode({"type": "content_block_delta", "index": self._index, "delta": delta})]

    def _stop(self) -> list[bytes]:
        if self._open is None:
            return []
        self._open = None
        return [encode({"type": "content_block_stop", "index": self._index})]

    def _end(self, finished: Finished) -> list[bytes]:
        started = [] if self._started else [self._message_start()]
        details = finished.head.incomplete_details
        reason = "tool_use" if self._called else "end_turn"
        if details is not None:
            reason = _CUT.get(details.reason, "max_tokens")
        delta = {**_NO_REASON, "stop_reason": reason}
        end: Json = {"type": "message_delta", "delta": delta, "usage": _usage(finished.head.usage)}
        if finished.head.warnings:
            end["warnings"] = finished.head.warnings
        return [*started, *self._stop(), encode(end)]


def _kind_of(data: bytes) -> str:
    return _sources.decode(data).type


def _usage(counted: Usage | None) -> Json:
    """Return the tokens of a turn, with all fields of the API. What a cache held or wrote is no `input_tokens` here."""
    used = counted or usage(0, 0)
    read, written = used.input_tokens_details.cached_tokens, used.input_tokens_details.cache_write_tokens
    return {
        "input_tokens": max(0, used.input_tokens - read - written),
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": read,
        "cache_creation": None,
        "output_tokens": used.output_tokens,
        "output_tokens_details": {"thinking_tokens": used.output_tokens_details.reasoning_tokens},
        "server_tool_use": None,
        "service_tier": None,
        "inference_geo": None,
    }
