"""The first message of a WebSocket as a document: read from any pieces, missed at most once, cut at every byte."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segue.http.heads import ReplyHead
from segue.http.websocket import WebSocketMessage
from segue.tunnel.documents import Base, BaseMiss, Body, decode_document, encode_document, may_be_missed
from segue.tunnel.events import BaseMissed, ReplyStarted, UploadData, UploadTaken
from segue.tunnel.socket_opening import (
    END_OF_OPENINGS,
    OPENING_PREFIX_BYTES,
    SocketOpening,
    encode_opening,
    read_opening,
    stream_prefix,
)
from segue.tunnel.stream_compression import SOCKET_WINDOW_LOG, StreamDecoder, StreamEncoder
from segue.tunnel.websocket_records import RecordError, RecordReader, encode_record
from tests.tunnel.pair import Pair, joined, opened, websocket

TOOLS = b'"tools":[' + b",".join(b'{"name":"tool %d"}' % number for number in range(20)) + b"]}"
FIRST = b'{"input":[{"text":"begin"}],' + TOOLS
RESUMED = b'{"input":[{"text":"begin"},{"text":"found it"},{"text":"go on"}],' + TOOLS
SWITCH = ReplyHead(101, b"Switching Protocols", ())
BASE = Base(FIRST, b',{"text":"found it"}')
WARM = WebSocketMessage("text", b'{"input":[],"generate":false}')
LATER = (WebSocketMessage("text", b'{"input":[{"text":"and on"}],' + TOOLS), WebSocketMessage("binary", b"\0\xff"))
CODED = st.sampled_from(("text", "binary"))


@given(CODED, st.binary(max_size=300), st.binary(max_size=20))
def test_an_opening_comes_out_as_it_went_in_wherever_it_was_cut(opcode: str, document: bytes, rest: bytes) -> None:
    assert opcode in {"text", "binary"}
    encoded = encode_opening("text" if opcode == "text" else "binary", document)
    upload = encoded + rest
    for size in range(len(encoded)):
        assert read_opening(upload[:size], 300) is None
    for size in range(len(encoded), len(upload) + 1):
        opening = read_opening(bytearray(upload[:size]), 300)
        assert isinstance(opening, SocketOpening)
        assert (opening.opcode, opening.document, opening.end) == (opcode, document, len(encoded))


@given(st.binary(max_size=20))
def test_arbitrary_bytes_are_an_opening_an_error_or_a_part_of_one(upload: bytes) -> None:
    opening = read_opening(upload, 10)
    if isinstance(opening, SocketOpening):
        assert opening.end <= len(upload)


def test_a_zero_ends_the_openings() -> None:
    assert read_opening(END_OF_OPENINGS + b"stream", 10) == SocketOpening("text", None, 1)


@pytest.mark.parametrize(
    ("upload", "reason"),
    [
        (b"\x03", "the unknown opcode 3"),
        (b"\x08\x02", "the unknown opcode 8"),
        (b"\x01\x81\x00", "cannot be read"),
        (b"\x01" + b"\xff" * 10, "cannot be read"),
        (b"\x02\x0b", "an opening of 11 bytes is larger than 10"),
    ],
)
def test_what_is_no_opening_is_an_error_as_soon_as_that_is_sure(upload: bytes, reason: str) -> None:
    error = read_opening(upload, 10)
    assert isinstance(error, RecordError)
    assert reason in error.reason


def test_the_stream_builds_on_the_end_of_a_long_first_message() -> None:
    assert stream_prefix(b"short") == b"short"
    assert stream_prefix(b"x" + bytes(OPENING_PREFIX_BYTES)) == bytes(OPENING_PREFIX_BYTES)


# --- both ends -------------------------------------------------------------------------------------------------------


class Reader:
    """The gateway's shell: it rebuilds the first message and reads the records behind it."""

    def __init__(self, pair: Pair, number: int, bases: Sequence[Base]) -> None:
        self._pair = pair
        self._number = number
        self._bases = {base.id: base for base in bases}
        self._upload = bytearray()
        self._seen = 0
        self._stream: StreamDecoder | None = None
        self._reader = RecordReader(10_000)
        self.records: list[WebSocketMessage] = []

    def read(self) -> None:
        """Take what has arrived since the last call."""
        for event in self._pair.seen[self._seen :]:
            if isinstance(event, UploadData):
                self._pair.gateway.consume(self._number, len(event.data))
                self._upload += event.data
        self._seen = len(self._pair.seen)
        while self._stream is None and self._open():
            pass
        if self._stream is not None:
            self._stream.feed(bytes(self._upload))
            self._upload.clear()
            while data := self._stream.read(10_000):
                assert isinstance(data, bytes)
                records = self._reader.feed(data)
                assert isinstance(records, list)
                self.records += [record for record in records if isinstance(record, WebSocketMessage)]

    def _open(self) -> bool:
        """Read one opening; False if it is not whole."""
        opening = read_opening(self._upload, 10_000)
        if opening is None:
            return False
        assert isinstance(opening, SocketOpening)
        if opening.document is None:
            del self._upload[: opening.end]
            self._stream = StreamDecoder(SOCKET_WINDOW_LOG, prefix=stream_prefix(self.records[-1].data))
            return False
        body = decode_document(opening.document, self._bases.get)
        if isinstance(body, BaseMiss):
            self._upload.clear()
            self._pair.gateway.missed(self._number)
            return False
        assert isinstance(body, Body)
        if may_be_missed(opening.document):
            self._pair.gateway.taken(self._number)
        del self._upload[: opening.end]
        self.records.append(WebSocketMessage(opening.opcode, body.sent))
        return True


