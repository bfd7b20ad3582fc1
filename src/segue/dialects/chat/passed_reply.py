"""The reply of a provider of Chat Completions to a client of that API: its chunks as they come, with our id and model.

What the Responses API has no word for (a signature beside a call, a field of a vendor) would be lost otherwise, and a
client that keeps its own history could not send it back. Two things are not as the provider sends them. A chunk that
says why the answer ended waits until it is sure that it has: a stream that breaks then ends in an error and in nothing
that looks like the end of an answer. The usage, which the gateway has asked for, is told only if the client asks too.
Not here: completions that are written anew (`door_reply`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Raw

from segue.dialects.chat.completion import (
    CompletionHead,
    completion_fields,
    completion_id,
    completion_usage,
    finish_reason,
)
from segue.dialects.chat.door_reply import DONE, error_chunk
from segue.dialects.chat.door_request import ChatRequest
from segue.http.sse import write_event
from segue.protocol.codec import UNREADABLE, encode
from segue.protocol.events import SOURCE, Event
from segue.protocol.ids import ResponseId
from segue.protocol.problems import Problem
from segue.protocol.turns import Finished

Json = dict[str, Any]
_NULL = Raw(b"null")


class _ReceivedChoice(msgspec.Struct):
    delta: Raw = _NULL
    finish_reason: str | None = None


class _ReceivedChunk(msgspec.Struct):
    choices: list[_ReceivedChoice] = []
    error: Raw = _NULL


_chunks = msgspec.json.Decoder(_ReceivedChunk)
_fields = msgspec.json.Decoder(dict[str, Raw])
_values = msgspec.json.Decoder(dict[str, Any])
#: How many chunks may come after an answer: one tells the usage, and servers add some of their own.
_MOST_HELD = 16
#: A delta that adds nothing to an answer.
_NOTHING = frozenset({b"null", b"{}", b'{"content":""}', b'{"content":null}'})


class PassedReplyWriter:
    """Writes one completion out of what its provider sends; `created_at` in unix seconds."""

    def __init__(self, asked: ChatRequest, response_id: ResponseId, created_at: int) -> None:
        self._asked = asked
        model = asked.create.settings.model
        self._head = CompletionHead(completion_id(response_id), "chat.completion.chunk", created_at, model)
        self._ours = {name: Raw(encode(value)) for name, value in (("id", self._head.id), ("model", model))}
        self._held: list[bytes] = []  # chunks that may be the end
        self._ended = False  # one of them says why
        self._counted = False
        self._fold = ChunkFold()

    def feed(self, events: Sequence[Event]) -> bytes:
        """Return the provider's chunks in a batch of events."""
        return b"".join([self._pass(event.data) for event in events if event.type == SOURCE])

    def finish(self, finished: Finished) -> bytes:
        """Return the end of the stream: what the provider sent of it, and what of it the provider left out."""
        ends = self._held
        if not self._ended:
            choice = {"index": 0, "delta": {}, "finish_reason": finish_reason(finished)}
            ends.append(self._own({"choices": [choice]}))
        if self._asked.include_usage and not self._counted and finished.head.usage is not None:
            ends.append(self._own({"choices": [], "usage": completion_usage(finished.head.usage)}))
        return b"".join((*ends, DONE))

    def failed(self, problem: Problem, *, kind: str, status: int) -> bytes:  # noqa: ARG002 - the contract of doors
        """Return the end of a stream whose turn failed."""
        return error_chunk(problem, kind)

    def whole(self, finished: Finished) -> bytes:
        """Return the completion: the answer as it was read, with all else that the provider has sent."""
        head = msgspec.structs.replace(self._head, object="chat.completion")
        read = completion_fields(head, finished)
        read.pop("warnings", None)  # nothing was left out
        return encode(self._fold.joined(read))

    def _own(self, fields: Json) -> bytes:
        return write_event("", encode(msgspec.structs.asdict(self._head) | fields))

    def _pass(self, data: bytes) -> bytes:
        """Return what is sent because of a chunk: itself, or what waited before it."""
        try:
            chunk, fields = _chunks.decode(data), _fields.decode(data)
            if not self._asked.create.stream:
                self._fold.add(_values.decode(data))
                return b""
        except UNREADABLE:  # the end of the stream, or what has another shape: it is read leniently where it counts
            return b""
        if chunk.error != _NULL:
            return b""  # the turn fails, and says so itself
        usage = fields.get("usage", _NULL)
        self._counted = self._counted or usage != _NULL
        if not self._asked.include_usage and (usage == _NULL or not chunk.choices):
            fields.pop("usage", None)
            if usage != _NULL:
                return b""
        written = write_event("", encode(fields | self._ours))
        return self._hold(chunk, written)

    def _hold(self, chunk: _ReceivedChunk, written: bytes) -> bytes:
        """Hold a chunk back that may be the end; one that goes on with the answer lets go what was held."""
        goes_on = any(bytes(choice.delta) not in _NOTHING for choice in chunk.choices)
        ends = any(choice.finish_reason for choice in chunk.choices)
        before = b""
        if goes_on and self._held:
            before, self._held, self._ended = b"".join(self._held), [], False
        if not (ends or self._held):
            return before + written
        del self._held[_MOST_HELD - 1 :]  # a peer could go on for ever
        self._held.append(written)
        self._ended = self._ended or ends
        return before


