"""The Chat Completions dialect: reading its stream.

A chunk has no type, so each field of its `delta` has a handler. The stream ends with a chunk with `finish_reason`, one
with `usage`, and `[DONE]`; some servers leave out one or more of them, and some give a reason before the end. Not here:
requests (`request`), and the events of the output (`output_writer`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from segue.dialects.chat.tool_calls import CallAssembler, CallPiece, PendingCall
from segue.dialects.error_shapes import error_of
from segue.dialects.interface import Output
from segue.dialects.lenient_decoding import LenientDecoder, decode_json
from segue.dialects.reply_decoder import TranslatingDecoder
from segue.dialects.stream_end import FAILED, count, counted
from segue.http.sse import SseEvent
from segue.protocol.codec import UNREADABLE, encode
from segue.protocol.events import Event
from segue.protocol.ids import ResponseId
from segue.protocol.responses import Usage

_Raw = msgspec.Raw
_NULL = _Raw(b"null")


class ReturnedReasoning(msgspec.Struct, omit_defaults=True):
    """What goes back to the provider with the text of its reasoning.

    `field` is where the text stood; `details` are OpenRouter's `reasoning_details`; `calls` is what belongs to a tool
    call (Gemini's thought signatures in `extra_content`), by the id of the call.
    """

    field: str | None = None
    details: list[_Raw] = []
    calls: dict[str, _Raw] = {}


class _TokenAlternative(msgspec.Struct):
    token: str
    logprob: float
    bytes: list[int] | None = None

    def __post_init__(self) -> None:
        self.bytes = self.bytes or []  # some servers leave them out; our API must not


class _TokenChoice(_TokenAlternative):
    top_logprobs: list[_TokenAlternative] | None = None

    def __post_init__(self) -> None:
        self.bytes = self.bytes or []
        self.top_logprobs = self.top_logprobs or []


class _ChoiceLogprobs(msgspec.Struct):
    content: list[_TokenChoice] | None = None


class _ChunkChoice(msgspec.Struct):
    index: int = 0
    delta: dict[str, _Raw] | None = None
    message: dict[str, _Raw] | None = None
    text: _Raw = _NULL  # of the older Completions API
    finish_reason: str | None = None
    logprobs: _ChoiceLogprobs | None = None
    error: Any = None


class _CompletionChunk(msgspec.Struct):
    choices: list[_ChunkChoice] | None = None
    usage: dict[str, Any] | None = None
    error: Any = None
    base_resp: Any = None  # MiniMax
    x_groq: Any = None


class _FunctionDelta(msgspec.Struct):
    name: str | None = None
    arguments: Any = None


class _CustomDelta(msgspec.Struct):
    name: str | None = None
    input: Any = None


class _ToolCallDelta(msgspec.Struct):
    index: int | None = None
    id: str | None = None
    function: _FunctionDelta | None = None
    custom: _CustomDelta | None = None  # only a client of this API can have asked for it
    extra_content: _Raw = _NULL


_Content = str | list[dict[str, Any]]

_chunks = msgspec.json.Decoder(_CompletionChunk)
_contents = msgspec.json.Decoder(_Content)
_strings = msgspec.json.Decoder(str)
_call_deltas = msgspec.json.Decoder(list[_ToolCallDelta])
_functions = msgspec.json.Decoder(_FunctionDelta)
_details = msgspec.json.Decoder(list[dict[str, Any]])

#: The fields of a chunk that hold the answer, and what a field of a delta is called when it is read alone.
_ANSWER = frozenset(
    {
        *("choices", "delta", "message", "content", "text", "refusal", "function", "arguments", "custom", "input"),
        *("thinking", "reasoning", "reasoning_content", ""),
    }
)
_lenient_chunks = LenientDecoder(_CompletionChunk, answer=_ANSWER)
_lenient_call_deltas = LenientDecoder(list[_ToolCallDelta], answer=_ANSWER)
_lenient_functions = LenientDecoder(_FunctionDelta, answer=_ANSWER)

#: What a finish reason means: None for a complete answer, else why it is incomplete.
FINISH: dict[str, str | None] = {
    "stop": None,
    "tool_calls": None,
    "function_call": None,
    "eos": None,
    "end_turn": None,
    "length": "max_output_tokens",
    "content_filter": "content_filter",
}
#: What a field holds that says nothing.
_EMPTY = frozenset({b"null", b'""', b"[]", b"{}", b"false"})
#: What may stand beside the pieces of a call, and ends nothing.
_BESIDE_CALLS = frozenset({"role", "tool_calls"})
#: Fields of reasoning detail that grow by pieces.
_GROWING = frozenset({"text", "summary", "data"})


class ChatDecoder(TranslatingDecoder):
    """Reads one stream of chunks."""

    def __init__(
        self,
        response_id: ResponseId,
        provider: str,
        *,
        custom: frozenset[str] = frozenset(),
        warnings: tuple[str, ...] = (),
    ) -> None:
        super().__init__(response_id, provider, custom=custom, warnings=warnings)
        self._usage: dict[str, Any] | None = None
        self._field: str | None = None
        self._thinking = False
        self._thought = ""  # what came last in that field
        self._details: list[dict[str, Any]] = []
        self._calls = CallAssembler(self._writer.arguments_of)
        self._named: PendingCall | None = None  # its name may go on
        self._message: dict[str, _Raw] | None = None  # the last that was read in place of a delta
        self._choice: int | None = None  # the index of the answer: one was asked for, and the first is taken
        self._logprobs: list[_TokenChoice] = []
        self._unsaid: list[_TokenChoice] = []  # of tokens that are a part of a character: their text comes later
        self._handlers: dict[str, Callable[[_Raw], list[Event]]] = {
            "role": lambda _: [],
            "content": self._on_content,
            "refusal": self._on_refusal,
            "reasoning_content": lambda raw: self._on_reasoning("reasoning_content", raw),
            "reasoning": lambda raw: self._on_reasoning("reasoning", raw),
            "reasoning_details": self._on_details,
            "tool_calls": self._on_tool_calls,
            "function_call": self._on_function_call,
        }

    def feed(self, event: SseEvent) -> Output:
        """Read one chunk."""
        if self.ended:
            return []
        if event.data.strip() == b"[DONE]" or event.type == "message_stop":  # the second is the Messages API's
            return self._finish()
        if event.type == "error":
            return self._on_error(event)
        try:
            try:
                chunk = _chunks.decode(event.data)
            except UNREADABLE:
                chunk = self._decode_leniently(_lenient_chunks, event.data.strip() or b"{}")
            odd = not chunk.choices or chunk.error or chunk.base_resp or chunk.x_groq
            return (self._on_odd(event, chunk) if odd else []) or self._on_chunk(chunk)
        except UNREADABLE:
            return self._on_unreadable(event, "a chunk is no JSON of a known shape")

    # --- chunks

    def _on_odd(self, event: SseEvent, chunk: _CompletionChunk) -> Output:
        """Read what may be an error; an event with a name and no choices is none of this API, and left out."""
        failed = self._find_error(event)
        if not failed and chunk.choices is None and event.type not in {"", "message", "ping"}:
            self._stream_end.warn_of(event.type)
        return failed

    def _on_chunk(self, chunk: _CompletionChunk) -> Output:
        output: Output = []
        for choice in chunk.choices or ():
            if self._choice is None:
                self._choice = choice.index
            if choice.index == self._choice:
                output += self._on_choice(choice)
                if self._stream_end.ended:
                    return output
            elif choice.delta or choice.message or choice.text != _NULL:
                self._stream_end.warn("The upstream gave more than one answer: the first is here.")
        if chunk.usage:
            self._counted = self._usage is None  # a server that counts in every chunk says nothing about its end
            self._usage = chunk.usage
        elif output:
            self._counted = False
        return output

    def _on_choice(self, choice: _ChunkChoice) -> Output:
        if choice.error:  # OpenRouter, with the finish reason "error"
            return self._stream_end.failed_with(error_of(choice.error))
        self._logprobs, self._unsaid = self._unsaid, []
        if choice.logprobs is not None and choice.logprobs.content:
            self._logprobs = self._logprobs + choice.logprobs.content
        output: Output = []
        delta = choice.delta
        if choice.message or choice.text is not _NULL:
            delta = self._read_whole(choice)
        for name, raw in (delta or {}).items():
            if bytes(raw) in _EMPTY:
                if name == "content" and raw != _NULL:
                    self._unsaid = self._logprobs
                continue
            handler = self._handlers.get(name)
            if self._named is not None and name not in _BESIDE_CALLS:
                output += self._start_named()
            if handler is None:
                self._stream_end.warn_of(name)
            else:
                output += handler(raw)
        if self._stop_reason is not None and (output or self._named is not None):
            self._go_on()
        return output if choice.finish_reason is None else output + self._on_finish(choice.finish_reason)

    def _read_whole(self, choice: _ChunkChoice) -> dict[str, _Raw]:
        """Return what a choice says in a `message` or a `text`, if its delta says nothing.

        Servers that do not stream send a whole answer in one event. Others send pieces of it in this shape, or the
        whole again at the end of their deltas.
        """
        delta = choice.delta or {}
        if any(name != "role" and bytes(raw) not in _EMPTY for name, raw in delta.items()):
            return delta
        if not choice.message:
            return {"content": choice.text}
        if self._message is None and not self._writer.empty:
            return self._read_unsaid(choice.message)
        if choice.message == self._message:
            self._stream_end.warn_of("message")
            return delta
        self._message = choice.message
        return choice.message

    def _read_unsaid(self, message: dict[str, _Raw]) -> dict[str, _Raw]:
        """Return what a message after deltas says that they did not: its text or its calls, if they had none."""
        said, unsaid = self._writer.said(), {}
        content = message.get("content", _NULL)
        text = _plain(decode_json(bytes(content), _ANSWER))
        if text and not said:
            unsaid["content"] = content
        elif text.strip() not in {"", said.strip()}:
            self._stream_end.warn_of("message")
        if "tool_calls" in message and self._calls.empty:
            unsaid["tool_calls"] = message["tool_calls"]
        return unsaid

    def _on_content(self, raw: _Raw) -> list[Event]:
        try:
            text = _contents.decode(raw)
        except UNREADABLE:
            text = self._read_content(raw)
        if isinstance(text, str):
            return self._say(text)
        events: list[Event] = []
        for part in text:  # Mistral's models that think
            if part.get("type") == "thinking":
                events += self._think("content", _plain(part.get("thinking")))
            else:
                events += self._say(_plain(part))
        return events

    def _read_content(self, raw: _Raw) -> _Content:
        """Read a text with half a character in it, or parts that are texts, or one part."""
        value = decode_json(bytes(raw), _ANSWER)
        if isinstance(value, str):
            return value
        parts = [{"text": part} if isinstance(part, str) else part for part in _listed(value)]
        return msgspec.convert(parts, list[dict[str, Any]])

    def _say(self, text: str) -> list[Event]:
        before = self._end_thinking() if text and self._thinking else []
        said = self._writer.text(text, self._logprobs)
        return before + said if before else said

    def _on_refusal(self, raw: _Raw) -> list[Event]:
        text = self._read_text("refusal", raw)
        return self._end_thinking() + self._writer.refusal(text) if text else []

    # --- reasoning

    def _on_reasoning(self, field: str, raw: _Raw) -> list[Event]:
        text = self._read_text(field, raw)
        return self._think(field, text) if text else []

    def _read_text(self, field: str, raw: _Raw) -> str:
        try:
            return _strings.decode(raw)
        except UNREADABLE:
            text = _plain(decode_json(bytes(raw), _ANSWER))
            if not text:
                self._stream_end.warn_of_unreadable(field)
            return text

    def _think(self, field: str, text: str) -> list[Event]:
        if self._field not in (None, field):  # some servers send the same text in two fields
            if text != self._thought:
                self._stream_end.warn_of(field)
            return []
        self._field, self._thinking, self._thought = field, True, text
        return self._writer.reasoning(text)

    def _on_details(self, raw: _Raw) -> list[Event]:
        try:
            details = _details.decode(raw)
        except UNREADABLE:
            details = [detail for detail in _listed(decode_json(bytes(raw))) if isinstance(detail, dict)]
            if not details:
                self._stream_end.warn_of_unreadable("reasoning_details")
        for detail in details:
            self._add_detail(detail)
        self._thinking = self._thinking or bool(details)
        return []

    def _add_detail(self, detail: dict[str, Any]) -> None:
        """Add a detail, or a piece of one: it has the type, the index and, if both have one, the id of the last."""
        last = self._details[-1] if self._details else {}
        same = bool(last) and all(last.get(name) == detail.get(name) for name in ("type", "index"))
        if not same or (last.get("id") and detail.get("id") and last["id"] != detail["id"]):
            self._details.append(detail)
            return
        for name, value in detail.items():
            old = last.get(name)
            grows = name in _GROWING and isinstance(value, str) and isinstance(old, str)
            last[name] = f"{old}{value}" if grows else (old if value is None else value)

    def _end_thinking(self) -> list[Event]:
        """End the reasoning item, with what its provider wants back."""
        if not self._thinking:
            return []
        field = None if self._field == "content" else self._field
        details = [_Raw(encode(detail)) for detail in self._details]
        self._thinking, self._details = False, []
        return self._seal(ReturnedReasoning(field, details))

    # --- calls

    def _on_tool_calls(self, raw: _Raw) -> list[Event]:
        try:
            deltas = _call_deltas.decode(raw)
        except UNREADABLE:
            listed = raw if bytes(raw).lstrip().startswith(b"[") else b"[%b]" % bytes(raw)
            deltas = self._decode_leniently(_lenient_call_deltas, bytes(listed))
        return [event for delta in deltas for event in self._on_call(delta)]

    def _on_function_call(self, raw: _Raw) -> list[Event]:
        try:
            function = _functions.decode(raw)
        except UNREADABLE:
            function = self._decode_leniently(_lenient_functions, bytes(raw))
        return self._on_call(_ToolCallDelta(0, None, function))

    def _on_call(self, delta: _ToolCallDelta) -> list[Event]:
        function = delta.function or _function(delta.custom)
        text = _arguments(function.arguments)
        call = self._calls.find(CallPiece(delta.index, delta.id or "", function.name or "", text))
        if call is None:
            return []
        extra = delta.extra_content
        if extra != _NULL and (call.started or not call.name):
            self._stream_end.warn_of("extra_content")  # it had to stand before the call, which has begun
        if call.started:
            return self._writer.arguments(call.key, text)
        events = self._start_named() if self._named is not call else []
        call.early.append(text)
        if call.name:
            self._named = call
        return events + self._start_named(extra) if call.ready or (call.name and extra != _NULL) else events

    def _start_named(self, extra: _Raw = _NULL) -> list[Event]:
        """Start the call whose name has waited for more of it, if there is one."""
        call, self._named = self._named, None
        if call is None:
            return []
        events = self._end_thinking()
        call_id = self._writer.new_call_id(call.id)
        if extra != _NULL:
            events += self._seal(ReturnedReasoning(calls={call_id: extra}))
        events += self._writer.start_call(call.key, call_id, call.name)
        text, call.early, call.started = "".join(call.early), [], True
        return events + self._writer.arguments(call.key, text)

    # --- the end

    def _on_finish(self, reason: str) -> Output:
        if reason in FAILED:
            return self._stream_end.stopped_with_an_error()
        self._stop(reason, FINISH)
        return [*self._start_named()]

    def _finish(self) -> Output:
        return [*self._start_named(), *self._finish_answer()]

    def _finish_answer(self) -> Output:
        if self._calls.nameless and self._cut is None:
            return self._stream_end.broken("a tool call has no name")
        if self._calls.nameless:
            self._stream_end.warn("A call in the upstream's answer was left out: it was cut off before its name.")
        reason = self._stop_reason
        if reason is None and self._writer.empty and not self._thinking:
            return self._stream_end.empty()
        if reason is None and self._writer.has_partial_call():
            return self._stream_end.stopped(truncated=False)
        if reason is None:
            self._stream_end.warn("The upstream did not say why it stopped.")
        elif reason not in FINISH:
            self._stream_end.warn(f"The upstream stopped for a reason that is not known here: {reason[:40]!r}.")
        cut = self._cut
        usage = None if self._usage is None else read_usage(self._usage)
        events: Output = [*self._end_thinking(), *self._writer.end("completed" if cut is None else "incomplete")]
        return events + self._stream_end.finished(cut, usage)


def read_usage(usage: dict[str, Any]) -> Usage:
    """Read `usage`. DeepSeek reports cached tokens in a field of its own."""
    sent, made = usage.get("prompt_tokens_details"), usage.get("completion_tokens_details")
    return counted(
        count(usage, "prompt_tokens"),
        count(usage, "completion_tokens"),
        cached=count(sent, "cached_tokens") or count(usage, "prompt_cache_hit_tokens"),
        reasoning=count(made, "reasoning_tokens"),
    )


def _function(custom: _CustomDelta | None) -> _FunctionDelta:
    """Return a piece of a custom tool's call as one of a function's, whose arguments are no JSON."""
    return _FunctionDelta() if custom is None else _FunctionDelta(custom.name, custom.input)


def _arguments(value: object) -> str:
    """Return arguments as text. Some servers send a JSON object instead."""
    if value is None:
        return ""
    return value if isinstance(value, str) else encode(value).decode()


def _listed(value: object) -> list[object]:
    return value if isinstance(value, list) else [value]


def _plain(value: object) -> str:
    """Return the text in a part, or in a list of parts."""
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        return _plain(value.get("text"))
    return "".join(map(_plain, value)) if isinstance(value, list) else ""
