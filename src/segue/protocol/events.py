"""The events that this product emits, and how a frame of each is written.

An `Event` is its JSON bytes plus the few facts that we act on. An upstream yields it and a transport sends it, so text
passes from one socket to the other without being parsed. `OutputWriter` writes the events of a model's output, for
upstreams that are not Responses servers. The functions below it write errors and the events that carry the response
object. Not here: numbering across a turn and folding (`turns`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from segue.protocol.codec import Pieces, encode
from segue.protocol.ids import ResponseId, item_id
from segue.protocol.lanes import TAG_START
from segue.protocol.problems import Problem
from segue.protocol.responses import EncodedResponse, Failure, TerminalStatus, Usage

#: The number of an upstream's first event: `response.created` and `response.in_progress` are always ours.
FIRST_SEQUENCE_NUMBER = 2

ItemStatus = Literal["completed", "incomplete"]

#: What is before the response object in an event. No string holds it: its quotation marks are escaped.
_RESPONSE = b',"response":'


#: The type of an event that is one of the provider's own, for a client that speaks its API. It has no number.
SOURCE = "segue.source"


class Event(msgspec.Struct, frozen=True, gc=False):
    """One event on its way to a client: `data` is one JSON object on one line, sent as it is.

    `item` is the finished item of a `response.output_item.done`; of every other event it is empty. An event that
    carries the response object ends in the `echo` of the request's settings, and `data` stops before it: the echo may
    be as large as a request, so all events of a turn share one, and it is copied nowhere on its way to a socket.
    """

    type: str
    data: bytes
    sequence_number: int
    item: bytes = b""
    echo: bytes = b""

    @property
    def size_bytes(self) -> int:
        """How many bytes the event has, but for its lane."""
        return len(self.data) + len(self.echo)  # the brace that the echo lacks ends the event

    def pieces(self, lane: bytes = b"") -> Pieces:
        """Return the JSON object in its pieces, in a lane if it is given the tag of one (`lanes.tag`)."""
        if not self.echo:
            return (in_lane(self.data, lane),)
        return self.data, memoryview(self.echo)[1:], lane or b"}"

    def whole(self, lane: bytes = b"") -> bytes:
        """Return the JSON object."""
        return b"".join(self.pieces(lane)) if self.echo else in_lane(self.data, lane)


class Ended(msgspec.Struct, frozen=True):
    """The end of an upstream's stream, in place of its terminal event, which we write anew with our ids.

    `warnings` say what a dialect left out of the request or of the reply. `retry_after_s` says when a turn that failed
    may be worth another try, if its upstream said so.
    """

    status: TerminalStatus
    usage: Usage | None = None
    error: Failure | None = None
    incomplete_reason: str | None = None
    warnings: tuple[str, ...] = ()
    retry_after_s: float | None = None


class OutputWriter:
    """Write the events of one response's output, item by item, numbered and in the order that the protocol demands.

    At most one item is open at a time: starting another one, or `end_item`, completes it.
    """

    def __init__(self, response_id: ResponseId, sequence_number: int = FIRST_SEQUENCE_NUMBER) -> None:
        self._response_id = response_id
        self._number = sequence_number
        self._index = -1  # of the open item, or of the last one if none is open
        self._open: _OpenText | _OpenReasoning | _OpenCall | None = None

    def text(self, delta: str, logprobs: Sequence[object] = ()) -> list[Event]:
        """Add text to the assistant message, opening one if none is open; `logprobs` are those of its tokens."""
        opened = self._open
        events: list[Event] = []
        if not isinstance(opened, _OpenText):
            events = self.end_item()
            opened = self._open_message()
            events += self._start_message(opened)
        opened.texts.append(delta)
        written = b"[]"
        if logprobs:
            opened.logprobs += logprobs
            written = encode(logprobs)
        number = self._number
        self._number = number + 1
        data = b'%b%b,"logprobs":%b,"sequence_number":%d}' % (opened.delta_head, encode(delta), written, number)
        events.append(Event("response.output_text.delta", data, number))
        return events

    def reasoning(self, delta: str) -> list[Event]:
        """Add to the reasoning, in the model's own words, opening an item if none is open."""
        opened = self._open
        events: list[Event] = []
        if not isinstance(opened, _OpenReasoning):
            events = self.end_item()
            self._index += 1
            self._open = opened = _OpenReasoning(item_id("rs", self._response_id, self._index))
            item = opened.item([], "in_progress")
            events += [
                self._event("response.output_item.added", output_index=self._index, item=item),
                self._part("response.content_part.added", opened.id, part=_reasoning_part("")),
            ]
        opened.texts.append(delta)
        return [*events, self._part("response.reasoning_text.delta", opened.id, delta=delta)]

    def call(self, call_id: str, name: str, arguments: str) -> list[Event]:
        """Write a whole function call, its arguments as one delta."""
        events = [*self.end_item(), *self.start_call(call_id, name), *self.arguments(arguments)]
        return events + self.end_item()

    def start_call(self, call_id: str, name: str) -> list[Event]:
        """Open a function call item; `arguments` follow in deltas."""
        events = self.end_item()
        self._index += 1
        opened = _OpenCall(item_id("fc", self._response_id, self._index), call_id, name)
        self._open = opened
        item = opened.item("", "in_progress")
        return [*events, self._event("response.output_item.added", output_index=self._index, item=item)]

    def arguments(self, delta: str) -> list[Event]:
        """Add to the arguments of the open function call."""
        opened = self._open
        assert isinstance(opened, _OpenCall), "start_call() comes first"
        opened.texts.append(delta)
        kind = "response.function_call_arguments.delta"
        return [self._event(kind, item_id=opened.id, output_index=self._index, delta=delta)]

    def end_item(self, status: ItemStatus = "completed") -> list[Event]:
        """Complete the open item, if there is one."""
        opened, self._open = self._open, None
        if isinstance(opened, _OpenText):
            return self._end_message(opened, status)
        if isinstance(opened, _OpenReasoning):
            return self._end_reasoning(opened, status)
        if isinstance(opened, _OpenCall):
            return self._end_call(opened, status)
        return []

    def _open_message(self) -> _OpenText:
        self._index += 1
        self._open = opened = _OpenText(item_id("msg", self._response_id, self._index), self._index)
        return opened

    def _start_message(self, opened: _OpenText) -> list[Event]:
        item = {"id": opened.id, "type": "message", "status": "in_progress", "role": "assistant", "content": []}
        return [
            self._event("response.output_item.added", output_index=self._index, item=item),
            self._part("response.content_part.added", opened.id, part=_text_part("")),
        ]

    def _end_message(self, opened: _OpenText, status: ItemStatus) -> list[Event]:
        text = "".join(opened.texts)
        part = _text_part(text, opened.logprobs)
        item: dict[str, object] = {"id": opened.id, "type": "message", "status": status, "role": "assistant"}
        item["content"] = [part]
        return [
            self._part("response.output_text.done", opened.id, text=text, logprobs=opened.logprobs),
            self._part("response.content_part.done", opened.id, part=part),
            self._item_done(item),
        ]

    def _end_reasoning(self, opened: _OpenReasoning, status: ItemStatus) -> list[Event]:
        text = "".join(opened.texts)
        part = _reasoning_part(text)
        return [
            self._part("response.reasoning_text.done", opened.id, text=text),
            self._part("response.content_part.done", opened.id, part=part),
            self._item_done(opened.item([part], status)),
        ]

    def _end_call(self, opened: _OpenCall, status: ItemStatus) -> list[Event]:
        text = "".join(opened.texts)
        kind = "response.function_call_arguments.done"
        done = self._event(kind, item_id=opened.id, output_index=self._index, name=opened.name, arguments=text)
        return [done, self._item_done(opened.item(text, status))]

    def _item_done(self, item: dict[str, object]) -> Event:
        number = self._number
        self._number = number + 1
        raw = encode(item)
        head = b'{"type":"response.output_item.done","output_index":%d,"item":' % self._index
        return Event("response.output_item.done", b'%b%b,"sequence_number":%d}' % (head, raw, number), number, raw)

    def _part(self, kind: str, ident: str, **fields: object) -> Event:
        return self._event(kind, item_id=ident, output_index=self._index, content_index=0, **fields)

    def _event(self, kind: str, **fields: object) -> Event:
        number = self._number
        self._number = number + 1
        return Event(kind, encode({"type": kind, **fields, "sequence_number": number}), number)


