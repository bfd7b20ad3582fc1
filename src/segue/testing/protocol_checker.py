"""Checks everything that a Responses server, segue first of all, puts on the wire. `check_event`, `check_response` and
`check_error` judge one object by the Open Responses document; `StreamChecker` also judges the order of one response's
events, `SocketChecker` one WebSocket connection and `check_sse` one SSE body. Where the document leaves room, the
checker enforces segue's own narrower rule: numbers from 0 without gaps, `response.failed` instead of a late `error`, no
vendor events. Fields that the document does not know pass, as the specification says. It needs the extra `testing`.
Not here: a client, so it never repairs, skips or reorders a frame, and does not know what was asked; and streams that
were resumed in the middle, whose events you check one by one.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final, Literal, NoReturn, TypeAlias

import msgspec

from segue.testing.response_schemas import (
    EXTRA_EVENTS,
    Json,
    ProtocolViolation,
    check_object,
    event_schemas,
    schemas,
    short,
    validate,
    validate_model,
)
from segue.testing.steer_checker import SteerChecker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = [
    "Json",
    "ProtocolViolation",
    "SocketChecker",
    "StreamChecker",
    "Transport",
    "check_error",
    "check_event",
    "check_response",
    "check_sse",
    "parse_json",
    "parse_sse",
]

Transport: TypeAlias = Literal["sse", "websocket"]

_ERROR_STATUSES = (400, 599)
ERROR_SCHEMAS: Final[dict[Transport, str]] = {"sse": "ErrorStreamingEvent", "websocket": "WebSocketErrorEvent"}
TERMINAL: Final = {f"response.{status}": status for status in ("completed", "failed", "incomplete")}
# What echoes the request or names the response cannot change while the response is made.
STABLE_KEYS: Final = (
    *("id", "created_at", "model", "previous_response_id", "instructions", "tools", "tool_choice", "store"),
    *("background", "metadata", "safety_identifier", "prompt_cache_key"),
)
_STREAM_ID: Final = re.compile(r"[A-Za-z0-9_.-]{1,256}")


# ---------------------------------------------------------------------------------------- single objects, one SSE body


def _without_wrong_input(frame: Json) -> Json:
    """Leave out the input of a steer that is given back because it is none: it may be anything."""
    if frame["type"] != "response.steer.failed" or frame.get("error", {}).get("code") != "invalid_input":
        return frame
    return {**frame, "steer": {**frame["steer"], "input": ""}}


def check_event(frame: Json, *, transport: Transport) -> None:
    """Check one streaming event or error frame by itself. `StreamChecker` also checks the order of events."""
    check_object("frame", frame)
    kind = frame.get("type")
    if not isinstance(kind, str):
        raise ProtocolViolation("frame", "type", f"{short(kind)} is not a string")
    if kind in EXTRA_EVENTS:
        validate_model(kind, EXTRA_EVENTS[kind], _without_wrong_input(frame))
    elif kind == "error":
        validate(kind, schemas()[ERROR_SCHEMAS[transport]], frame)
        if transport == "websocket" and not _ERROR_STATUSES[0] <= frame["status"] <= _ERROR_STATUSES[1]:
            raise ProtocolViolation(kind, "status", f"{frame['status']} is not the status of an error")
    elif kind in event_schemas():
        validate(kind, event_schemas()[kind], frame)
    else:
        raise ProtocolViolation(
            kind, "type", "is not an event of the Responses API; vendor events break conforming clients"
        )
    lane = frame.get("stream_id", "default")
    if not isinstance(lane, str) or not _STREAM_ID.fullmatch(lane) or (transport == "sse" and "stream_id" in frame):
        raise ProtocolViolation(kind, "stream_id", f"{short(lane)} is not a stream id of WebSocket mode")


def check_response(response: Json) -> None:
    """Check a response object: its schema, which requires all 31 keys (null where allowed), and a known status."""
    validate("response", schemas()["ResponseResource"], response)


def check_error(body: Json) -> None:
    """Check the body of an HTTP error: `{"error": {message, type, param, code}}` and nothing beside `error`."""
    check_object("error body", body)
    error = body.get("error")
    if not isinstance(error, dict) or len(body) != 1:
        raise ProtocolViolation("error body", "", f"has not one key, `error`, with an object: {short(body)}")
    for key in ("message", "type", "param", "code"):
        if key not in error:
            raise ProtocolViolation("error body", "error", f"lacks {key}")
        absent = error[key] is None and key in ("param", "code")
        if not absent and not (isinstance(error[key], str) and error[key].strip()):
            raise ProtocolViolation("error body", f"error.{key}", f"{short(error[key])} is not a non-empty string")


def parse_json(text: str) -> Json:
    """Parse the text of one frame. NaN and a duplicate key are violations here, though `json` accepts both.

    A duplicate key is the classic fault of a server that patches bytes, and parsers disagree about which value counts.
    """

    def unique(pairs: list[tuple[str, Any]]) -> Json:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ProtocolViolation("frame", "", f"has a key twice: {', '.join(key for key, _ in pairs)}")
        return found

    def constant(name: str) -> NoReturn:
        raise ProtocolViolation("frame", "", f"{name} is not JSON")

    try:
        value: Json = json.loads(text, object_pairs_hook=unique, parse_constant=constant)
    except json.JSONDecodeError as error:
        raise ProtocolViolation("frame", "", f"is not JSON ({error}): {short(text)}") from None
    check_object("frame", value)
    return value


def parse_sse(data: bytes) -> list[tuple[str, str]]:
    """Split a whole SSE body into `(event, data)` pairs, in the one form segue writes; the final `[DONE]` is dropped.

    LF only, two lines per block (`event: TYPE`, `data: JSON`), the event equal to the `type` of the data, and
    `data: [DONE]` as last block and nowhere else. Widely used parsers lose events in any other form. After the first
    block there may be comments of one line, which keep a connection alive.
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ProtocolViolation("sse", "", f"is not UTF-8: {error}") from None
    if "\r" in text:
        raise ProtocolViolation("sse", "", "has a CR; lines end in LF only")
    if not text.endswith("\n\n"):
        raise ProtocolViolation("sse", "", f"does not end with a blank line but with {text[-40:]!r}")
    *blocks, last = text[:-2].split("\n\n")
    if last != "data: [DONE]":
        raise ProtocolViolation("sse", f"block {len(blocks)}", f"the last block is {short(last)}, not 'data: [DONE]'")
    return [
        _parse_block(block, f"block {index}") for index, block in enumerate(blocks) if not (index and is_comment(block))
    ]


