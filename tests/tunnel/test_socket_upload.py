"""What goes up of a WebSocket: read from any pieces, with documents that are taken or missed, and cut at every byte."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple, TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segue.http.heads import ReplyHead
from segue.http.websocket import WebSocketClose, WebSocketMessage
from segue.tunnel.documents import Base, BaseMiss, Body, decode_document, encode_document, may_be_missed
from segue.tunnel.events import BaseMissed, ReplyStarted, UploadData, UploadTaken
from segue.tunnel.socket_opening import END_OF_OPENINGS, SocketOpening, encode_opening
from segue.tunnel.socket_upload import PREFIX_BYTES, SocketUploadReader, SocketUploadWriter, UploadRecords
from segue.tunnel.stream_compression import SOCKET_WINDOW_LOG, StreamDecoder, StreamEncoder
from segue.tunnel.websocket_records import Record, RecordError, encode_record
from tests.tunnel.pair import Pair, joined, opened, websocket

SWITCH = ReplyHead(101, b"Switching Protocols", ())
TOOLS = b'"tools":[' + b",".join(b'{"name":"tool %d"}' % number for number in range(20)) + b"]}"
FIRST = b'{"input":[{"text":"begin"}],' + TOOLS
RESUMED = b'{"input":[{"text":"begin"},{"text":"found it"},{"text":"go on"}],' + TOOLS
BASE = Base(FIRST, b',{"text":"found it"}')
OTHER = Base(b'{"input":[{"text":"another conversation"}]}' + b"its end" * 30)
CLOSE = WebSocketClose(1000, b"done")

How: TypeAlias = Literal["whole", "delta", "record"]


class Sent(NamedTuple):
    """A message, and how it goes."""

    record: Record
    how: How
    base: Base = BASE

    @property
    def document(self) -> bytes:
        assert isinstance(self.record, WebSocketMessage)
        return encode_document(self.record.data, self.base if self.how == "delta" else None)


def text(data: bytes, how: How = "record", base: Base = BASE) -> Sent:
    return Sent(WebSocketMessage("text", data), how, base)


#: A warm-up, a first message with a base and one behind it, a stream, a message of another conversation, and the end.
CONVERSATION = (
    text(b'{"input":[],"generate":false}', "whole"),
    text(FIRST + b" ", "delta"),
    text(RESUMED, "delta"),
    text(b'{"input":[{"text":"and on"}],' + TOOLS),
    text(b"\xc3\xa9"),
    text(OTHER.body + b", continued", "delta", OTHER),
    Sent(WebSocketMessage("binary", b"\0\xff"), "record"),
    text(RESUMED + b"  ", "delta"),
    Sent(CLOSE, "record"),
)


# --- one reader and one writer ---------------------------------------------------------------------------------------


def write(conversation: Iterable[Sent], writer: SocketUploadWriter) -> list[bytes]:
    pieces = []
    for sent in conversation:
        if isinstance(sent.record, WebSocketClose):
            pieces.append(writer.close(sent.record))
        elif sent.how == "record":
            pieces.append(writer.record(sent.record))
        else:
            pieces.append(writer.document(sent.record, sent.document))
    return pieces


def read(reader: SocketUploadReader) -> list[Record]:
    """Read all that there is, with all bases."""
    records: list[Record] = []
    while (step := reader.read()) is not None:
        match step:
            case RecordError():
                raise AssertionError(step.reason)
            case SocketOpening():
                body = decode_document(step.document or b"", {one.id: one for one in (BASE, OTHER)}.get)
                assert isinstance(body, Body)
                records.append(reader.take_message(step, body.sent))
            case UploadRecords():
                records += step.records
    return records


MESSAGES = st.builds(
    Sent,
    st.builds(WebSocketMessage, st.sampled_from(["text", "binary"]), st.sampled_from([FIRST, RESUMED, b"", b"hi"])),
    st.sampled_from(["whole", "delta", "record"]),
    st.sampled_from([BASE, OTHER]),
)


@given(sent=st.lists(MESSAGES, max_size=6), closes=st.booleans(), size=st.integers(1, 400))
def test_what_was_written_is_read_wherever_it_is_cut(*, sent: list[Sent], closes: bool, size: int) -> None:
    conversation = [*sent, Sent(CLOSE, "record")] if closes else sent
    upload = b"".join(write(conversation, SocketUploadWriter()))
    reader = SocketUploadReader(10_000)
    records: list[Record] = []
    for at in range(0, len(upload), size):
        reader.feed(upload[at : at + size])
        records += read(reader)
    assert records == [one.record for one in conversation]
    assert not reader.held_bytes


def test_each_message_can_be_read_as_soon_as_it_was_written() -> None:
    reader = SocketUploadReader(10_000)
    for sent, piece in zip(CONVERSATION, write(CONVERSATION, SocketUploadWriter()), strict=True):
        reader.feed(piece)
        assert read(reader) == [sent.record]


def test_a_stream_builds_on_all_that_was_sent_before_it_up_to_a_limit() -> None:
    unlike = hashlib.shake_256(b"unlike").digest(2000)
    message = WebSocketMessage("binary", unlike)
    for before in ([], [Sent(message, "whole")], [Sent(message, "record")]):
        writer = SocketUploadWriter()
        write([*before, text(RESUMED, "delta")], writer)
        assert (len(writer.record(message)) < 100) == bool(before)
        assert writer.size_alone(message) < 100
    long = SocketUploadWriter()
    write([Sent(message, "whole"), text(bytes(PREFIX_BYTES - 1000), "whole")], long)
    assert 1000 < long.size_alone(message) < 1300
    for _ in range(3):
        write([text(bytes(PREFIX_BYTES), "whole")], long)
    assert len(long.record(message)) > 1900


STREAM = SocketUploadWriter().record(WebSocketMessage("text", b"hello"))
ENDED = SocketUploadWriter().close(CLOSE)


def stream_of(data: bytes) -> bytes:
    encoder = StreamEncoder(SOCKET_WINDOW_LOG)
    return END_OF_OPENINGS + encoder.feed(data) + encoder.finish()


@pytest.mark.parametrize(
    ("upload", "reason"),
    [
        (b"\x03", "opens with the unknown opcode 3"),
        (END_OF_OPENINGS + b"\xff" * 20, ""),
        (stream_of(b"\x63nonsense"), "unknown opcode"),
        (stream_of(b"") + STREAM, "a stream stands where a document must be"),
        (encode_opening("text", b"\x04\x03\x02\x06" + bytes(16) + b"abc"), "is wrapped"),
        (stream_of(encode_record(WebSocketMessage("text", b"hello"))[:-1]), "ends within a record"),
        (b"\x01\xf1\xff\x04", "is larger"),
    ],
)
def test_what_is_no_upload_is_an_error(upload: bytes, reason: str) -> None:
    reader = SocketUploadReader(1000)
    reader.feed(upload)
    while (step := reader.read()) is not None and not isinstance(step, RecordError):
        pass
    assert step is not None
    assert reason in step.reason


@pytest.mark.parametrize(
    ("behind", "reason"),
    [
        (END_OF_OPENINGS, "a stream stands where"),
        (encode_opening("text", encode_document(RESUMED, BASE)), "base again"),
    ],
)
def test_behind_a_message_that_was_missed_it_comes_again_without_a_base(behind: bytes, reason: str) -> None:
    for missed in (True, False):
        reader = SocketUploadReader(1000)
        reader.feed(encode_opening("text", encode_document(RESUMED, BASE)) + behind)
        opening = reader.read()
        assert isinstance(opening, SocketOpening)
        if missed:
            reader.drop_message(opening)
            refused = reader.read()
            assert isinstance(refused, RecordError)
            assert reason in refused.reason
        else:
            reader.take_message(opening, RESUMED)
            assert not isinstance(reader.read(), RecordError)


@given(st.binary(max_size=40), st.sampled_from([b"", END_OF_OPENINGS, STREAM, ENDED, encode_opening("text", b"x")]))
def test_arbitrary_bytes_never_raise(data: bytes, before: bytes) -> None:
    reader = SocketUploadReader(100)
    reader.feed(before + data)
    while (step := reader.read()) is not None and not isinstance(step, RecordError):
        if isinstance(step, SocketOpening):
            reader.drop_message(step)


# --- both ends -------------------------------------------------------------------------------------------------------


class Reader:
    """The gateway's shell: it rebuilds messages, and answers those with a base. It lacks some bases for some time."""

    def __init__(self, pair: Pair, number: int, *, lacks: frozenset[int]) -> None:
        self._pair = pair
        self._number = number
        self._lacks = lacks
        """Which of the messages with a base are missed, by their order."""
        self._asked = 0
        self._seen = 0
        self._reader = SocketUploadReader(10_000)
        self.records: list[Record] = []

    def read(self) -> None:
        """Take what has arrived since the last call."""
        for event in self._pair.seen[self._seen :]:
            if isinstance(event, UploadData):
                self._pair.gateway.consume(self._number, len(event.data))
                self._reader.feed(event.data)
        self._seen = len(self._pair.seen)
        while (step := self._reader.read()) is not None:
            assert not isinstance(step, RecordError), step.reason
            if isinstance(step, SocketOpening):
                self._rebuild(step)
            else:
                self.records += step.records

    def _rebuild(self, opening: SocketOpening) -> None:
        assert opening.document is not None
        asks = may_be_missed(opening.document)
        bases = {} if asks and self._asked in self._lacks else {one.id: one for one in (BASE, OTHER)}
        self._asked += asks
        body = decode_document(opening.document, bases.get)
        if isinstance(body, BaseMiss):
            self._reader.drop_message(opening)
            self._pair.gateway.missed(self._number)
            return
        assert isinstance(body, Body)
        if asks:
            self._pair.gateway.taken(self._number)
        self.records.append(self._reader.take_message(opening, body.sent))