#: Fields that say the same in each chunk, or that only one chunk has.
_SAID_ONCE = frozenset(
    {"id", "type", "role", "name", "format", "signature", "index", "object", "model", "finish_reason"}
)
#: The texts of a message, and all fields of one that the gateway reads, and writes as it has read them.
_TEXTS = ("content", "refusal")
_READ = frozenset({"role", "tool_calls", "function_call", *_TEXTS})
#: Fields of a choice that hold its answer.
_ANSWER = frozenset({"index", "delta", "message", "text"})
#: Fields of our own message in whose place the provider's stand.
_OURS = frozenset({"reasoning_content", "reasoning_details"})


class ChunkFold:
    """Joins the chunks of a stream that is not sent: all of their fields, known or not."""

    def __init__(self) -> None:
        self._chunk: Json = {}
        self._choice: Json = {}

    def add(self, chunk: Json) -> None:
        """Take the next chunk. Of several answers, the first one is taken."""
        choices = chunk.pop("choices", None) or []
        self._chunk.update({name: value for name, value in chunk.items() if value is not None})
        for choice in choices:
            if isinstance(choice, dict) and choice.get("index", 0) == 0:
                delta = choice.get("delta")
                if isinstance(delta, dict):
                    for name in _TEXTS:
                        delta.pop(name, None)  # the gateway has it
                _merge(self._choice, choice)

    def joined(self, completion: Json) -> Json:
        """Return the completion that the gateway has read, with everything else of the chunks."""
        choice, message = completion["choices"][0], completion["choices"][0]["message"]
        self._choice = _joined(self._choice)
        said: Json = {}
        for name in ("message", "delta"):  # some servers send a message in place of its deltas
            part = self._choice.get(name)
            said |= part if isinstance(part, dict) else {}
        for name in _OURS:
            message.pop(name, None)
        message |= {name: value for name, value in said.items() if name not in _READ}
        _join_calls(message.get("tool_calls", []), said.get("tool_calls"))
        if not isinstance(self._choice.get("logprobs"), dict):
            self._choice.pop("logprobs", None)
        choice |= {name: value for name, value in self._choice.items() if value is not None and name not in _ANSWER}
        kept = ("id", "object", "model", "choices")
        return completion | {name: value for name, value in self._chunk.items() if name not in kept}


def _join_calls(calls: list[Json], sent: object) -> None:
    """Give the calls as they were read what else the provider has sent with them."""
    if not isinstance(sent, list) or len(sent) != len(calls):
        return
    for call, other in zip(calls, sent, strict=True):
        if not isinstance(other, dict):
            continue
        if other.get("type") == "custom":  # it was read as a function's
            call.clear()
        call |= {name: value for name, value in other.items() if name not in call and name != "index"}


class _Pieces(list[str]):
    """A text that grows: joining it at each step would take the square of its length."""


def _joined(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    """Return a value with each text in one piece."""
    if isinstance(value, _Pieces):
        return "".join(value)
    if isinstance(value, dict):
        return {name: _joined(inner) for name, inner in value.items()}
    return [_joined(inner) for inner in value] if isinstance(value, list) else value


def _merge(old: Json, new: Json) -> None:
    for name, value in new.items():
        known = old.get(name)
        if value is None:
            old.setdefault(name, None)
        elif isinstance(known, dict) and isinstance(value, dict):
            _merge(known, value)
        elif isinstance(known, list) and isinstance(value, list):
            _merge_lists(known, value)
        elif isinstance(known, _Pieces) and isinstance(value, str):
            known.append(value)
        elif isinstance(known, str) and isinstance(value, str) and name not in _SAID_ONCE:
            old[name] = _Pieces((known, value))
        else:
            old[name] = value


def _merge_lists(old: list[Any], new: list[Any]) -> None:
    """Add to a list; elements with an `index` go on with the one that has it."""
    for element in new:
        known = _find(old, element.get("index")) if isinstance(element, dict) else None
        if known is None:
            old.append(element)
        else:
            _merge(known, element)


def _find(elements: list[Any], index: object) -> Json | None:
    """Return the element with an index, nearly always at that place. Of a long list, no other place is looked at."""
    if not isinstance(index, int):
        return None
    near = elements[index : index + 1] if index >= 0 else []
    looked_at = [*near, *(elements if len(elements) <= _MOST_HELD else ())]
    return next((one for one in looked_at if isinstance(one, dict) and one.get("index") == index), None)
