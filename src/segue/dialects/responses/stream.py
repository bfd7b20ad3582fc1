"""The Responses dialect: reading its stream, most of which passes on as the bytes it is.

There is one handler for each event type that is acted on: items are counted and collected, reasoning gets the mark of
its provider, and our own events replace those that carry the response. All other events of a response pass, also types
that do not exist yet. An upstream that leaves events out is read as far as it is clear what it means: what was streamed
stands, and what only its terminal event has is written as events before ours. What is inside an item that it streams is
not checked; that is between the upstream and the client. Not here: requests (`request`), numbering (`protocol.turns`),
which event belongs to which item (`output_items`), and writing what is missing (`item_events`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import msgspec

from segue.dialects.error_shapes import error_of
from segue.dialects.interface import Output
from segue.dialects.provider_errors import ProviderError, code_of_word, failure_of
from segue.dialects.reply_decoder import BaseReplyDecoder
from segue.dialects.responses.event_repair import is_of_a_response, repair_event
from segue.dialects.responses.item_events import (
    CALLS,
    NAMES,
    TEXTS,
    UnannouncedItem,
    done,
    is_call,
    lacks_nothing,
    normal,
    rest_of_item,
    text_of,
    whole_item,
)
from segue.dialects.responses.missing_fields import fill
from segue.dialects.responses.output_items import (
    EndedItem,
    OutputItem,
    OutputItems,
    match,
    says_as_much,
    says_the_same,
    says_what_passed,
)
from segue.dialects.sealed_reasoning import seal
from segue.dialects.stream_end import MAX_WARNINGS, count, counted
from segue.http.sse import CR, LF, SseEvent
from segue.protocol.codec import UNREADABLE, decode_value, is_utf8, with_field
from segue.protocol.events import Event, ItemStatus
from segue.protocol.ids import ResponseId, item_id
from segue.protocol.problems import Problem, quoted
from segue.protocol.responses import Failure, Usage

_NULL = msgspec.Raw(b"null")


class _ReceivedItem(msgspec.Struct):
    type: str
    id: str | None = None
    call_id: str | None = None
    role: str | None = None
    status: str | None = None
    encrypted_content: str | None = None


class _EndedResponse(msgspec.Struct):
    status: Any = None
    usage: Any = None
    error: Any = None
    incomplete_details: Any = None
    warnings: Any = None  # of a gateway such as this one
    output: list[msgspec.Raw] | None = None


class _EventHead(msgspec.Struct):
    type: str = ""
    sequence_number: int = -1
    output_index: int | None = None
    item: msgspec.Raw = _NULL
    response: msgspec.Raw = _NULL


_heads = msgspec.json.Decoder(_EventHead)
_items = msgspec.json.Decoder(_ReceivedItem)
_objects = msgspec.json.Decoder(dict[str, Any])
_responses = msgspec.json.Decoder(_EndedResponse)

_ADDED = "response.output_item.added"
_DONE = "response.output_item.done"
_NO_RESPONSE = _EndedResponse()
#: The most that is told of one warning.
_MAX_WARNING_CHARS = 500
_NOTHING = b'{"type":"keepalive"}'
#: How a response ends, and how bad that is. What its event says and what is in it may differ: the worse is believed.
_STATUSES = {"completed": 0, "incomplete": 1, "failed": 2, "cancelled": 2}
#: Events of parts; those of an item that we began are written anew.
_PARTS = ("response.content_part.", "response.reasoning_summary_part.", "response.output_text.annotation.")
_CALL_NAMES = {name for _, name in CALLS.values()}
#: A code that a message may name.
_SHORT_WORD = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,39}")


class ResponsesDecoder(BaseReplyDecoder):
    """Reads one stream of events. `limit`: how many tokens the answer may have at most, if the request said so."""

    def __init__(
        self, response_id: ResponseId, provider: str, warnings: tuple[str, ...] = (), *, limit: int | None = None
    ) -> None:
        super().__init__(provider, warnings)
        self._limit = limit
        self._response_id = response_id
        self._items = OutputItems()
        self._done = 0
        self._early: dict[int, Event] = {}  # done, but an item that began before is not
        self._held: dict[str, Any] | None = None  # an event whose delta is half a character
        self._nameless: set[object] = set()  # calls of which only deltas came
        self._cut = False  # an item says that it is incomplete
        self._handlers: dict[str, Callable[[_EventHead, bytes], Output]] = {
            "response.created": lambda *_: [],
            "response.queued": lambda *_: [],
            "response.in_progress": lambda *_: [],
            _ADDED: self._on_added,
            _DONE: self._on_done,
            "response.done": lambda head, _: self._on_end("", head),
            "response.completed": lambda head, _: self._on_end("completed", head),
            "response.incomplete": lambda head, _: self._on_end("incomplete", head),
            "response.failed": lambda head, _: self._on_end("failed", head),
            "response.cancelled": lambda head, _: self._on_end("cancelled", head),
        }

    def feed(self, event: SseEvent) -> Output:
        """Read one event."""
        data = event.data
        if self._stream_end.ended or event.type == "error" or data == b"[DONE]":
            return self._on_error(event) if event.type == "error" else []
        try:
            try:
                head = _heads.decode(data)
            except UNREADABLE:
                return self._feed_repaired(event)
            kind = head.type or event.type
            waits = self._held is not None and is_of_a_response(kind)
            if waits or not (data.isascii() or is_utf8(data)):  # what passes is not decoded
                return self._feed_repaired(event)
            if LF in data or CR in data:
                data = msgspec.json.format(data, indent=-1)  # one event is one line
            item = self._items.at.get(head.output_index)
            if item is not None and item.passes and (kind == item.last or self._passes(kind, item)):
                item.keep(kind, data)
                return [Event(kind, data, head.sequence_number)]
            handler = self._handlers.get(kind)
            return self._on_piece(kind, head, data) if handler is None else handler(head, data)
        except UNREADABLE:
            return self._on_unreadable(event, "an event is no JSON of a known shape")

    def _passes(self, kind: str, item: OutputItem) -> bool:
        """Tell whether an event passes that is of another type than the one before it."""
        return kind not in self._handlers and (bool(item.last) or not _lacks_parts(item, kind))

    # --- events

    def _feed_repaired(self, event: SseEvent) -> Output:
        """Read an event that strict decoding refuses, or that comes after half a character."""
        repaired = repair_event(event.data.strip() or _NOTHING, self._held)
        self._held = None
        output = [one for data in repaired.events for one in self.feed(SseEvent(event.type, data))]
        self._held = repaired.held
        return output

    def _on_other(self, kind: str, data: bytes) -> Output:
        """Read an event that is no event of a response: an error, or a vendor's own, which clients do not know."""
        failed = self._find_error(SseEvent(kind, data))
        if not failed and kind != "keepalive":
            self._stream_end.warn_of(kind)
        return failed

    def _on_piece(self, kind: str, head: _EventHead, data: bytes) -> Output:
        """Read an event of an item that does not simply pass: its index is not ours, or it has none, or no item has."""
        if not is_of_a_response(kind):
            return self._on_other(kind, data)
        if head.output_index is None and not _is_of_an_item(kind):
            failed = self._find_error(SseEvent(kind, data)) if b'"error"' in data else []  # such as `response.error`
            return failed or [Event(kind, data, head.sequence_number)]
        fields = _objects.decode(data)
        ident = _text(fields.get("item_id"))
        item = self._items.find(head.output_index, ident)
        if item is not None and item.open and item.unannounced is None and (item.last or not _lacks_parts(item, kind)):
            data = fill(kind, fields, item.index)
            item.keep(kind, data)
            return [Event(kind, data, head.sequence_number)]
        name, _, step = kind.rpartition(".")
        text: object
        if kind.startswith(_PARTS):
            name, text = _text_of_part(fields)
        elif name in _CALL_NAMES:
            self._nameless.add(ident or head.output_index)
            name, text = "", ""
        else:
            text = fields.get(TEXTS[name].field if step == "done" else "delta") if name in TEXTS else None
        if not isinstance(text, str) or (item is not None and not item.open and ident in ("", item.ident)):
            return self._stream_end.broken(f"{kind[:60]} belongs to no item that is open")
        if not text:
            return []
        unannounced = self._unannounced(item, head.output_index, TEXTS[name].item, ident)
        number = fields.get("content_index", fields.get("summary_index"))
        return [*(unannounced.add if step == "delta" else unannounced.complete)(name, number, text)]

    def _unannounced(self, item: OutputItem | None, index: int | None, kind: str, ident: str) -> UnannouncedItem:
        """Return what writes the item of a delta, which is begun unless it has been."""
        named = item is not None and (item.last or ident in ("", item.ident))
        if item is None or item.unannounced is None or item.kind != kind or not named:
            ident = ident if ident and not self._items.has(ident) else self._new_id(kind)
            item = self._items.begin(index, kind, ident)
            return item.write_anew(UnannouncedItem(kind, ident, item.index))
        return item.unannounced

    def _on_added(self, head: _EventHead, data: bytes) -> Output:
        if head.item == _NULL:
            return self._stream_end.broken("an item begins that is none")
        read = _items.decode(head.item)
        known = self._items.find(head.output_index, read.id or "")
        begun = known is not None and known.open and known.kind == read.type
        if known is not None and begun and (known.unannounced is not None or (read.id and read.id == known.ident)):
            return []  # it has begun before
        item = self._items.begin(head.output_index, read.type, read.id or "")
        if head.output_index != item.index:
            data = fill(_ADDED, _objects.decode(data), item.index)
        sealed = self._sealed(head.item, read)
        if sealed is not None:
            data = with_field(data, "item", msgspec.Raw(sealed))
        return [Event(_ADDED, data, head.sequence_number)]

    def _on_done(self, head: _EventHead, data: bytes) -> Output:
        if head.item == _NULL:
            return self._stream_end.broken("an item ends that is none")
        if isinstance(decode_value(head.item, "item"), Problem):  # it is kept, and other code parses it again
            return self._stream_end.broken("an item is nested too deeply")
        read = _items.decode(head.item)
        item = self._items.find(head.output_index, read.id or "")
        if item is not None and not item.open:
            if item.raw == bytes(head.item) or (read.id and read.id == item.ident):
                return []  # it ends twice
            item = None
        if item is None or item.unannounced is not None:
            ended = EndedItem(bytes(head.item), _objects.decode(head.item))
            return self._write_whole(ended, head.output_index) if item is None else self._finish(item, ended)
        item.end(bytes(head.item))
        self._cut = self._cut or read.status == "incomplete"
        shown = self._sealed(head.item, read)
        if head.output_index != item.index or read.status == "in_progress":
            fields = _objects.decode(data)
            if read.status == "in_progress":  # which it is no more
                fields["item"]["status"] = "completed"
            data = fill(_DONE, fields, item.index)
            shown = shown or msgspec.json.encode(_objects.decode(data)["item"])
        if shown is not None:
            data = with_field(data, "item", msgspec.Raw(shown))
        shown = shown or bytes(head.item)
        missing = (
            [] if lacks_nothing(item.kind, item.last) else rest_of_item(_objects.decode(shown), item.index, item.last)
        )
        return [*missing, *self._complete(item, Event(_DONE, data, head.sequence_number, shown))]

    def _complete(self, item: OutputItem, event: Event) -> Output:
        """Return the `done` events whose turn it is: an item ends after all that began before it."""
        self._early[item.index] = event
        events: Output = []
        while self._done in self._early:
            events.append(self._early.pop(self._done))
            self._done += 1
        return events

    def _sealed(self, raw: msgspec.Raw, read: _ReceivedItem) -> bytes | None:
        """Return reasoning with the mark of its provider, encrypted or not; None for an item that stays as it is."""
        if read.type != "reasoning":
            return None
        return with_field(bytes(raw), "encrypted_content", seal(self._provider, read.encrypted_content or ""))

    # --- items that were not streamed as they should be

    def _write_whole(self, ended: EndedItem, index: int | None = None, status: ItemStatus = "completed") -> Output:
        """Write all events of an item of which only the end came."""
        kind = _text(ended.item.get("type"))
        ident = ended.ident if ended.ident and not self._items.has(ended.ident) else ""
        made = self._new_id(kind)
        shown = normal({**ended.item, "id": ident}, made, f"call_{made}", status) if kind else None
        if shown is None:
            return self._stream_end.broken("an item has no type, or a call no name")
        item = self._items.begin(index, kind, shown["id"])
        item.end(ended.raw)
        *events, last = whole_item(self._seal(shown), item.index)
        self._cut = self._cut or shown.get("status") == "incomplete"
        return [*events, *self._complete(item, last)]

    def _finish(self, item: OutputItem, ended: EndedItem | None, status: ItemStatus = "completed") -> Output:
        """End an item that we began, with what the upstream shows of it at the end, if it does."""
        unannounced = item.unannounced
        assert unannounced is not None, "only such an item is finished here"
        last = {} if ended is None else ended.item
        if not text_of({**last, "type": item.kind}).startswith(unannounced.text):
            if ended is not None and not unannounced.text.startswith(text_of(last)):
                self._warn_of_another_text()
            last = {**last, "content": unannounced.text, "summary": []}
        events, shown = unannounced.finish(last, "incomplete" if last.get("status") == "incomplete" else status)
        shown = self._seal(shown)
        item.end(msgspec.json.encode(shown) if ended is None else ended.raw)
        self._cut = self._cut or shown.get("status") == "incomplete"
        return [*events, *self._complete(item, done(shown, item.index))]

    def _seal(self, item: dict[str, Any]) -> dict[str, Any]:
        if item["type"] != "reasoning":
            return item
        return {**item, "encrypted_content": seal(self._provider, _text(item.get("encrypted_content")))}

    def _new_id(self, kind: str) -> str:
        prefix = {"message": "msg", "reasoning": "rs", "function_call": "fc", "custom_tool_call": "ctc"}.get(
            kind, "item"
        )
        return item_id(prefix, self._response_id, len(self._items))

    # --- the end

    def _response(self, head: _EventHead) -> _EndedResponse:
        """Return the response that an event carries; what it says in `warnings` is told."""
        response = _NO_RESPONSE if head.response == _NULL else _responses.decode(head.response)
        told = response.warnings if isinstance(response.warnings, list) else []
        for warning in told[: 2 * MAX_WARNINGS]:
            if isinstance(warning, str) and warning.strip():
                self._stream_end.warn(warning[:_MAX_WARNING_CHARS])
        return response

    def _on_end(self, status: str, head: _EventHead) -> Output:
        response = self._response(head)
        details = response.incomplete_details
        reason = _text(details.get("reason")) if isinstance(details, dict) else ""
        said = [status, response.status, "failed" if response.error else None, "incomplete" if details else None]
        known = [one for one in said if isinstance(one, str) and one in _STATUSES]
        if not known:
            return []  # `response.done` of another API
        if response.status is not None and response.status not in known:
            self._stream_end.warn(
                f"The upstream ended its response with the status {quoted(str(response.status), 40)}, which is no end. "
                "What else it said of the end counts."
            )
        status = max(known, key=_STATUSES.__getitem__)
        usage = read_usage(response.usage)
        if _STATUSES[status] == _STATUSES["failed"]:
            error = error_of(response.error) if response.error else ProviderError()
            return self._stream_end.failed(_failure(error), usage, retry_after_s=error.retry_after_s)
        events = self._reconcile(response.output or (), "completed" if status == "completed" else "incomplete")
        if self.ended:
            return events
        cut = reason or "max_output_tokens" if status == "incomplete" or self._cut else None
        if cut is None and self._limit is not None and usage is not None and usage.output_tokens >= self._limit:
            # llama.cpp calls an answer completed that it has cut there
            self._stream_end.warn(
                f"The answer fills 'max_output_tokens' ({self._limit}). It may be cut off there, although the upstream "
                "calls it completed."
            )
        return events + self._stream_end.finished(cut, usage)

    def _reconcile(self, output: Sequence[msgspec.Raw], status: ItemStatus) -> Output:
        """Write what the terminal event has and the stream had not; fail if they contradict each other."""
        items = [*self._items.all]
        raws = [bytes(raw) for raw in output]
        if not self._nameless and raws == [item.raw for item in items]:
            return []
        ended = []
        for raw in raws:
            if isinstance(decode_value(msgspec.Raw(raw), "item"), Problem):
                return self._stream_end.broken("an item is nested too deeply")
            ended.append(EndedItem(raw, _objects.decode(raw)))
        matched = match(items, ended) if ended else {}
        if matched is None:
            return self._stream_end.broken("its last event has too many items that were not in its stream")
        taken = {id(one) for one in matched.values()}
        only_here = [one for one in ended if id(one) not in taken]
        if says_as_much(items, ended):  # one message here may be several there
            only_here = [one for one in only_here if one.item.get("type") != "message"]
            matched = {at: one for at, one in matched.items() if items[at].open or items[at].kind != "message"}
        if len([one for one in only_here if is_call(one.item)]) < len(self._nameless):
            return self._stream_end.broken("a call has no name")
        steps: list[Callable[[ItemStatus], Output]] = [
            *(partial(self._settle, item, matched.get(item.index)) for item in items),
            *(partial(self._write_whole, one, None) for one in only_here),
        ]
        events: Output = []
        for number, step in enumerate(steps, 1):
            events += step(status if number == len(steps) else "completed")  # only the last item can be cut short
            if self.ended:
                break
        return events

    def _settle(self, item: OutputItem, ended: EndedItem | None, status: ItemStatus) -> Output:
        """Bring a streamed item together with the one of the terminal event, if there is one."""
        if item.unannounced is not None and item.open:
            return self._finish(item, ended, status)
        if ended is None:
            return []
        if item.raw is None:
            left_open = item.last and not (item.ident and says_what_passed(item, ended.item))
            return [] if left_open else self._fill_in(item, ended, status)
        streamed = _objects.decode(item.raw)
        return [] if says_the_same(streamed, ended.item) else self._on_difference(item, streamed, ended, status)

    def _on_difference(
        self, item: OutputItem, streamed: dict[str, Any], ended: EndedItem, status: ItemStatus
    ) -> Output:
        """Let stand what was streamed, and write what the terminal event has more of a text. Calls must not differ."""
        if item.kind in CALLS:
            return self._stream_end.broken("its last event contradicts a call in its stream")
        first, second = text_of(streamed), text_of(ended.item)
        if item.kind == "message" and second.startswith(first):
            rest = {"type": "message", "role": "assistant", "content": second[len(first) :]}
            return self._write_whole(EndedItem(b"", rest), status=status)
        return [] if first.startswith(second) else self._warn_of_another_text()

    def _warn_of_another_text(self) -> Output:
        self._stream_end.warn("The upstream's last event shows another text than its stream. The stream's counts.")
        return []

    def _fill_in(self, item: OutputItem, ended: EndedItem, status: ItemStatus) -> Output:
        """End an item of which nothing but the beginning came, or all but the end."""
        shown = normal({**ended.item, "id": item.ident}, item.ident, "", status)
        if shown is None or shown["type"] != item.kind:
            return self._stream_end.broken("its last event contradicts an item that its stream began")
        item.end(ended.raw)
        shown = self._seal(shown)
        _, *events, last = whole_item(shown, item.index)
        self._cut = self._cut or shown.get("status") == "incomplete"
        return [
            *(rest_of_item(shown, item.index, item.last) if item.last else events),
            *self._complete(item, last),
        ]