class Writer:
    """The sidecar's shell: it sends the first message as a delta, and again without a base if that was missed."""

    def __init__(self, pair: Pair, handle: int) -> None:
        self._pair = pair
        self._handle = handle
        self._later = StreamEncoder(SOCKET_WINDOW_LOG, prefix=stream_prefix(RESUMED))
        self._is_sure = False
        self._is_missed = False
        self.unsent = encode_opening("text", encode_document(WARM.data))
        self.unsent += encode_opening("text", encode_document(RESUMED, BASE))

    def write(self, size: int | None = None) -> None:
        """Send the next bytes of what may be sent."""
        told = self._pair.told
        if not self._is_missed and BaseMissed(self._handle) in told:
            self._is_missed = True
            self.unsent = encode_opening("text", encode_document(RESUMED))
        if not self._is_sure and (self._is_missed or UploadTaken(self._handle) in told):
            self._is_sure = True
            self.unsent += END_OF_OPENINGS + b"".join(
                self._later.feed(encode_record(message)) + self._later.flush() for message in LATER
            )
        data, self.unsent = self.unsent[:size], self.unsent[len(self.unsent) if size is None else size :]
        self._pair.sidecar.send(self._handle, data)


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


def send_all(bases: Sequence[Base], cut_at: int) -> list[WebSocketMessage]:
    """Send all messages over a link that is cut behind so many bytes of the upload; return what arrives."""
    pair, handle, number = accepted()
    writer, reader = Writer(pair, handle), Reader(pair, number, bases)
    left = cut_at
    for _ in range(3):  # a part, all of it after a MISS, and what waits for the first message
        before = len(writer.unsent)
        writer.write(left)
        left -= before - len(writer.unsent)
        pair.run()
        reader.read()
    pair.connect()
    for _ in range(4):
        pair.run()
        reader.read()
        writer.write()
    pair.run()
    reader.read()
    assert not pair.checker.problems
    return reader.records


UPLOAD_BYTES = len(encode_opening("text", encode_document(RESUMED, BASE)))


@pytest.mark.parametrize(
    ("bases", "cuts"),
    [
        pytest.param((BASE,), range(0, UPLOAD_BYTES + 60, 13), id="known"),
        pytest.param((), range(0, UPLOAD_BYTES + 300, 29), id="missed"),
        pytest.param((BASE,), range(UPLOAD_BYTES + 100), marks=pytest.mark.deep, id="known, every byte"),
        pytest.param((), range(UPLOAD_BYTES + 400), marks=pytest.mark.deep, id="missed, every byte"),
    ],
)
def test_a_first_message_with_a_base_arrives_whole_wherever_the_link_is_cut(
    bases: tuple[Base, ...], cuts: Sequence[int]
) -> None:
    for cut_at in cuts:
        assert send_all(bases, cut_at) == [WARM, WebSocketMessage("text", RESUMED), *LATER]