class Writer:
    """The sidecar's shell: it waits for each answer, and sends what was missed again without a base."""

    def __init__(self, pair: Pair, handle: int) -> None:
        self._pair = pair
        self._handle = handle
        self._writer = SocketUploadWriter()
        self._left = list(CONVERSATION)
        self._asked: Sent | None = None
        self._told = 0
        self._unsent = b""
        self.size = 0
        self.asked_at: list[int] = []
        """Where a message ends that waits for its answer."""

    def write(self, size: int) -> None:
        """Send at most so many bytes of what may be sent."""
        for event in self._pair.told[self._told :]:
            if isinstance(event, UploadTaken | BaseMissed):
                self._answer(event)
        self._told = len(self._pair.told)
        written = 0
        while written < size and (self._unsent or (self._left and self._asked is None)):
            if not self._unsent:
                self._unsent = self._next()
            piece, self._unsent = self._unsent[: size - written], self._unsent[size - written :]
            asks = not self._unsent and self._asked is not None
            self._pair.sidecar.send(self._handle, piece, asks=asks)
            written += len(piece)
            self.size += len(piece)
            self.asked_at += [self.size] * asks

    @property
    def over(self) -> bool:
        return not (self._left or self._unsent or self._asked)

    def _next(self) -> bytes:
        sent = self._left.pop(0)
        self._asked = sent if sent.how == "delta" else None
        return write([sent], self._writer)[0]

    def _answer(self, event: UploadTaken | BaseMissed) -> None:
        assert self._asked is not None, "it was answered twice"
        assert not self._unsent
        if isinstance(event, BaseMissed):
            message = self._asked.record
            assert isinstance(message, WebSocketMessage)
            self._unsent = self._writer.document_again(message, encode_document(message.data))
        self._asked = None