class _OpenText:
    """The assistant message being written; the head of its deltas is the same bytes each time."""

    def __init__(self, ident: str, index: int) -> None:
        self.id = ident
        self.texts: list[str] = []
        self.logprobs: list[object] = []
        head = '{"type":"response.output_text.delta","item_id":"%s","output_index":%d,"content_index":0,"delta":'
        self.delta_head = (head % (ident, index)).encode()


class _OpenReasoning:
    """The reasoning being written."""

    def __init__(self, ident: str) -> None:
        self.id = ident
        self.texts: list[str] = []

    def item(self, content: list[dict[str, object]], status: str) -> dict[str, object]:
        return {"id": self.id, "type": "reasoning", "status": status, "summary": [], "content": content}


class _OpenCall:
    """The function call being written."""

    def __init__(self, ident: str, call_id: str, name: str) -> None:
        self.id = ident
        self.call_id = call_id
        self.name = name
        self.texts: list[str] = []

    def item(self, arguments: str, status: str) -> dict[str, object]:
        return {
            "id": self.id,
            "type": "function_call",
            "status": status,
            "call_id": self.call_id,
            "name": self.name,
            "arguments": arguments,
        }


def _reasoning_part(text: str) -> dict[str, object]:
    return {"type": "reasoning_text", "text": text}


