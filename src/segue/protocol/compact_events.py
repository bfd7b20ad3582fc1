"""Compact events: those of a lean stream as short arrays, and how a reader makes the events of them again.

An array says what is new. Names, places and the id of the response are said once. A finished item has a hole in place
of each text that came in deltas, so a text crosses the wire once; a checksum tells a reader that lacks one of the
deltas. What no array can say passes as the object that it is, so nothing is ever lost. `docs/spec/compact-events.md`
defines the form. Not here: what a lean stream leaves out (`lean_stream`).
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from contextlib import suppress
from enum import IntEnum
from typing import Annotated, Final, NamedTuple

import msgspec
from msgspec import UNSET, Meta, Raw

from segue.protocol.codec import UNREADABLE, encode
from segue.protocol.events import Event
from segue.protocol.lean_stream import LeanDelta, LeanResponse, LeanWriter
from segue.protocol.responses import Usage, usage

Count = Annotated[int, Meta(ge=0, le=2**31)]
#: A sum of two still fits into 64 bits.
_MOST = 2**53
Large = Annotated[int, Meta(ge=0, le=_MOST)]

#: Shorter texts stay in their item: a hole costs as much.
_LEAST_TEXT_BYTES = 24
#: What can be missing in an item beside texts: what follows the first `_` in the id of the response, and what most
#: items have. Without one of these members an object is still one, and no string holds them: its quotes are escaped.
_ID_BODY = 0
_AFTER_TEXT = b',"annotations":[],"logprobs":[]'
STATIC: Final = (
    b',"type":"message","status":"completed","role":"assistant"',
    b'"type":"output_text",',
    _AFTER_TEXT,
    b',"type":"function_call","status":"completed"',
    b',"type":"custom_tool_call","status":"completed"',
)
#: Where they are looked for, so that a long item costs no more.
_NEAR = 256
#: The number of the first text; the static pieces have those between.
_FIRST_TEXT = 16
_OWN_ID = b'{"id":"'
#: The kinds of texts, as the names of their events have them; an array has the number.
TEXT_NAMES: Final = ("output_text", "refusal", "reasoning_summary_text", "reasoning_text", "reasoning")
_SUMMARY = TEXT_NAMES.index("reasoning_summary_text")
_START, _END = len("response."), -len(".delta")


class CompactKind(IntEnum):
    """The second member of every array but one that continues a text, whose second member is the text."""

    BEGUN = 0
    TEXT = 1
    ITEM = 2
    ENDED = 3


class _BegunArray(msgspec.Struct, array_like=True):
    step: Count
    kind: Count
    id: str
    created_at: Large


class _PlacedText(msgspec.Struct, array_like=True):
    step: Count
    kind: Count
    name: Annotated[int, Meta(ge=0, lt=len(TEXT_NAMES))]
    output_index: Count
    part: Count | None
    item_id: str
    id_at: Count
    delta: str


class _MoreText(msgspec.Struct, array_like=True):
    step: Count
    delta: str


class _ItemArray(msgspec.Struct, array_like=True):
    """`holes` are pairs: a place in `item` in bytes, and the number of the piece that belongs there."""

    step: Count
    kind: Count
    output_index: Count
    item: Raw
    holes: list[Count] = []
    checksum: int | None = None


class _EndedArray(msgspec.Struct, array_like=True):
    """`tokens`: of the input, cached, written to a cache, of the output, of reasoning."""

    step: Count
    kind: Count
    seconds: Count
    tokens: tuple[Large, Large, Large, Large, Large] | None


class _Done(msgspec.Struct, forbid_unknown_fields=True):
    """The end of an item that says nothing which its array could not."""

    type: str
    output_index: Count
    item: Raw
    sequence_number: int


_arrays = msgspec.json.Decoder(list[Raw])
_dones = msgspec.json.Decoder(_Done)
_begun = msgspec.json.Decoder(_BegunArray)
_text_begun = msgspec.json.Decoder(_PlacedText)
_more_text = msgspec.json.Decoder(_MoreText)
_item = msgspec.json.Decoder(_ItemArray)
_ended = msgspec.json.Decoder(_EndedArray)


class _Place(NamedTuple):
    """Which text a delta is of; `part` is None if its events do not say."""

    name: int
    output_index: int
    part: int | None
    item_id: str


class _Text:
    """A text that comes in deltas, until its item is finished."""

    __slots__ = ("number", "pieces", "place")

    def __init__(self, number: int, place: _Place) -> None:
        self.number = number
        self.place = place
        self.pieces: list[str] = []


class _OpenTexts:
    """The texts of one stream whose items are not finished. Both ends keep them, in the same way."""

    def __init__(self) -> None:
        self._texts: dict[_Place, _Text] = {}
        self._next = _FIRST_TEXT
        #: The one that an array without a place continues.
        self.current: _Text | None = None

    def at(self, place: _Place) -> _Text:
        """Make the text at a place the current one, and return it."""
        text = self._texts.get(place)
        if text is None:
            text = self._texts[place] = _Text(self._next, place)
            self._next += 1
        self.current = text
        return text

    def finish(self, index: int) -> list[_Text]:
        """Return the texts of an item in the order of their beginning, and forget them."""
        finished = [text for text in self._texts.values() if text.place.output_index == index]
        for text in finished:
            del self._texts[text.place]
        self.current = None
        return finished


# --- writing ---------------------------------------------------------------------------------------------------------


class CompactWriter(LeanWriter):
    """Writes the events of one lean stream as arrays, in their order."""

    def __init__(self) -> None:
        self._number = 0
        self._id = self._body = ""
        self._created_at = 0
        self._texts = _OpenTexts()
        self._first: LeanDelta | None = None  # of the current text

    def response(self, event: Event, head: LeanResponse) -> Event:
        """Write the beginning, or the end of a response that is complete; another end says more than an array can."""
        number = event.sequence_number
        if head == LeanResponse(id=head.id, object="response", created_at=head.created_at, status="in_progress"):
            self._id, self._created_at = head.id, head.created_at
            self._body = head.id.partition("_")[2]
            return self._event(event.type, number, CompactKind.BEGUN, head.id, head.created_at)
        seconds, tokens = (head.completed_at or 0) - self._created_at, _counts(head.usage)
        end = _completed(self._id, self._created_at, seconds, used=head.usage)
        if seconds < 0 or tokens is None or head != end:
            return super().response(event, head)
        return self._event(event.type, number, CompactKind.ENDED, seconds, tokens or None)

    def text(self, kind: str, first: LeanDelta, delta: str, *, number: int) -> Event:
        """Write more of a text, after its place unless that is where the last one was."""
        current = self._texts.current
        if current is None or first is not self._first:
            return self._other_text(kind, first, delta, number=number)
        current.pieces.append(delta)
        step, self._number = number - self._number, number
        return Event(kind, encode((step, delta)), number)

    def _other_text(self, kind: str, first: LeanDelta, delta: str, *, number: int) -> Event:
        name = TEXT_NAMES.index(kind[_START:_END])
        part, other = first.content_index, first.summary_index
        if name == _SUMMARY:
            part, other = other, part
        if other is not UNSET:  # not as the API has it
            return super().text(kind, first, delta, number=number)
        place = _Place(name, first.output_index, None if part is UNSET else part, first.item_id)
        self._first = first
        self._texts.at(place).pieces.append(delta)
        at = max(0, place.item_id.find(self._body)) if self._body else 0
        item_id = place.item_id[:at] + place.item_id[at + len(self._body) :] if at else place.item_id
        members = (name, place.output_index, place.part, item_id, at, delta)
        return self._event(kind, number, CompactKind.TEXT, *members)

    def other(self, event: Event) -> Event:
        """Write the end of an item with holes for what the reader has; any other event as it is."""
        if event.type != "response.output_item.done":
            return event
        try:
            done = _dones.decode(event.data)
        except UNREADABLE:
            return event
        whole = bytes(done.item)
        texts = _text_holes(whole, self._texts.finish(done.output_index))
        item, places = _with_holes(whole, sorted((*self._id_hole(whole), *_static_holes(whole), *texts)))
        members: list[object] = [done.output_index, Raw(item)]
        if places:
            members.append(places)
        if texts:
            members.append(zlib.crc32(whole))
        written = self._event(event.type, event.sequence_number, CompactKind.ITEM, *members)
        return msgspec.structs.replace(written, item=event.item)

    def _id_hole(self, item: bytes) -> list[_Hole]:
        """Return where an id that is made from that of the response has its body."""
        if not self._body or not item.startswith(_OWN_ID):
            return []
        start = len(_OWN_ID)
        at = item.find(self._body.encode(), start, item.find(b'"', start))
        return [] if at < 0 else [_Hole(at, len(self._body), _ID_BODY)]

    def _event(self, kind: str, number: int, *members: object) -> Event:
        step, self._number = number - self._number, number
        return Event(kind, encode((step, *members)), number)


class _Hole(NamedTuple):
    at: int
    size: int
    number: int


def _static_holes(item: bytes) -> list[_Hole]:
    """Return where an item has static pieces: near its beginning, or for what follows a text near its end."""
    holes: list[_Hole] = []
    for number, piece in enumerate(STATIC, _ID_BODY + 1):
        start, end = (max(0, len(item) - _NEAR), len(item)) if piece is _AFTER_TEXT else (0, _NEAR)
        if (at := item.find(piece, start, end)) >= 0:
            holes.append(_Hole(at, len(piece), number))
    return holes


def _text_holes(item: bytes, texts: Sequence[_Text]) -> list[_Hole]:
    """Return where an item has its texts, as far as it has them as they came in deltas."""
    holes, at = list[_Hole](), 0
    for text in texts:
        name = b'"refusal":' if TEXT_NAMES[text.place.name] == "refusal" else b'"text":'
        written = encode("".join(text.pieces))
        # No string holds such a name with its quotation marks, so it is one; and its value ends where this does.
        found = item.find(name + written, at) if len(written) >= _LEAST_TEXT_BYTES else -1
        if found >= 0:
            at = found + len(name) + len(written)
            holes.append(_Hole(found + len(name) + 1, len(written) - 2, text.number))
    return holes


def _with_holes(item: bytes, holes: Sequence[_Hole]) -> tuple[bytes, list[int]]:
    """Cut out the holes; return what is left, and for each hole its place in that and its number."""
    kept, places, end, left = list[bytes](), list[int](), 0, 0
    for hole in holes:
        kept.append(item[end : hole.at])
        left += hole.at - end
        places += (left, hole.number)
        end = hole.at + hole.size
    return b"".join((*kept, item[end:])), places


def _counts(used: Usage | None) -> tuple[int, ...] | None:
    """Return the counts of a usage, none of no usage; None if they are not all that it says."""
    if used is None:
        return ()
    counts = (
        used.input_tokens,
        used.input_tokens_details.cached_tokens,
        used.input_tokens_details.cache_write_tokens,
        used.output_tokens,
        used.output_tokens_details.reasoning_tokens,
    )
    return counts if used == _usage(counts) and all(0 <= count <= _MOST for count in counts) else None


def _usage(counts: Sequence[int]) -> Usage:
    sent, cached, written, said, reasoning = counts
    return usage(sent, said, cached=cached, reasoning=reasoning, written=written)


def _completed(response_id: str, created_at: int, seconds: int, *, used: Usage | None) -> LeanResponse:
    return LeanResponse(
        id=response_id, object="response", created_at=created_at, completed_at=created_at + seconds, status="completed",
        usage=used,
    )  # fmt: skip


# --- reading ---------------------------------------------------------------------------------------------------------


class CompactFrame(NamedTuple):
    """One array as it came: its lane, its JSON without the lane, and its kind; None continues a text."""

    lane: str
    data: bytes
    kind: int | None


def read_frame(data: bytes) -> CompactFrame | None:
    """Read one array; None if it is none of this form."""
    try:
        members = [bytes(member) for member in _arrays.decode(data)[:3]]
        lane = msgspec.json.decode(members[0], type=str) if members[0].startswith(b'"') else ""
        if lane:
            data = b"[" + data.partition(b",")[2]
            del members[0]
        kind = None if members[1].startswith(b'"') else msgspec.json.decode(members[1], type=int)
    except (*UNREADABLE, IndexError):
        return None
    return CompactFrame(lane, data, kind)


class CompactReader:
    """Makes the events of one stream again; feed it the arrays in their order."""

    def __init__(self) -> None:
        self._writer: Final = LeanWriter()
        self._number = 0
        self._id = self._body = ""
        self._created_at = 0
        self._texts = _OpenTexts()

    def event(self, data: bytes) -> bytes | None:
        """Return the JSON of an event of a stream without lanes, whether it came as an object or as an array."""
        if not data.startswith(b"["):
            return data
        frame = read_frame(data)
        return None if frame is None or frame.lane else self.read(frame)

    def read(self, frame: CompactFrame) -> bytes | None:
        """Return the JSON of the event that an array stands for.

        None if it stands for none: it is not of this form, or one before it has not come.
        """
        with suppress(*UNREADABLE):
            match frame.kind:
                case None:
                    return self._more(_more_text.decode(frame.data))
                case CompactKind.BEGUN:
                    return self._begin(_begun.decode(frame.data))
                case CompactKind.TEXT:
                    return self._text(_text_begun.decode(frame.data))
                case CompactKind.ITEM:
                    return self._item(_item.decode(frame.data))
                case CompactKind.ENDED:
                    return self._end(_ended.decode(frame.data))
                case _:
                    pass
        return None

    def _begin(self, made: _BegunArray) -> bytes:
        self._id, self._created_at = made.id, made.created_at
        self._body = made.id.partition("_")[2]
        head = LeanResponse(id=made.id, object="response", created_at=made.created_at, status="in_progress")
        return self._response("response.created", head, made.step)

    def _end(self, made: _EndedArray) -> bytes | None:
        if not self._id:
            return None
        used = None if made.tokens is None else _usage(made.tokens)
        head = _completed(self._id, self._created_at, made.seconds, used=used)
        return self._response("response.completed", head, made.step)

    def _response(self, kind: str, head: LeanResponse, step: int) -> bytes:
        return self._writer.response(Event(kind, b"", self._count(step)), head).data

    def _text(self, made: _PlacedText) -> bytes | None:
        at, item_id = made.id_at, made.item_id
        if at and not self._body:
            return None
        if at:
            item_id = item_id[:at] + self._body + item_id[at:]
        text = self._texts.at(_Place(made.name, made.output_index, made.part, item_id))
        return self._delta(text, made.step, made.delta)

    def _more(self, made: _MoreText) -> bytes | None:
        text = self._texts.current
        return None if text is None else self._delta(text, made.step, made.delta)

    def _delta(self, text: _Text, step: int, delta: str) -> bytes:
        text.pieces.append(delta)
        name, index, part, item_id = text.place
        index_of_part = "summary_index" if name == _SUMMARY else "content_index"
        where = {} if part is None else {index_of_part: part}
        first = LeanDelta(item_id, index, "", **where)
        return self._writer.text(f"response.{TEXT_NAMES[name]}.delta", first, delta, number=self._count(step)).data

    def _item(self, made: _ItemArray) -> bytes | None:
        index = made.output_index
        item = self._filled(bytes(made.item), made.holes, self._texts.finish(index))
        if item is None or (made.checksum is not None and zlib.crc32(item) != made.checksum):
            return None
        number = self._count(made.step)
        written = b'{"type":"response.output_item.done","output_index":%d,"item":%b,"sequence_number":%d}'
        return written % (index, item, number)

    def _filled(self, item: bytes, holes: Sequence[int], texts: Sequence[_Text]) -> bytes | None:
        """Return an item with its holes filled, each from another text; None if there is no such text."""
        known: dict[int, bytes] = dict(enumerate(STATIC, _ID_BODY + 1))
        if self._body:
            known[_ID_BODY] = self._body.encode()
        known |= {text.number: encode("".join(text.pieces))[1:-1] for text in texts}
        pieces, end = list[bytes](), 0
        for at, number in zip(holes[::2], holes[1::2], strict=False):
            if not end <= at <= len(item) or number not in known:
                return None
            pieces += (item[end:at], known.pop(number))
            end = at
        return b"".join((*pieces, item[end:]))

    def _count(self, step: int) -> int:
        self._number += step
        return self._number
