"""Writes the Responses events of an output whose source speaks another API: any item type, several open at a time.

APIs disagree on when an item is over. Here an item ends only after all items before it, so that the output has one
order: a call that still grows keeps the items after it open. A message or reasoning ends when another item begins.
Not here: reading the source, the events that carry the response (`protocol.turns`), and the simpler writer for a
source that finishes each item before the next (`protocol.events.OutputWriter`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Literal

import msgspec

from segue.dialects.call_arguments import StreamedArguments
from segue.dialects.growing_text import GrowingText, mended
from segue.protocol.codec import UNREADABLE, encode, without_lone_surrogates
from segue.protocol.events import FIRST_SEQUENCE_NUMBER, Event, ItemStatus
from segue.protocol.ids import ResponseId, item_id

PartKind = Literal["output_text", "refusal"]
Json = dict[str, Any]
#: Where an API has only functions, a custom tool becomes a function with this one argument.
CUSTOM_ARGUMENT = "input"


class _CustomArguments(msgspec.Struct):
    input: str


_custom = msgspec.json.Decoder(_CustomArguments)


def _custom_input(arguments: str) -> str:
    """Return the input of a custom tool: a model that writes no JSON meant the text itself."""
    with suppress(*UNREADABLE):
        return _custom.decode(arguments).input
    arguments = mended(arguments)
    with suppress(*UNREADABLE):
        return _custom.decode(without_lone_surrogates(arguments) or arguments).input
    return arguments


class _Deltas(msgspec.Struct, frozen=True):
    """How the deltas of one text are written: their type, and the bytes before what each of them says."""

    kind: str
    head: bytes


class _PartInProgress:
    """One part of a message."""

    def __init__(self, kind: PartKind, deltas: _Deltas) -> None:
        self.kind = kind
        self.deltas = deltas
        self.text = GrowingText()
        self.logprobs: list[Any] = []

    def value(self) -> Json:
        text = "".join(self.text.pieces)
        if self.kind == "refusal":
            return {"type": "refusal", "refusal": text}
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": self.logprobs}


class _MessageInProgress:
    prefix = "msg"

    def __init__(self, index: int, ident: str) -> None:
        self.index = index
        self.id = ident
        self.over = False
        self.parts: list[Json] = []  # those that are done
        self.part: _PartInProgress | None = None

    def item(self, status: str) -> Json:
        return {"id": self.id, "type": "message", "status": status, "role": "assistant", "content": self.parts}


class _ReasoningInProgress:
    prefix = "rs"

    def __init__(self, index: int, ident: str) -> None:
        self.index = index
        self.id = ident
        self.over = False
        self.parts: list[Json] = []
        self.text: GrowingText | None = None
        self.deltas = _delta_events("reasoning_summary_text", self, "summary_index")
        self.sealed: str | None = None

    def item(self, status: str) -> Json:
        item: Json = {"id": self.id, "type": "reasoning", "status": status, "summary": self.parts}
        if self.sealed is not None:
            item["encrypted_content"] = self.sealed
        return item


class _FunctionCallInProgress:
    prefix = "fc"

    def __init__(self, index: int, ident: str, call_id: str, name: str) -> None:
        self.index = index
        self.id = ident
        self.over = False
        self.call_id = call_id
        self.name = name
        self.arguments = StreamedArguments()
        self.deltas = _delta_events("function_call_arguments", self)

    def item(self, status: str, arguments: str = "") -> Json:
        item: Json = {"id": self.id, "type": "function_call", "status": status, "call_id": self.call_id}
        return item | {"name": self.name, "arguments": arguments}


class _CustomCallInProgress(_FunctionCallInProgress):
    """A custom tool's call. The source writes JSON arguments, so its input is known only when they are complete."""

    prefix = "ctc"

    def item(self, status: str, arguments: str = "") -> Json:
        item: Json = {"id": self.id, "type": "custom_tool_call", "status": status, "call_id": self.call_id}
        return item | {"name": self.name, "input": arguments}


_ItemInProgress = _MessageInProgress | _ReasoningInProgress | _FunctionCallInProgress


def _delta_events(what: str, item: _ItemInProgress, part: str = "", index: int = 0) -> _Deltas:
    kind = f"response.{what}.delta"
    place = f',"{part}":{index}' if part else ""
    head = f'{{"type":"{kind}","item_id":"{item.id}","output_index":{item.index}{place},"delta":'
    return _Deltas(kind, head.encode())


