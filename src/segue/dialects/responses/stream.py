"""The Responses dialect: reading its stream, most of which passes on as the bytes it is.

There is one handler for each event type that is acted on: items are counted and collected, reasoning gets the mark of
its provider, and our own events replace those that carry the response. All other events of a response pass, also types
that do not exist yet. The upstream must keep the part of the protocol that we rely on: items begin in order and end
once. What is inside an item is not checked; that is between the upstream and the client. Not here: requests
(`request`) and numbering (`protocol.turns`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from segue.dialects.error_shapes import error_of
from segue.dialects.interface import Output
from segue.dialects.provider_errors import ProviderError, code_of
from segue.dialects.reply_decoder import BaseReplyDecoder
from segue.dialects.responses.missing_fields import MissingFieldFiller
from segue.dialects.sealed_reasoning import seal
from segue.dialects.stream_end import count, counted
from segue.http.sse import SseEvent
from segue.protocol.codec import UNREADABLE, decode_value, with_field
from segue.protocol.events import Event
from segue.protocol.problems import Problem
from segue.protocol.responses import Failure, Usage

_NULL = msgspec.Raw(b"null")


class _OutputItem(msgspec.Struct):
    type: str
    id: str | None = None
    call_id: str | None = None
    encrypted_content: str | None = None


class _IncompleteReason(msgspec.Struct):
    reason: str | None = None


class _EndedResponse(msgspec.Struct):
    usage: dict[str, Any] | None = None
    error: Any = None
    incomplete_details: _IncompleteReason | None = None


class _EventHead(msgspec.Struct):
    type: str = ""
    sequence_number: int = -1
    output_index: int | None = None
    item: msgspec.Raw = _NULL
    response: msgspec.Raw = _NULL


_heads = msgspec.json.Decoder(_EventHead)
_items = msgspec.json.Decoder(_OutputItem)
_responses = msgspec.json.Decoder(_EndedResponse)

_ADDED = "response.output_item.added"
_DONE = "response.output_item.done"
_NO_RESPONSE = _EndedResponse()


class ResponsesDecoder(BaseReplyDecoder):
    """Reads one stream of events."""

    def __init__(self, provider: str, warnings: tuple[str, ...] = ()) -> None:
        super().__init__(provider, warnings)
        self._filler = MissingFieldFiller()
        self._added = 0
        self._done = 0
        self._early: dict[int, Event] = {}  # done, but an item that began before is not
        self._handlers: dict[str, Callable[[_EventHead, bytes], Output]] = {
            "response.created": lambda *_: [],
            "response.queued": lambda *_: [],
            "response.in_progress": lambda *_: [],
            _ADDED: self._on_added,
            _DONE: self._on_done,
            "response.completed": self._on_completed,
            "response.incomplete": self._on_incomplete,
            "response.failed": self._on_failed,
            "response.cancelled": self._on_failed,
        }

    def feed(self, event: SseEvent) -> Output:
        """Read one event."""
        if self.ended or event.data == b"[DONE]":
            return []
        if event.type == "error":
            return self._on_error(event)
        data = event.data
        try:
            head = _heads.decode(data)
            if b"\n" in data or b"\r" in data:
                data = msgspec.json.format(data, indent=-1)  # one event is one line
            kind = head.type or event.type
            if head.output_index is None:
                data = self._filler.fill(kind, data)
                head = _heads.decode(data)
            handler = self._handlers.get(kind)
            if handler is not None:
                return handler(head, data)
        except UNREADABLE:
            return self._on_unreadable(event, "an event is no JSON of a known shape")
        if not kind.startswith("response."):
            return self._on_other(kind, event)
        return self._pass(kind, head, data)

    # --- events

    def _on_other(self, kind: str, event: SseEvent) -> Output:
        """Read an event that is no event of a response: an error, or a vendor's own, which clients do not know."""
        failed = self._find_error(event)
        if not failed and kind != "keepalive":
            self._stream_end.warn_of(kind)
        return failed

    def _pass(self, kind: str, head: _EventHead, data: bytes) -> Output:
        if head.output_index is not None and not self._is_open(head.output_index):
            return self._stream_end.broken(f"{kind[:60]} belongs to no item that is open")
        return [Event(kind, data, head.sequence_number)]

    def _on_added(self, head: _EventHead, data: bytes) -> Output:
        if head.output_index != self._added or head.item == _NULL:
            return self._stream_end.broken("an item begins out of order")
        self._added += 1
        item = self._sealed(head.item)
        if item is not None:
            data = with_field(data, "item", msgspec.Raw(item))
        return [Event(_ADDED, data, head.sequence_number)]

    def _on_done(self, head: _EventHead, data: bytes) -> Output:
        index = head.output_index
        if index is None or not self._is_open(index) or head.item == _NULL:
            return self._stream_end.broken("an item ends that did not begin")
        if isinstance(decode_value(head.item, "item"), Problem):  # it is kept, and other code parses it again
            return self._stream_end.broken("an item is nested too deeply")
        item = self._sealed(head.item)
        if item is not None:
            data = with_field(data, "item", msgspec.Raw(item))
        self._early[index] = Event(_DONE, data, head.sequence_number, item or bytes(head.item))
        events: Output = []
        while self._done in self._early:
            events.append(self._early.pop(self._done))
            self._done += 1
        return events

    def _is_open(self, index: int) -> bool:
        return self._done <= index < self._added and index not in self._early

    def _sealed(self, raw: msgspec.Raw) -> bytes | None:
        """Return reasoning with the mark of its provider, encrypted or not; None for an item that stays as it is."""
        item = _items.decode(raw)
        if item.type != "reasoning":
            return None
        return with_field(bytes(raw), "encrypted_content", seal(self._provider, item.encrypted_content or ""))

    # --- the end

    def _on_completed(self, head: _EventHead, _: bytes) -> Output:
        return self._stream_end.completed(read_usage(_response(head).usage))

    def _on_incomplete(self, head: _EventHead, _: bytes) -> Output:
        response = _response(head)
        details = response.incomplete_details
        reason = None if details is None else details.reason
        return self._stream_end.incomplete(reason or "max_output_tokens", read_usage(response.usage))

    def _on_failed(self, head: _EventHead, _: bytes) -> Output:
        response = _response(head)
        error = ProviderError() if response.error is None else error_of(response.error)
        message = error.message or "The upstream failed without saying why."
        # Its codes are those of the same API that our clients use, so they pass.
        code = error.words[0] if error.words else code_of(error)
        return self._stream_end.failed(Failure(code, message), read_usage(response.usage))


def _response(head: _EventHead) -> _EndedResponse:
    return _NO_RESPONSE if head.response == _NULL else _responses.decode(head.response)


def read_usage(usage: dict[str, Any] | None) -> Usage | None:
    """Read `usage`."""
    if usage is None:
        return None
    sent, made = usage.get("input_tokens_details"), usage.get("output_tokens_details")
    return counted(
        count(usage, "input_tokens"),
        count(usage, "output_tokens"),
        cached=count(sent, "cached_tokens"),
        written=count(sent, "cache_write_tokens"),
        reasoning=count(made, "reasoning_tokens"),
    )
