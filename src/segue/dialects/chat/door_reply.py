"""The door of Chat Completions: the events of a turn as the chunks of a completion.

A stream ends in a `finish_reason` and `[DONE]` only if the answer ended. One that broke ends in an error, for which
OpenAI's clients look in each chunk. Not here: the completion itself (`completion`), and streams of a provider that pass
through (`passed_reply`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from msgspec import Raw

from segue.dialects.chat.completion import (
    BETWEEN_TEXTS,
    CompletionHead,
    all_warnings,
    completion_fields,
    completion_id,
    completion_usage,
    finish_reason,
    read_logprobs,
    url_citation,
)
from segue.dialects.chat.door_request import ChatRequest
from segue.dialects.chat.reasoning_details import write_detail
from segue.http.sse import write_event
from segue.protocol.codec import UNREADABLE, encode
from segue.protocol.events import Event, http_error
from segue.protocol.ids import ResponseId
from segue.protocol.items import key_of
from segue.protocol.problems import Problem, unreadable_answer
from segue.protocol.turns import Finished

DONE = write_event("", b"[DONE]")
_NULL = Raw(b"null")
_NO_LOGPROBS = frozenset({b"null", b"[]"})


class _TextDelta(msgspec.Struct):
    """An event that adds to a text; the numbers say to which one."""

    delta: str
    output_index: int = 0
    content_index: int = 0
    summary_index: int = 0
    logprobs: Raw = _NULL


class _ItemEvent(msgspec.Struct):
    item: Raw
    output_index: int = 0


class _NewCall(msgspec.Struct):
    call_id: str = ""
    name: str = ""


class _AddedAnnotation(msgspec.Struct):
    annotation: Any = None


_deltas = msgspec.json.Decoder(_TextDelta)
_item_events = msgspec.json.Decoder(_ItemEvent)
_new_calls = msgspec.json.Decoder(_NewCall)
_annotations = msgspec.json.Decoder(_AddedAnnotation)


class _JoinedTexts:
    """Texts that become one, with a blank line before each but the first."""

    def __init__(self) -> None:
        self._last: object = None

    def parted(self, text: object, delta: str) -> bytes:
        """Return more of a text as JSON, after what parts it from the one before."""
        last, self._last = self._last, text
        return encode(delta if last in (None, text) else BETWEEN_TEXTS + delta)


class ChatReplyWriter:
    """Writes one completion; `created_at` in unix seconds."""

    def __init__(self, asked: ChatRequest, response_id: ResponseId, created_at: int) -> None:
        self._asked = asked
        model = asked.create.settings.model
        self._head = CompletionHead(completion_id(response_id), "chat.completion.chunk", created_at, model)
        self._before = encode(self._head)[:-1] + b',"choices":[{"index":0,"delta":'
        self._after = b',"usage":null}' if asked.include_usage else b"}"
        self._begun = self._unreadable = False
        self._texts, self._refusals, self._thoughts = _JoinedTexts(), _JoinedTexts(), _JoinedTexts()
        self._calls: dict[int, int] = {}  # the number of each call, by the place of its item
        self._handlers: dict[str, Callable[[Event], bytes]] = {
            "response.output_text.delta": self._on_text,
            "response.output_text.annotation.added": self._on_annotation,
            "response.refusal.delta": self._on_refusal,
            "response.reasoning_summary_text.delta": self._on_thought,
            "response.reasoning_text.delta": self._on_thought,
            "response.output_item.added": self._on_added,
            "response.function_call_arguments.delta": self._on_arguments,
            "response.custom_tool_call_input.delta": self._on_input,
            "response.output_item.done": self._on_done,
        }

    def feed(self, events: Sequence[Event]) -> bytes:
        """Return the chunks of a batch of events; none for a reply that is not streamed."""
        if not self._asked.create.stream:
            return b""
        chunks: list[bytes] = []
        for event in events:
            handler = self._handlers.get(event.type)
            if handler is None:
                continue
            try:
                chunks.append(handler(event))
            except UNREADABLE:  # a server of the Responses API may send anything, and most of it passes there
                self._unreadable = True
        return b"".join(chunks)

    def finish(self, finished: Finished) -> bytes:
        """Return the end of the stream. Where something could not be read, the answer is not what it should be."""
        if self._unreadable:
            return error_chunk(unreadable_answer(), "server_error")
        warnings = all_warnings(finished, self._asked.warnings)
        told = b',"warnings":%b' % encode(warnings) if warnings else b""
        reason = finish_reason(finished).encode()
        chunks = [self._begin(b'""'), self._chunk(b"{}", reason=b'"%b"' % reason, told=told)]
        if self._asked.include_usage and finished.head.usage is not None:
            usage = encode(completion_usage(finished.head.usage))
            chunks.append(write_event("", b'%b,"choices":[],"usage":%b}' % (encode(self._head)[:-1], usage)))
        return b"".join((*chunks, DONE))

    def failed(self, problem: Problem, *, kind: str, status: int) -> bytes:  # noqa: ARG002 - the contract of doors
        """Return the end of a stream whose turn failed: nothing of it looks like the end of an answer."""
        return error_chunk(problem, kind)

    def whole(self, finished: Finished) -> bytes | Problem:
        """Return the completion, or why it cannot be told."""
        head = msgspec.structs.replace(self._head, object="chat.completion")
        try:
            return encode(completion_fields(head, finished, self._asked.warnings))
        except UNREADABLE:  # an item of a server of the Responses API, as in a stream
            return unreadable_answer()

    # --- chunks

    def _chunk(self, delta: bytes, *, logprobs: bytes = b"null", reason: bytes = b"null", told: bytes = b"") -> bytes:
        rest = b',"logprobs":%b,"finish_reason":%b}]%b%b' % (logprobs, reason, told, self._after)
        return write_event("", b"".join((self._before, delta, rest)))

    def _begin(self, content: bytes) -> bytes:
        """Return the chunk that says whose message it is, once."""
        if self._begun:
            return b""
        self._begun = True
        return self._chunk(b'{"role":"assistant","content":%b,"refusal":null}' % content)

    def _say(self, field: bytes, text: bytes, logprobs: bytes = b"null") -> bytes:
        said = self._chunk(b'{"%b":%b}' % (field, text), logprobs=logprobs)
        return said if self._begun else self._begin(b'""') + said

    # --- events

    def _on_text(self, event: Event) -> bytes:
        delta = _deltas.decode(event.data)
        logprobs = b"null"
        if bytes(delta.logprobs) not in _NO_LOGPROBS:
            tokens = read_logprobs(delta.logprobs)
            logprobs = encode({"content": tokens, "refusal": None}) if tokens else logprobs
        return self._say(b"content", self._texts.parted(delta.output_index, delta.delta), logprobs)

    def _on_refusal(self, event: Event) -> bytes:
        delta = _deltas.decode(event.data)
        return self._say(b"refusal", self._refusals.parted(delta.output_index, delta.delta))

    def _on_thought(self, event: Event) -> bytes:
        delta = _deltas.decode(event.data)
        part = (event.type, delta.output_index, delta.summary_index, delta.content_index)
        return self._say(b"reasoning_content", self._thoughts.parted(part, delta.delta))

    def _on_annotation(self, event: Event) -> bytes:
        citation = url_citation(_annotations.decode(event.data).annotation)
        return b"" if citation is None else self._say(b"annotations", encode([citation]))

    def _on_added(self, event: Event) -> bytes:
        added = _item_events.decode(event.data)
        kind = key_of(bytes(added.item)).kind
        if kind not in ("function_call", "custom_tool_call"):
            return b""
        number = self._calls[added.output_index] = len(self._calls)
        call = _new_calls.decode(added.item)
        custom = kind == "custom_tool_call"
        said: dict[str, Any] = {"index": number, "id": call.call_id, "type": "custom" if custom else "function"}
        said[said["type"]] = {"name": call.name, "input" if custom else "arguments": ""}
        return self._begin(b"null") + self._chunk(b'{"tool_calls":[%b]}' % encode(said))

    def _on_arguments(self, event: Event) -> bytes:
        return self._go_on(event, b'"function":{"arguments":%b}')

    def _on_input(self, event: Event) -> bytes:
        return self._go_on(event, b'"custom":{"input":%b}')

    def _go_on(self, event: Event, form: bytes) -> bytes:
        """Return more of what a call says."""
        delta = _deltas.decode(event.data)
        number = self._calls.get(delta.output_index)
        if number is None:
            return b""
        return self._chunk(b'{"tool_calls":[{"index":%d,%b}]}' % (number, form % encode(delta.delta)))

    def _on_done(self, event: Event) -> bytes:
        if key_of(event.item).kind != "reasoning":
            return b""
        detail = write_detail(event.item, _item_events.decode(event.data).output_index)
        return b"" if detail is None else self._say(b"reasoning_details", encode([detail]))


def error_chunk(problem: Problem, kind: str) -> bytes:
    """Return the error that a stream ends in: OpenAI's clients look for one in each chunk."""
    return write_event("", http_error(problem, kind))