def accepted() -> tuple[Pair, int, int]:
    """A pair with an open WebSocket."""
    pair = joined()
    handle = pair.sidecar.open(websocket())
    pair.run()
    number = opened(pair)
    pair.gateway.reply(number, SWITCH)
    pair.run()
    assert any(isinstance(event, ReplyStarted) for event in pair.told)
    return pair, handle, number


def carry(*, lacks: frozenset[int], cut_at: int) -> tuple[list[Record], Writer]:
    """Send all messages over a link that is cut behind so many bytes of the upload; return what arrives.

    The gateway has read what came before the cut, and the sidecar has read no answer to it.
    """
    pair, handle, number = accepted()
    writer, reader = Writer(pair, handle), Reader(pair, number, lacks=lacks)
    while writer.size < cut_at and not writer.over:
        writer.write(cut_at - writer.size)
        pair.run()
        reader.read()
        if writer.size < cut_at:
            pair.run()
    pair.pump()  # an answer that is lost on its way
    pair.connect()
    for _ in range(3 * len(CONVERSATION)):
        pair.run()
        reader.read()
        pair.run()
        writer.write(100_000)
    assert writer.over
    assert not pair.checker.problems
    return reader.records, writer


ALL = frozenset(range(10))
LACKS = [frozenset[int](), ALL, frozenset({1}), frozenset({0, 2})]


