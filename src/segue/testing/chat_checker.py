"""Checks what a Chat Completions server, segue's own door first of all, puts on the wire: `check_completion` judges one
completion, `check_chunks` the body of a stream, chunk by chunk and in its order.

It is as strict as the strictest client: one answer, its role first, each call announced with its id and name before its
arguments, one `finish_reason` at the end, then the usage if it was asked for, then `[DONE]`. A stream that broke ends
in an error, without a `finish_reason` held to be its end and without `[DONE]`. Fields that the API does not have pass.
Not here: a client, and what was asked.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from segue.testing.protocol_checker import check_error, is_comment, parse_json
from segue.testing.response_schemas import Json, ProtocolViolation, short

__all__ = ["ChatStream", "check_chunks", "check_completion"]

_DONE = "[DONE]"
_Reason = Literal["stop", "length", "tool_calls", "content_filter", "function_call"]


class _CheckedAlternative(msgspec.Struct):
    token: str
    logprob: float
    bytes: list[int] | None


class _CheckedToken(_CheckedAlternative):
    top_logprobs: list[_CheckedAlternative]


class _CheckedLogprobs(msgspec.Struct):
    content: list[_CheckedToken] | None
    refusal: list[_CheckedToken] | None


class _CheckedFunctionPiece(msgspec.Struct):
    name: str | msgspec.UnsetType = msgspec.UNSET
    arguments: str | msgspec.UnsetType = msgspec.UNSET


class _CheckedCustomPiece(msgspec.Struct):
    name: str | msgspec.UnsetType = msgspec.UNSET
    input: str | msgspec.UnsetType = msgspec.UNSET


class _CheckedCallPiece(msgspec.Struct):
    index: int
    id: str | msgspec.UnsetType = msgspec.UNSET
    type: Literal["function", "custom"] | msgspec.UnsetType = msgspec.UNSET
    function: _CheckedFunctionPiece | None = None
    custom: _CheckedCustomPiece | None = None


class _CheckedDelta(msgspec.Struct):
    role: Literal["assistant"] | msgspec.UnsetType = msgspec.UNSET
    content: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[_CheckedCallPiece] = []


class _CheckedChunkChoice(msgspec.Struct):
    index: Literal[0]
    delta: _CheckedDelta
    finish_reason: _Reason | None
    logprobs: _CheckedLogprobs | None = None


class _CheckedUsage(msgspec.Struct):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class _CheckedChunk(msgspec.Struct):
    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    choices: list[_CheckedChunkChoice]
    usage: _CheckedUsage | msgspec.UnsetType | None = msgspec.UNSET


class _CheckedFunctionCall(msgspec.Struct):
    name: str
    arguments: str


class _CheckedCustomCall(msgspec.Struct):
    name: str
    input: str


class _CheckedCall(msgspec.Struct):
    id: str
    type: Literal["function", "custom"]
    function: _CheckedFunctionCall | None = None
    custom: _CheckedCustomCall | None = None


class _CheckedAnswer(msgspec.Struct):
    role: Literal["assistant"]
    content: str | None
    refusal: str | None
    tool_calls: list[_CheckedCall] | None = None


class _CheckedChoice(msgspec.Struct):
    index: Literal[0]
    message: _CheckedAnswer
    finish_reason: _Reason
    logprobs: _CheckedLogprobs | None


class _CheckedCompletion(msgspec.Struct):
    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[_CheckedChoice]
    usage: _CheckedUsage | None = None


class ChatStream(msgspec.Struct, frozen=True):
    """A stream that was checked: its message (without fields that are empty), why it ended, its usage and its chunks.

    `error` is what it ended in if it broke; `finish_reason` is None then.
    """

    message: Json
    finish_reason: str | None
    usage: Json | None
    error: Json | None
    chunks: tuple[Json, ...]


def check_completion(body: Json) -> None:
    """Check one completion."""
    completion = _read("completion", body, _CheckedCompletion)
    if len(completion.choices) != 1:
        raise ProtocolViolation("completion", "choices", f"{len(completion.choices)} answers")
    _check_head("completion", completion.id, completion.usage)
    choice = completion.choices[0]
    for index, call in enumerate(choice.message.tool_calls or ()):
        if (call.function if call.type == "function" else call.custom) is None:
            raise ProtocolViolation("completion", f"tool_calls[{index}]", f"has no {call.type}")
    if (choice.finish_reason == "tool_calls") != bool(choice.message.tool_calls) and choice.finish_reason in (
        "tool_calls",
        "stop",
    ):
        raise ProtocolViolation("completion", "finish_reason", f"is {choice.finish_reason}, which its calls belie")


def check_chunks(body: bytes, *, include_usage: bool = False) -> ChatStream:
    """Check the body of a whole stream, and return what it says."""
    checker = _ChunkChecker(include_usage=include_usage)
    text = body.decode()
    if not text.endswith("\n\n"):
        raise ProtocolViolation("sse", "", f"ends within an event: {short(text[-40:])}")
    for index, block in enumerate(text[:-2].split("\n\n")):
        if index and is_comment(block):
            continue
        data = block.removeprefix("data: ")
        if data == block or "\n" in data:
            raise ProtocolViolation("sse", "", f"is no line of data: {short(block)}")
        checker.feed(data)
    return checker.finish()


class _ChunkChecker:
    def __init__(self, *, include_usage: bool) -> None:
        self._include_usage = include_usage
        self._first: _CheckedChunk | None = None
        self._texts: dict[str, list[str]] = {"content": [], "refusal": [], "reasoning_content": []}
        self._calls: list[Json] = []
        self._reason: str | None = None
        self._usage: Json | None = None
        self._error: Json | None = None
        self._chunks: list[Json] = []
        self._done = False

    def feed(self, data: str) -> None:
        if self._done or self._error is not None:
            raise ProtocolViolation("chunk", "", f"comes after the end: {short(data)}")
        if data == _DONE:
            self._end()
            return
        frame = parse_json(data)
        self._chunks.append(frame)
        if "error" in frame:
            check_error(frame)
            self._error = frame["error"]
            return
        self._on_chunk(_read("chunk", frame, _CheckedChunk), frame)

    def finish(self) -> ChatStream:
        if not self._done and self._error is None:
            raise ProtocolViolation("stream", "", "stops without an end")
        message: Json = {name: "".join(pieces) for name, pieces in self._texts.items() if any(pieces)}
        if self._calls:
            message["tool_calls"] = self._calls
        reason = None if self._error is not None else self._reason
        return ChatStream(message, reason, self._usage, self._error, tuple(self._chunks))

    def _end(self) -> None:
        if self._reason is None:
            raise ProtocolViolation("stream", "", "ends without a finish_reason")
        if (self._reason == "tool_calls") != bool(self._calls) and self._reason in ("tool_calls", "stop"):
            raise ProtocolViolation("stream", "finish_reason", f"is {self._reason}, which its calls belie")
        self._done = True

    def _on_chunk(self, chunk: _CheckedChunk, frame: Json) -> None:
        first = self._first
        if first is None:
            self._first = chunk
            _check_head("chunk", chunk.id, None)
            if not chunk.choices or chunk.choices[0].delta.role == msgspec.UNSET:
                raise ProtocolViolation("chunk", "delta.role", "is not in the first chunk")
        elif (first.id, first.created, first.model) != (chunk.id, chunk.created, chunk.model):
            raise ProtocolViolation("chunk", "", "has another id, time or model than the first")
        elif chunk.choices and chunk.choices[0].delta.role != msgspec.UNSET:
            raise ProtocolViolation("chunk", "delta.role", "comes again")
        if len(chunk.choices) > 1:
            raise ProtocolViolation("chunk", "choices", f"{len(chunk.choices)} answers")
        self._check_usage(chunk, frame)
        if chunk.choices:
            self._on_choice(chunk.choices[0])

    def _check_usage(self, chunk: _CheckedChunk, frame: Json) -> None:
        if (chunk.usage != msgspec.UNSET) != self._include_usage:
            raise ProtocolViolation("chunk", "usage", f"was {'' if self._include_usage else 'not '}asked for")
        if self._usage is not None:
            raise ProtocolViolation("chunk", "", "comes after the usage")
        told = isinstance(chunk.usage, _CheckedUsage)
        if told == bool(chunk.choices):
            raise ProtocolViolation("chunk", "usage", "does not stand in a chunk of its own, without choices")
        if isinstance(chunk.usage, _CheckedUsage):
            if self._reason is None:
                raise ProtocolViolation("chunk", "usage", "comes before the end of the answer")
            _check_head("chunk", chunk.id, chunk.usage)
            self._usage = frame["usage"]

    def _on_choice(self, choice: _CheckedChunkChoice) -> None:
        if self._reason is not None:
            raise ProtocolViolation("chunk", "choices", "goes on after the finish_reason")
        delta = choice.delta
        for name, pieces in self._texts.items():
            text: str | None = msgspec.structs.asdict(delta)[name]
            if text:
                pieces.append(text)
        for piece in delta.tool_calls:
            self._on_call(piece)
        self._reason = choice.finish_reason

    def _on_call(self, piece: _CheckedCallPiece) -> None:
        if piece.index == len(self._calls):
            self._calls.append(_new_call(piece))
            return
        if not 0 <= piece.index < len(self._calls):
            raise ProtocolViolation("chunk", "tool_calls.index", f"{piece.index} is not the next one")
        if piece.id != msgspec.UNSET or piece.type != msgspec.UNSET:
            raise ProtocolViolation("chunk", "tool_calls", "says the id or the type of a call again")
        call = self._calls[piece.index]
        field, said = _said(piece)
        if said is None or call["type"] != field:
            raise ProtocolViolation("chunk", "tool_calls", f"has nothing for the {call['type']} that it goes on with")
        call[field]["arguments" if field == "function" else "input"] += said


def _new_call(piece: _CheckedCallPiece) -> Json:
    if not isinstance(piece.id, str) or not piece.id or not isinstance(piece.type, str):
        raise ProtocolViolation("chunk", "tool_calls", "begins a call without its id or type")
    named = piece.function if piece.type == "function" else piece.custom
    if named is None or not isinstance(named.name, str) or not named.name:
        raise ProtocolViolation("chunk", "tool_calls", "begins a call without its name")
    _, said = _said(piece)
    text = {"name": named.name, "arguments" if piece.type == "function" else "input": said or ""}
    return {"id": piece.id, "type": piece.type, piece.type: text}


def _said(piece: _CheckedCallPiece) -> tuple[str, str | None]:
    """Return of which type a piece of a call is, and what it adds."""
    if piece.custom is not None:
        return "custom", None if piece.custom.input == msgspec.UNSET else str(piece.custom.input)
    said = None if piece.function is None or piece.function.arguments == msgspec.UNSET else piece.function.arguments
    return "function", None if said is None else str(said)


def _check_head(what: str, ident: str, usage: _CheckedUsage | None) -> None:
    if not ident.startswith("chatcmpl-"):
        raise ProtocolViolation(what, "id", f"{short(ident)} is no id of a completion")
    if usage is not None and usage.prompt_tokens + usage.completion_tokens != usage.total_tokens:
        raise ProtocolViolation(what, "usage", "does not add up")


def _read(what: str, value: Json, kind: type[Any]) -> Any:  # noqa: ANN401 - of that kind
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise ProtocolViolation(what, "", f"{error}: {short(value)}") from None
