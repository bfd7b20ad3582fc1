"""The Anthropic Messages dialect: reading its stream.

There is one handler for each event type, and one for each type of block and of delta. A block ends before the event
that says whether it was cut off, so a call stays open until the next block or the end of the message. Servers that
imitate this API leave out indexes, or the stop of a block; then an event belongs to the block that began last. Not
here: requests (`request`), and the events of the output (`output_writer`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import msgspec

from segue.dialects.interface import Output
from segue.dialects.lenient_decoding import LenientDecoder
from segue.dialects.reply_decoder import TranslatingDecoder
from segue.dialects.stream_end import FAILED, count, counted
from segue.http.sse import SseEvent
from segue.protocol.codec import UNREADABLE, encode
from segue.protocol.events import Event
from segue.protocol.ids import ResponseId
from segue.protocol.problems import quoted
from segue.protocol.responses import Usage


class Thought(msgspec.Struct, omit_defaults=True):
    """What goes back to the provider with the text of its thinking: a signature, or a redacted block.

    `effort` is what the request asked for; it is for ourselves.
    """

    signature: str = ""
    redacted: str | None = None
    effort: str | None = None


class _ContentBlock(msgspec.Struct):
    type: str
    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    data: str | None = None
    id: str | None = None
    name: str | None = None
    input: Any = None


class _MessagesDelta(msgspec.Struct):
    type: str | None = None
    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    partial_json: str | None = None
    stop_reason: str | None = None
    stop_details: Any = None


class _StartedMessage(msgspec.Struct):
    usage: dict[str, Any] | None = None


class _MessagesEvent(msgspec.Struct):
    type: str = ""
    index: int | None = None
    message: _StartedMessage | str | None = None  # in an error of vLLM it is a text
    content_block: _ContentBlock | None = None
    delta: _MessagesDelta | None = None
    usage: dict[str, Any] | None = None


class _OpenBlock(msgspec.Struct):
    """A content block that has started and not stopped; `key` is its number, as an index can be used again."""

    type: str
    key: int
    signature: str = ""
    input: Any = None  # of a call whose input came at once


_events = msgspec.json.Decoder(_MessagesEvent)
_lenient_events = LenientDecoder(
    _MessagesEvent,
    answer=frozenset({"type", "content_block", "delta", "text", "thinking", "signature", "data", "partial_json"}),
)

#: What a stop reason means: None for a complete answer, else why it is incomplete.
STOP: dict[str, str | None] = {
    "end_turn": None,
    "tool_use": None,
    "stop_sequence": None,
    "max_tokens": "max_output_tokens",
    "model_context_window_exceeded": "max_output_tokens",
    "refusal": "content_filter",
}


class MessagesDecoder(TranslatingDecoder):
    """Reads one stream of events; `names` are those of tools that have another one in this API, by that."""

    def __init__(
        self,
        response_id: ResponseId,
        provider: str,
        *,
        custom: frozenset[str] = frozenset(),
        names: Mapping[str, str] = MappingProxyType({}),
        effort: str | None = None,
        warnings: tuple[str, ...] = (),
    ) -> None:
        super().__init__(response_id, provider, custom=custom, warnings=warnings)
        self._names = names
        self._effort = effort
        self._blocks: dict[int, _OpenBlock] = {}  # by their indexes, in the order in which they began
        self._started = 0
        self._call: int | None = None  # the call whose block has stopped but that stays open
        self._usage: dict[str, Any] = {}
        self._handlers: dict[str, Callable[[_MessagesEvent], Output]] = {
            "message_start": self._on_message_start,
            "content_block_start": self._on_block_start,
            "content_block_delta": self._on_block_delta,
            "content_block_stop": self._on_block_stop,
            "message_delta": self._on_message_delta,
            "message_stop": lambda event: self._on_other(event) + self._on_message_stop(),
            "ping": self._on_other,
        }
        self._starts: dict[str, Callable[[_OpenBlock, _ContentBlock], list[Event]]] = {
            "text": self._start_text,
            "thinking": self._start_thinking,
            "redacted_thinking": self._start_redacted,
            "tool_use": self._start_call,
        }
        self._deltas: dict[str, Callable[[_OpenBlock, _MessagesDelta], list[Event]]] = {
            "text_delta": lambda _, delta: self._writer.text(delta.text or ""),
            "thinking_delta": lambda _, delta: self._writer.reasoning(delta.thinking or ""),
            "signature_delta": self._sign,
            "input_json_delta": self._grow_call,
        }

    def feed(self, event: SseEvent) -> Output:
        """Read one event."""
        if self.ended:
            return []
        if event.type == "error":
            return self._on_error(event)
        try:
            try:
                read = _events.decode(event.data)
            except UNREADABLE:
                read = self._decode_leniently(_lenient_events, event.data.strip() or b'{"type":"ping"}')
            kind = read.type or event.type
            handler = self._handlers.get(kind)
            if handler is not None:
                return handler(read)
        except UNREADABLE:
            if event.data.strip() == b"[DONE]":  # as the Chat Completions API ends a stream
                return self._on_message_stop()
            return self._on_unreadable(event, "an event is no JSON of a known shape")
        failed = self._find_error(event)
        if not failed:
            self._stream_end.warn_of(kind)
        return failed

    # --- events

    def _on_other(self, event: _MessagesEvent) -> Output:
        """Read the piece of a block that is in an event whose type says something else; nearly always there is none."""
        if event.content_block is not None:
            return self._on_block_start(event)
        is_of_a_block = event.delta is not None and event.delta.type in self._deltas
        return self._on_block_delta(event) if is_of_a_block else []

    def _on_message_start(self, event: _MessagesEvent) -> Output:
        self._count(event.message.usage if isinstance(event.message, _StartedMessage) else None)
        return self._on_other(event)

    def _on_block_start(self, event: _MessagesEvent) -> Output:
        block = event.content_block
        if block is None:
            return self._stream_end.broken("a block starts that is none")
        if self._stop_reason is not None:
            self._go_on()
        index = self._started if event.index is None else event.index
        unstopped = self._blocks.pop(index, None)
        events: Output = [] if unstopped is None else [*self._end_block(unstopped)]
        opened = self._blocks[index] = _OpenBlock(block.type, self._started)
        self._started += 1
        start = self._starts.get(block.type)
        if start is None:
            self._stream_end.warn_of(block.type)
            return events
        if block.type == "tool_use" and not block.name:
            return self._stream_end.broken("a tool call has no name")
        return [*events, *self._end_call(), *start(opened, block)]

    def _on_block_delta(self, event: _MessagesEvent) -> Output:
        index, delta = event.index, event.delta
        block = None if index is None else self._blocks.get(index)
        if block is None:
            block = self._blocks.get(self._index_of(event))
        if block is None or delta is None:
            return self._stream_end.broken("a delta belongs to no block")
        if self._stop_reason is not None:
            self._go_on()
        if block.type not in self._starts:
            return []  # there was a warning at its start
        kind = delta.type or ""
        handler = self._deltas.get(kind)
        if handler is None:
            self._stream_end.warn_of(kind)
            return []
        if (kind == "input_json_delta") != (block.type == "tool_use"):
            return self._stream_end.broken("a delta does not fit its block")
        return [*handler(block, delta)]

    def _on_block_stop(self, event: _MessagesEvent) -> Output:
        block = self._blocks.pop(self._index_of(event), None)
        if block is None:
            return self._stream_end.broken("a block stops that did not start")
        return [*self._end_block(block)]

    def _on_message_delta(self, event: _MessagesEvent) -> Output:
        self._count(event.usage)
        output, delta = self._on_other(event), event.delta
        if delta is not None:
            self._stop(delta.stop_reason, STOP)
            self._counted = bool(event.usage) and not self._blocks
            if isinstance(delta.stop_details, dict) and isinstance(delta.stop_details.get("explanation"), str):
                self._stream_end.warn(f"The upstream refused: {quoted(delta.stop_details['explanation'], 400)}.")
        return output

    def _on_message_stop(self) -> Output:
        if self.ended:
            return []
        if self._stop_reason is None and self._writer.empty:
            return self._stream_end.empty()
        if self._stop_reason is None and self._writer.has_partial_call():
            return self._stream_end.stopped(truncated=False)
        if self._stop_reason is None:
            self._stream_end.warn("The upstream did not say why it stopped.")
        self._stop_reason = self._stop_reason or "end_turn"
        return self._finish()

    def _index_of(self, event: _MessagesEvent) -> int:
        """Return the index of the block that an event is about: of the last open one, if it can be no other."""
        index, blocks = event.index, self._blocks
        if index is None or (index not in blocks and len(blocks) == 1):
            return next(reversed(blocks), 0)
        return index

    # --- blocks

    def _start_text(self, _: _OpenBlock, block: _ContentBlock) -> list[Event]:
        return [*self._writer.end_part(), *self._writer.text(block.text or "")]

    def _start_thinking(self, opened: _OpenBlock, block: _ContentBlock) -> list[Event]:
        opened.signature = block.signature or ""
        return [*self._writer.end_reasoning(), *self._writer.reasoning(block.thinking or "")]

    def _start_redacted(self, _: _OpenBlock, block: _ContentBlock) -> list[Event]:
        return [*self._writer.end_reasoning(), *self._seal(Thought(redacted=block.data or "", effort=self._effort))]

    def _start_call(self, opened: _OpenBlock, block: _ContentBlock) -> list[Event]:
        opened.input = block.input or None
        call_id = self._writer.new_call_id(block.id or "")
        name = block.name or ""
        return self._writer.start_call(opened.key, call_id, self._names.get(name, name))

    def _sign(self, block: _OpenBlock, delta: _MessagesDelta) -> list[Event]:
        block.signature += delta.signature or ""
        return []

    def _grow_call(self, block: _OpenBlock, delta: _MessagesDelta) -> list[Event]:
        if not delta.partial_json or (block.input and delta.partial_json.strip() in {"", "{}"}):
            return []  # it has come at once, and this stands for nothing
        block.input = None
        return self._writer.arguments(block.key, delta.partial_json)

    def _end_block(self, block: _OpenBlock) -> list[Event]:
        match block.type:
            case "thinking":
                return self._end_thinking(block)
            case "tool_use":
                self._call = block.key
                return self._writer.arguments(block.key, "" if block.input is None else encode(block.input).decode())
            case _:
                return []

    def _end_thinking(self, block: _OpenBlock) -> list[Event]:
        if not block.signature:  # it was cut off: there is nothing to send back
            return self._writer.end_reasoning()
        return self._seal(Thought(block.signature, effort=self._effort))

    def _end_call(self) -> list[Event]:
        call, self._call = self._call, None
        return [] if call is None else self._writer.end_call(call)

    # --- the end

    def _count(self, usage: dict[str, Any] | None) -> None:
        self._usage |= {name: value for name, value in (usage or {}).items() if value is not None}

    def _finish(self) -> Output:
        stop = self._stop_reason
        assert stop is not None, "only a reply whose reason is known is finished"
        if stop in FAILED:
            return self._stream_end.stopped_with_an_error()
        if stop not in STOP:
            self._stream_end.warn(f"The upstream stopped for a reason that is not known here: {quoted(stop, 40)}.")
        cut = self._cut
        events: Output = [event for block in self._blocks.values() for event in self._end_block(block)]
        events += self._writer.end("completed" if cut is None else "incomplete")
        return events + self._stream_end.finished(cut, read_usage(self._usage))


def read_usage(usage: dict[str, Any]) -> Usage:
    """Read `usage`. This API does not count tokens that its cache held, or wrote, as `input_tokens`; ours does."""
    read, written = count(usage, "cache_read_input_tokens"), count(usage, "cache_creation_input_tokens")
    return counted(
        count(usage, "input_tokens") + read + written,
        count(usage, "output_tokens"),
        cached=read,
        written=written,
        reasoning=count(usage.get("output_tokens_details"), "thinking_tokens"),
    )