def is_comment(block: str) -> bool:
    """Tell whether a block of an SSE body is one comment, which no client reads."""
    return block.startswith(":") and "\n" not in block


def check_sse(data: bytes, checker: StreamChecker | None = None) -> StreamChecker:
    """Check a whole SSE body: its form, each event, and their order; returns the finished checker."""
    checker = checker or StreamChecker("sse")
    for _, text in parse_sse(data):
        checker.feed(parse_json(text))
    checker.finish()
    return checker


def _parse_block(block: str, where: str) -> tuple[str, str]:
    lines = block.split("\n")
    if len(lines) != len(("event", "data")) or not lines[0].startswith("event: ") or not lines[1].startswith("data: "):
        raise ProtocolViolation("sse", where, f"is not one `event: ` and one `data: ` line: {short(block)}")
    event, text = lines[0].removeprefix("event: "), lines[1].removeprefix("data: ")
    kind = parse_json(text).get("type")
    if event != kind:
        raise ProtocolViolation("sse", where, f"the event line says {event!r}, the data's type is {kind!r}")
    return event, text


# -------------------------------------------------------------------------------------------------------- one response


class _TextFamily(msgspec.Struct, frozen=True):
    """What the `.delta` and `.done` events of one name build: a text in a part, or the one text of a call."""

    item: str
    group: Literal["content", "summary", "call"]
    part: str
    text: str

    def __str__(self) -> str:
        return f"{self.item} {self.group} {self.part}"