def _text_part(text: str, logprobs: Sequence[object] = ()) -> dict[str, object]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs}


def response_event(kind: str, response: bytes, number: int, echo: bytes = b"") -> Event:
    """Write one of the events that carry the response object, e.g. `response.created`.

    With an `echo`, `response` is the object up to there (`responses.encode_start`).
    """
    head = b'{"type":"%b","sequence_number":%d%b' % (kind.encode(), number, _RESPONSE)
    return Event(kind, b"".join((head, response, b"" if echo else b"}")), number, echo=echo)


def in_lane(data: bytes, tag: bytes) -> bytes:
    """Put an event or error into a lane; `tag` comes from `lanes.tag`, and is empty for the default lane."""
    if not tag:
        return data
    if data.startswith(b"["):  # a compact event: the name comes first
        return b"[%b,%b" % (tag[len(TAG_START) : -1], data[1:])
    return (data if data.endswith(b"}") else data.rstrip())[:-1] + tag


def response_of(event: Event) -> EncodedResponse:
    """Return the response object that an event of a turn carries."""
    assert event.echo, "only events with a response object have an echo"
    return EncodedResponse(event.data[event.data.index(_RESPONSE) + len(_RESPONSE) :], event.echo)


class _ErrorBody(msgspec.Struct, frozen=True):
    type: str
    code: str
    message: str
    param: str | None


class _HttpError(msgspec.Struct, frozen=True):
    error: _ErrorBody


class _ErrorBodyWithHeaders(_ErrorBody, frozen=True):
    headers: Mapping[str, str]


class _SocketError(msgspec.Struct, frozen=True):
    """WebSocket mode nests the error and says the HTTP status (Open Responses: WebSocketErrorEvent)."""

    error: _ErrorBody
    status: int
    type: str = "error"


def http_error(problem: Problem, kind: str) -> bytes:
    """Write the body of an HTTP error."""
    return encode(_HttpError(_ErrorBody(kind, problem.told_code, problem.message, problem.param)))


def error_event(problem: Problem, kind: str, status: int, *, headers: Mapping[str, str] | None = None) -> bytes:
    """Write the `error` frame of WebSocket mode. It has no sequence number: it belongs to no response.

    What HTTP says in header lines stands in `error.headers`, where OpenAI's clients look for it.
    """
    said = (kind, problem.told_code, problem.message, problem.param)
    return encode(_SocketError(_ErrorBodyWithHeaders(*said, headers) if headers else _ErrorBody(*said), status))