class InterleavedOutputWriter:
    """Writes one response's output. Each method returns the events to send; `custom` names the custom tools."""

    def __init__(self, response_id: ResponseId, custom: frozenset[str] = frozenset()) -> None:
        self._response_id = response_id
        self._custom = custom
        self._number = FIRST_SEQUENCE_NUMBER
        self._items = 0
        self._open: deque[_ItemInProgress] = deque()
        self._calls: dict[object, _FunctionCallInProgress] = {}
        self._call_ids: set[str] = set()
        self._texts: list[GrowingText] = []  # of all messages, refusals too

    @property
    def empty(self) -> bool:
        """Whether nothing was written."""
        return not self._items

    # --- messages

    def said(self) -> str:
        """Return all that the messages say so far."""
        return "".join(piece for text in self._texts for piece in text.pieces)

    def text(self, delta: str, logprobs: Sequence[Any] = ()) -> list[Event]:
        """Add text to the message."""
        return self._say("output_text", delta, logprobs)

    def refusal(self, delta: str) -> list[Event]:
        """Add to the refusal in the message."""
        return self._say("refusal", delta, ())

    def end_part(self) -> list[Event]:
        """End the open part of the message, if there is one: the next text begins a new part."""
        last = self._last()
        return self._end_part(last) if isinstance(last, _MessageInProgress) else []

    def _say(self, kind: PartKind, delta: str, logprobs: Sequence[Any]) -> list[Event]:
        if not delta:
            return []
        events: list[Event] = []
        message = self._last()
        if not isinstance(message, _MessageInProgress):
            events = self._end_prose()
            message = _MessageInProgress(self._items, self._next_id("msg"))
            events += self._add(message, message.item("in_progress"))
        part = message.part
        if part is None or part.kind != kind:
            events += self._end_part(message)
            deltas = _delta_events(kind, message, "content_index", len(message.parts))
            part = message.part = _PartInProgress(kind, deltas)
            self._texts.append(part.text)
            events.append(self._part_event("response.content_part.added", message, part.value()))
        part.logprobs.extend(logprobs)
        extra = b""
        if kind == "output_text":
            extra = b',"logprobs":%b' % encode(logprobs) if logprobs else b',"logprobs":[]'
        said = self._grow(part.text, part.deltas, delta, extra=extra)
        return events + said if events else said

    def _end_part(self, message: _MessageInProgress) -> list[Event]:
        part, message.part = message.part, None
        if part is None:
            return []
        extra = b',"logprobs":[]' if part.kind == "output_text" else b""
        events = self._grow(part.text, part.deltas, part.text.rest(), extra=extra)
        value = part.value()
        said: Json = {"text": value["text"], "logprobs": value["logprobs"]} if part.kind == "output_text" else {}
        said = said or {"refusal": value["refusal"]}
        events += [
            self._event(f"response.{part.kind}.done", message, content_index=len(message.parts), **said),
            self._part_event("response.content_part.done", message, value),
        ]
        message.parts.append(value)
        return events

    def _part_event(self, kind: str, message: _MessageInProgress, part: Json) -> Event:
        return self._event(kind, message, content_index=len(message.parts), part=part)

    # --- reasoning

    def reasoning(self, delta: str) -> list[Event]:
        """Add to the reasoning. The text becomes its summary, which every client can show."""
        if not delta:
            return []
        reasoning, events = self._reason()
        if reasoning.text is None:
            reasoning.text = GrowingText()
            events.append(self._summary_event("part.added", reasoning, part={"type": "summary_text", "text": ""}))
        return events + self._grow(reasoning.text, reasoning.deltas, delta)

    def seal(self, encrypted_content: str) -> list[Event]:
        """Set the `encrypted_content` of the reasoning, which ends it."""
        reasoning, events = self._reason()
        reasoning.sealed = encrypted_content
        reasoning.over = True
        return events + self._settle()

    def end_reasoning(self) -> list[Event]:
        """End the reasoning, if it is open."""
        last = self._last()
        if not isinstance(last, _ReasoningInProgress):
            return []
        last.over = True
        return self._settle()

    def _reason(self) -> tuple[_ReasoningInProgress, list[Event]]:
        last = self._last()
        if isinstance(last, _ReasoningInProgress):
            return last, []
        events = self._end_prose()
        reasoning = _ReasoningInProgress(self._items, self._next_id("rs"))
        return reasoning, events + self._add(reasoning, reasoning.item("in_progress"))

    def _summary_event(self, what: str, reasoning: _ReasoningInProgress, **fields: object) -> Event:
        kind = f"response.reasoning_summary_{what}"
        return self._event(kind, reasoning, summary_index=len(reasoning.parts), **fields)

    # --- calls

    def start_call(self, key: object, call_id: str, name: str) -> list[Event]:
        """Open a call; `key` is how the source names it, `call_id` comes from `new_call_id`."""
        events = self._end_prose()
        kind = _CustomCallInProgress if name in self._custom else _FunctionCallInProgress
        call = kind(self._items, self._next_id(kind.prefix), call_id, name)
        self._calls[key] = call
        return events + self._add(call, call.item("in_progress"))

    def new_call_id(self, call_id: str) -> str:
        """Return the id of a new call: its own, or a new one if that is empty or taken."""
        if not call_id or call_id in self._call_ids:
            call_id = self._next_id(f"call{len(self._call_ids)}")
        self._call_ids.add(call_id)
        return call_id

    def is_open(self, key: object) -> bool:
        """Return whether the call known as `key` was started and is not over."""
        call = self._calls.get(key)
        return call is not None and not call.over

    def arguments(self, key: object, delta: str) -> list[Event]:
        """Add to the arguments of an open call. A `{}` at their beginning is sent only if nothing replaces it."""
        call = self._calls[key]
        arguments = call.arguments
        if not arguments.pieces:
            delta = arguments.first(delta)
        if isinstance(call, _CustomCallInProgress):
            arguments.pieces.append(delta)
            return []
        return self._grow(arguments, call.deltas, delta)

    def arguments_of(self, key: object) -> StreamedArguments:
        """Return the arguments of a call that was started, to look at."""
        return self._calls[key].arguments

    def has_partial_call(self) -> bool:
        """Return whether the arguments of any call are JSON that goes on."""
        return any(call.arguments.state() == "partial" for call in self._calls.values())

    def end_call(self, key: object) -> list[Event]:
        """End a call: its arguments are complete."""
        self._calls[key].over = True
        return self._settle()

    # --- the end

    def end(self, status: ItemStatus = "completed") -> list[Event]:
        """Complete everything; the last item gets `status`."""
        events: list[Event] = []
        while self._open:
            item = self._open.popleft()
            events += self._done(item, "completed" if self._open else status)
        return events

    # --- private

    def _last(self) -> _ItemInProgress | None:
        last = self._open[-1] if self._open else None
        return None if last is None or last.over else last

    def _end_prose(self) -> list[Event]:
        """End an open message or reasoning, since another item begins."""
        last = self._last()
        if isinstance(last, _MessageInProgress | _ReasoningInProgress):
            last.over = True
        return self._settle()

    def _settle(self) -> list[Event]:
        events: list[Event] = []
        while self._open and self._open[0].over:
            events += self._done(self._open.popleft(), "completed")
        return events

    def _add(self, item: _ItemInProgress, value: Json) -> list[Event]:
        self._items += 1
        self._open.append(item)
        number = self._next()
        fields = {"type": "response.output_item.added", "output_index": item.index, "item": value}
        return [Event("response.output_item.added", encode({**fields, "sequence_number": number}), number)]

    def _done(self, item: _ItemInProgress, status: ItemStatus) -> list[Event]:
        match item:
            case _MessageInProgress():
                return [*self._end_part(item), self._item_done(item, item.item(status))]
            case _ReasoningInProgress():
                return [*self._end_summary(item), self._item_done(item, item.item(status))]
            case _CustomCallInProgress():
                return self._end_custom(item, status)
            case _:
                return self._end_function(item, status)

    def _end_summary(self, reasoning: _ReasoningInProgress) -> list[Event]:
        if reasoning.text is None:
            return []
        events = self._grow(reasoning.text, reasoning.deltas, reasoning.text.rest())
        text = "".join(reasoning.text.pieces)
        part = {"type": "summary_text", "text": text}
        events += [
            self._summary_event("text.done", reasoning, text=text),
            self._summary_event("part.done", reasoning, part=part),
        ]
        reasoning.parts.append(part)
        return events

    def _end_function(self, call: _FunctionCallInProgress, status: ItemStatus) -> list[Event]:
        arguments = call.arguments
        rest = arguments.held() or arguments.rest()
        if not rest and not arguments.pieces and status == "completed":
            rest = "{}"  # some sources write nothing where there are no arguments, but clients parse them as JSON
        events = self._grow(arguments, call.deltas, rest)
        text = "".join(arguments.pieces)
        events.append(self._event("response.function_call_arguments.done", call, name=call.name, arguments=text))
        return [*events, self._item_done(call, call.item(status, text))]

    def _end_custom(self, call: _CustomCallInProgress, status: ItemStatus) -> list[Event]:
        text = _custom_input("".join(call.arguments.pieces) or call.arguments.held())
        events = [self._event("response.custom_tool_call_input.delta", call, delta=text)] if text else []
        events.append(self._event("response.custom_tool_call_input.done", call, input=text))
        return [*events, self._item_done(call, call.item(status, text))]

    def _grow(self, text: GrowingText, deltas: _Deltas, delta: str, *, extra: bytes = b"") -> list[Event]:
        """Add to a text, and return the event that says so: none if nothing is new, or only half a character."""
        if text.half:
            delta = text.mend(delta)
        try:
            said = encode(delta)
        except UnicodeEncodeError:  # surrogates, alone or in two pieces; good text costs no look at it
            delta = text.mend(delta)
            said = encode(delta)
        if not delta:
            return []
        text.pieces.append(delta)
        number = self._next()
        data = b'%b%b%b,"sequence_number":%d}' % (deltas.head, said, extra, number)
        return [Event(deltas.kind, data, number)]

    def _item_done(self, item: _ItemInProgress, value: Json) -> Event:
        number = self._next()
        raw = encode(value)
        head = b'{"type":"response.output_item.done","output_index":%d,"item":' % item.index
        return Event("response.output_item.done", b'%b%b,"sequence_number":%d}' % (head, raw, number), number, raw)

    def _event(self, kind: str, item: _ItemInProgress, **fields: object) -> Event:
        number = self._next()
        place = {"type": kind, "item_id": item.id, "output_index": item.index}
        return Event(kind, encode({**place, **fields, "sequence_number": number}), number)

    def _next_id(self, prefix: str) -> str:
        return item_id(prefix, self._response_id, self._items)

    def _next(self) -> int:
        number = self._number
        self._number += 1
        return number