_FAMILIES: Final = {
    "response.output_text": _TextFamily("message", "content", "output_text", "text"),
    "response.refusal": _TextFamily("message", "content", "refusal", "refusal"),
    "response.reasoning": _TextFamily("reasoning", "content", "reasoning_text", "text"),
    "response.reasoning_text": _TextFamily("reasoning", "content", "reasoning_text", "text"),
    "response.reasoning_summary_text": _TextFamily("reasoning", "summary", "summary_text", "text"),
    "response.function_call_arguments": _TextFamily("function_call", "call", "", "arguments"),
    "response.custom_tool_call_input": _TextFamily("custom_tool_call", "call", "", "input"),
}
# What must be empty in an item that was just added, or its deltas would say it twice.
_EMPTY_AT_FIRST: Final[Json] = {"content": [], "summary": [], "arguments": "", "input": ""}


class _PartText(msgspec.Struct):
    """A text that deltas build, and the part that holds it."""

    family: _TextFamily
    deltas: list[str] = []
    annotations: list[Json] = []
    text: str | None = None  # set by the done event of the text
    part: Json | None = None  # set by the done event of the part


class _OpenItem(msgspec.Struct):
    """An output item between its `added` and its `done` event."""

    added: Json
    pieces: defaultdict[str, list[_PartText]] = msgspec.field(default_factory=lambda: defaultdict(list))
    done: Json | None = None