@pytest.mark.parametrize("lacks", LACKS, ids=["known", "all missed", "the second missed", "two missed"])
def test_every_message_arrives_once_and_in_order_wherever_the_link_is_cut(lacks: frozenset[int]) -> None:
    expected = [one.record for one in CONVERSATION]
    records, writer = carry(lacks=lacks, cut_at=0)
    assert records == expected
    for cut_at in {*range(1, writer.size, 29), *writer.asked_at}:
        assert carry(lacks=lacks, cut_at=cut_at)[0] == expected


@pytest.mark.deep
@pytest.mark.parametrize("lacks", LACKS)
def test_every_message_arrives_once_at_every_byte(lacks: frozenset[int]) -> None:
    expected = [one.record for one in CONVERSATION]
    size = carry(lacks=lacks, cut_at=0)[1].size
    for cut_at in range(size + 1):
        assert carry(lacks=lacks, cut_at=cut_at)[0] == expected


def test_what_was_answered_on_a_link_that_was_lost_is_answered_once() -> None:
    pair, handle, number = accepted()
    for answer, event in (
        (pair.gateway.taken, UploadTaken(handle)),
        (pair.gateway.missed, BaseMissed(handle)),
        (pair.gateway.taken, UploadTaken(handle)),
    ):
        pair.sidecar.send(handle, b"message", asks=True)
        pair.run()
        answer(number)
        pair.pump()
        pair.cut()
        pair.connect()
        pair.run()
        assert pair.told[-1] == event
    told: Sequence[object] = [one for one in pair.told if isinstance(one, UploadTaken | BaseMissed)]
    assert len(told) == 3
    assert not pair.checker.problems


def test_a_short_stream_does_not_copy_all_that_is_behind_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """With thousands of short streams in what came, that once took 20 s for 1 MB."""
    fed: list[int] = []
    feed = StreamDecoder.feed

    def noted(decoder: StreamDecoder, data: bytes) -> None:
        fed.append(len(data))
        feed(decoder, data)

    monkeypatch.setattr(StreamDecoder, "feed", noted)
    stream = END_OF_OPENINGS + StreamEncoder(SOCKET_WINDOW_LOG).finish() + encode_opening("text", encode_document(b"a"))
    reader = SocketUploadReader(1 << 20)
    reader.feed(stream * 1000)
    assert len(read(reader)) == 1000
    assert max(fed) <= 4096


def test_what_is_behind_a_stream_is_kept_however_long_that_takes() -> None:
    stream = StreamEncoder(SOCKET_WINDOW_LOG)
    messages = [WebSocketMessage("text", b"m%d" % number * 3000) for number in range(20)]
    upload = END_OF_OPENINGS + b"".join(stream.feed(encode_record(message)) for message in messages) + stream.finish()
    last = WebSocketMessage("text", b"last")
    reader = SocketUploadReader(1 << 20)
    reader.feed(upload + encode_opening("text", encode_document(last.data)))
    assert read(reader) == [*messages, last]