def _lacks_parts(item: OutputItem, kind: str) -> bool:
    """Tell whether an item goes on with a text although none of its parts began; then it is written anew from here."""
    name = kind.rpartition(".")[0]
    if name not in TEXTS or TEXTS[name].item != item.kind:
        return False
    item.last = kind
    item.write_anew(UnannouncedItem(item.kind, item.ident, item.index, begun=True))
    return True


def _is_of_an_item(kind: str) -> bool:
    """Tell whether events of this type belong to an item, although one has no index."""
    return kind.startswith(_PARTS) or kind.rpartition(".")[0] in {*TEXTS, *_CALL_NAMES}


def _failure(error: ProviderError) -> Failure:
    """Return the failure that a response tells. A code that nobody knows is told in the message if it is short."""
    word, failure = error.words[0] if error.words else "", failure_of(error)
    if code_of_word(word) is None and error.message and _SHORT_WORD.fullmatch(word):
        return Failure(failure.code, f"{error.message} (The upstream's code is {quoted(word)}.)")
    return failure


def _text_of_part(event: dict[str, Any]) -> tuple[str, str]:
    """Return the text in the event of a part, and the name of the events of such a text."""
    part = event.get("part")
    group = "summary" if "summary_index" in event else "content"
    name = NAMES.get((group, _text(part.get("type"))), "") if isinstance(part, dict) else ""
    return name, _text(part.get(TEXTS[name].field)) if name and isinstance(part, dict) else ""


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def read_usage(usage: object) -> Usage | None:
    """Read `usage`."""
    if not isinstance(usage, dict):
        return None
    sent, made = usage.get("input_tokens_details"), usage.get("output_tokens_details")
    return counted(
        count(usage, "input_tokens"),
        count(usage, "output_tokens"),
        cached=count(sent, "cached_tokens"),
        written=count(sent, "cache_write_tokens"),
        reasoning=count(made, "reasoning_tokens"),
    )