class StreamChecker:
    """Checks the events of one response and their order; `stream_id` names the lane, if it has one.

    Feed every frame, then call `finish()`. It raises the first violation again, in case a task swallowed it. Then
    `response` is the response of the terminal event, `error` the error object of a refused turn, and `frames` holds
    everything that was fed.
    """

    def __init__(self, transport: Transport, *, stream_id: str | None = None) -> None:
        self.response: Json | None = None
        self.error: Json | None = None
        self.frames: list[Json] = []
        self._transport: Transport = transport
        self.stream_id = stream_id
        self._created: Json = {}
        self._running = False
        self._items: list[_OpenItem] = []
        self._violation: ProtocolViolation | None = None
        self._kind = "frame"
        self._between = 0
        self._handlers: dict[str, Callable[[Json], None]] = {
            "error": self._on_refused,
            "response.created": self._on_created,
            "response.queued": self._on_queued,
            "response.in_progress": self._on_in_progress,
            "response.output_item.added": self._on_item_added,
            "response.output_item.done": self._on_item_done,
            **{f"response.{name}_part.added": self._on_part_added for name in ("content", "reasoning_summary")},
            **{f"response.{name}_part.done": self._on_part_done for name in ("content", "reasoning_summary")},
            "response.output_text.annotation.added": self._on_annotation,
            "response.compaction.compacting": self._on_compacting,
            **dict.fromkeys(TERMINAL, self._on_terminal),
            **{f"{name}.delta": self._on_delta for name in _FAMILIES},
            **{f"{name}.done": self._on_text_done for name in _FAMILIES},
        }

    @property
    def response_id(self) -> str | None:
        """The id of the response, once it has begun."""
        return self._created.get("id")

    @property
    def finished(self) -> bool:
        """True when the turn has ended, by a terminal event or by being refused."""
        return self.response is not None or self.error is not None

    def feed(self, frame: Json) -> None:
        """Check the next frame."""
        try:
            check_event(frame, transport=self._transport)
            self._kind = frame["type"]
            self._expect(not self.finished, "", "comes after the end of the turn")
            # Only the error frame of WebSocket mode may go without a number.
            number = len(self.frames) + self._between
            self._equal("sequence_number", number, frame.get("sequence_number", number))
            self._equal("stream_id", self.stream_id, frame.get("stream_id"))
            if self._kind not in ("error", "response.created", "response.queued", "response.in_progress"):
                self._expect(self._running, "", "comes before response.created and response.in_progress")
            self._handlers[self._kind](frame)
            for key in STABLE_KEYS if "response" in frame else ():
                self._equal(f"response.{key}", self._created[key], frame["response"][key])
            self.frames.append(frame)
        except ProtocolViolation as violation:
            self._violation = self._violation or violation
            raise

    def feed_between(self, frame: Json) -> None:
        """Check the number of an event that is about this response and none of its own: it takes one of its numbers."""
        self._kind = frame["type"]
        if frame["sequence_number"] == 0 and "id" not in frame["steer"]:
            return  # it stands outside of the stream: the response takes no steers
        try:
            self._equal("sequence_number", len(self.frames) + self._between, frame["sequence_number"])
        except ProtocolViolation as violation:
            self._violation = self._violation or violation
            raise
        self._between += 1

    def finish(self) -> None:
        """Check that the turn has ended; call it when no frame follows."""
        if self._violation is not None:
            raise self._violation
        if not self.finished:
            raise ProtocolViolation("stream", "", f"ended after {len(self.frames)} events without a terminal event")

    # The response around the items

    def _on_refused(self, frame: Json) -> None:
        self._expect(not self._created, "", "comes after response.created; a response that began ends as failed")
        self.error = frame["error"]

    def _on_created(self, frame: Json) -> None:
        self._expect(not self._created, "", "comes twice")
        self._created = frame["response"]
        self._expect(bool(self._created["id"]), "response.id", "is empty")
        # Only a background response may wait before it runs.
        self._check_unborn(frame, "in_progress", *(("queued",) if self._created["background"] else ()))

    def _on_queued(self, frame: Json) -> None:
        self._expect(len(self.frames) == 1, "", "does not follow response.created")
        self._expect(frame["response"]["background"], "", "is only for a background response")
        self._check_unborn(frame, "queued")

    def _on_in_progress(self, frame: Json) -> None:
        self._expect(bool(self._created), "", "comes before response.created")
        self._expect(not self._running, "", "comes twice")
        self._running = True
        self._check_unborn(frame, "in_progress")

    def _on_terminal(self, frame: Json) -> None:
        response, status = frame["response"], TERMINAL[self._kind]
        cancelled = response["status"] == "cancelled"
        self._expect(not cancelled or response["background"], "response.status", "only a background one is cancelled")
        self._equal("response.status", "cancelled" if cancelled else status, response["status"])
        self._check_reasons(response)
        still_open = [item.added["id"] for item in self._items if item.done is None]
        # A failure may leave an item open: better that a client never sees it done than that it sees a part as done.
        self._expect(
            not still_open or status == "failed" or cancelled,
            "",
            f"comes while items are open: {', '.join(still_open)}",
        )
        done = [item.done for item in self._items if item.done is not None]
        self._equal("response.output", done, response["output"])
        for index, item in enumerate(done):
            complete = item.get("status", "completed") == "completed"
            may_be_cut = status != "completed" and index == len(done) - 1
            self._expect(complete or may_be_cut, f"response.output[{index}].status", f"is incomplete if {status}")
        self.response = response

    def _check_unborn(self, frame: Json, *statuses: str) -> None:
        response = frame["response"]
        self._expect(response["status"] in statuses, "response.status", f"{response['status']!r} is not {statuses}")
        self._equal("response.output", [], response["output"])
        for key in ("usage", "error", "incomplete_details", "completed_at"):
            self._equal(f"response.{key}", None, response[key])

    def _check_reasons(self, response: Json) -> None:
        status, usage = response["status"], response["usage"]
        for key, wanted in (("error", status == "failed"), ("incomplete_details", status == "incomplete")):
            value = response[key]
            self._expect((value is not None) == wanted, f"response.{key}", f"is {short(value)} if {status}")
        if status == "completed":
            self._expect(usage is not None, "response.usage", "is null in a completed response")
            ended = (response["completed_at"] or 0) >= response["created_at"]
            self._expect(ended, "response.completed_at", f"is {response['completed_at']}")
        if usage is not None:
            sent, made = usage["input_tokens"], usage["output_tokens"]
            cached = usage["input_tokens_details"]["cached_tokens"]
            reasoning = usage["output_tokens_details"]["reasoning_tokens"]
            adds_up = 0 <= cached <= sent and 0 <= reasoning <= made and usage["total_tokens"] == sent + made
            self._expect(adds_up, "response.usage", f"does not add up: {short(usage)}")

    # Items

    def _on_item_added(self, frame: Json) -> None:
        item = frame["item"]
        self._expect(item is not None, "item", "is null")
        self._equal("output_index", len(self._items), frame["output_index"])
        self._expect(bool(item["id"]), "item.id", "is empty")
        for key in ("id", "call_id"):
            taken = {other.added.get(key) for other in self._items} - {None}
            self._expect(item.get(key) not in taken, f"item.{key}", f"{item.get(key)!r} is that of an earlier item")
        kind, state = item["type"], _OpenItem(item)
        if any(kind == family.item for family in _FAMILIES.values()):
            self._equal("item.status", "in_progress", item.get("status", "in_progress"))
            for key in _EMPTY_AT_FIRST.keys() & item.keys():
                self._equal(f"item.{key}", _EMPTY_AT_FIRST[key], item[key])
        calls = (family for family in _FAMILIES.values() if (family.item, family.group) == (kind, "call"))
        state.pieces["call"] += [_PartText(family) for family in calls]
        self._items.append(state)

    def _on_item_done(self, frame: Json) -> None:
        item = frame["item"]
        self._expect(item is not None, "item", "is null")
        state = self._open_item(frame, "item.id", item["id"])
        for key in ("type", "role", "call_id", "name"):  # they were in the `added` event too
            self._equal(f"item.{key}", state.added.get(key), item.get(key))
        self._expect(item.get("status") != "in_progress", "item.status", "is still in_progress")
        for piece in state.pieces["call"]:
            self._expect(piece.text is not None, "item", "is done before its arguments or input are")
            self._equal(f"item.{piece.family.text}", piece.text, item[piece.family.text])
        if item["type"] in ("message", "reasoning"):
            for group in ("content", "summary"):
                parts = [piece.part for piece in state.pieces[group]]
                self._expect(None not in parts, f"item.{group}", "is done before its parts are")
                self._equal(f"item.{group}", parts, item.get(group, []))
        state.done = item

    def _on_compacting(self, frame: Json) -> None:
        item = self._open_item(frame, "item_id", frame["item_id"])
        self._equal("item_id", "compaction", item.added["type"])

    # Parts and texts

    def _on_part_added(self, frame: Json) -> None:
        item = self._open_item(frame, "item_id", frame["item_id"])
        part, group, kind = frame["part"], "summary" if "summary" in self._kind else "content", item.added["type"]
        wanted = (kind, group, part["type"])
        family = next((one for one in _FAMILIES.values() if (one.item, one.group, one.part) == wanted), None)
        if family is None:
            self._fail("part.type", f"a {kind} item has no {part['type']} in its {group}")
        pieces = item.pieces[group]
        self._equal(f"{group}_index", len(pieces), frame[f"{group}_index"])
        self._expect(not pieces or pieces[-1].part is not None, "", "comes before the part before it is done")
        self._equal(f"part.{family.text}", "", part[family.text])
        self._equal("part.annotations", [], part.get("annotations", []))
        pieces.append(_PartText(family))

    def _on_part_done(self, frame: Json) -> None:
        part, group = frame["part"], "summary" if "summary" in self._kind else "content"
        piece = self._open_piece(frame, group)
        self._equal("part.type", piece.family.part, part["type"])
        self._expect(piece.text is not None, "", "comes before the done event of its text")
        self._equal(f"part.{piece.family.text}", piece.text, part[piece.family.text])
        self._equal("part.annotations", piece.annotations, part.get("annotations", []))
        piece.part = part

    def _on_delta(self, frame: Json) -> None:
        self._open_text(frame, _FAMILIES[self._kind.removesuffix(".delta")]).deltas.append(frame["delta"])

    def _on_text_done(self, frame: Json) -> None:
        family = _FAMILIES[self._kind.removesuffix(".done")]
        piece = self._open_text(frame, family)
        self._equal(family.text, "".join(piece.deltas), frame[family.text])
        piece.text = frame[family.text]

    def _on_annotation(self, frame: Json) -> None:
        piece = self._open_text(frame, _FAMILIES["response.output_text"])
        self._expect(frame["annotation"] is not None, "annotation", "is null")
        self._equal("annotation_index", len(piece.annotations), frame["annotation_index"])
        piece.annotations.append(frame["annotation"])

    def _open_item(self, frame: Json, path: str, item_id: str) -> _OpenItem:
        index = frame["output_index"]
        self._expect(0 <= index < len(self._items), "output_index", f"no item was added at {index}")
        item = self._items[index]
        self._equal(path, item.added["id"], item_id)
        self._expect(item.done is None, "output_index", f"item {index} is already done")
        return item

    def _open_piece(self, frame: Json, group: str) -> _PartText:
        pieces = self._open_item(frame, "item_id", frame["item_id"]).pieces[group]
        index = frame.get(f"{group}_index", 0)  # a call has one text, without an index
        self._expect(0 <= index < len(pieces), f"{group}_index", f"the item has no {group} at {index}")
        self._expect(pieces[index].part is None, f"{group}_index", f"part {index} is already done")
        return pieces[index]

    def _open_text(self, frame: Json, family: _TextFamily) -> _PartText:
        piece = self._open_piece(frame, family.group)
        self._expect(piece.family == family, "type", f"is not for {piece.family}")
        self._expect(piece.text is None, "", "comes after the done event of its text")
        return piece

    def _equal(self, path: str, expected: object, actual: object) -> None:
        if expected != actual:
            self._fail(path, f"is {short(actual)}, expected {short(expected)}")

    def _expect(self, true: object, path: str, reason: str) -> None:
        if not true:
            self._fail(path, reason)

    def _fail(self, path: str, reason: str) -> NoReturn:
        raise ProtocolViolation(f"#{len(self.frames)} {self._kind}", path, reason)


# -------------------------------------------------------------------------------------------- one WebSocket connection


class SocketChecker:
    """Splits the frames of one connection into turns and checks each of them.

    `turns` holds the finished turns in the order in which they ended. Events about steering belong to no turn; `steers`
    checks them. `lanes` are the stream ids that the client has used. The checker takes a frame with any other stream id
    for one of the default lane, where it is a violation: a server must not invent a lane. `stream` is the class that
    checks each turn: another one if the client asks for lean streams.
    """

    def __init__(self, lanes: Iterable[str] = (), *, stream: type[StreamChecker] = StreamChecker) -> None:
        self.turns: list[StreamChecker] = []
        self.steers = SteerChecker()
        self._open: dict[str | None, StreamChecker] = {}
        self._resumed: list[StreamChecker] = []
        self._lanes = frozenset(lanes)
        self._stream = stream

    def expect(self, turn: StreamChecker) -> None:
        """Continue a turn that began on another connection: the rest of it will come in its lane."""
        self._open[turn.stream_id] = turn
        self._resumed.append(turn)

    def feed(self, frame: Json) -> None:
        """Check the next frame of the connection."""
        check_object("frame", frame)
        if frame.get("type") in EXTRA_EVENTS and str(frame["type"]).startswith("response.steer."):
            check_event(frame, transport="websocket")
            self._feed_steer(frame)
            return
        lane = frame.get("stream_id") if frame.get("stream_id") in self._lanes else None
        turn = self._open.setdefault(lane, self._stream("websocket", stream_id=lane))
        turn.feed(frame)
        if frame["type"] == "response.created":
            self.steers.created(frame["response"])
        if turn.finished:
            self.turns.append(self._open.pop(lane))
            if turn.response is not None:
                self.steers.ended(turn.response, frame["sequence_number"])

    def _feed_steer(self, frame: Json) -> None:
        """Check an event about steering; while its target runs, it takes a number of the target's events."""
        turn = self._open.get(frame.get("stream_id"))
        if turn is not None and turn.response_id == frame["steer"]["previous_response_id"]:
            turn.feed_between(frame)
        self.steers.feed(frame)

    def finish(self) -> None:
        """Check, when no frame follows, that no turn is open, had a violation or has the id of another."""
        self.steers.finish()
        for turn in (*self.turns, *self._open.values()):
            turn.finish()
        begun = [turn for turn in self.turns if turn not in self._resumed]
        ids = [turn.response["id"] for turn in begun if turn.response is not None]
        if len(set(ids)) != len(ids):
            raise ProtocolViolation("socket", "response.id", f"two turns have the same id: {short(ids)}")
