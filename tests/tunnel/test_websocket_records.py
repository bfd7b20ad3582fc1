"""Records of messages: any cut gives the same ones, and nothing a peer sends raises."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segue.http.websocket import WebSocketClose, WebSocketMessage
from segue.tunnel.websocket_records import Record, RecordError, RecordReader, encode_record

LIMIT = 1000

records = st.one_of(
    st.builds(WebSocketMessage, st.sampled_from(["text", "binary"]), st.binary(max_size=300)),
    st.builds(WebSocketClose, st.integers(0, 0xFFFF), st.binary(max_size=123)),
)


def read(chunks: list[bytes]) -> list[Record] | RecordError:
    reader, found = RecordReader(LIMIT), list[Record]()
    for chunk in chunks:
        some = reader.feed(chunk)
        if isinstance(some, RecordError):
            return some
        found += some
    return found


@given(st.lists(records, max_size=6), st.lists(st.integers(0, 2000), max_size=8))
def test_records_come_back_however_the_stream_is_cut(sent: list[Record], cuts: list[int]) -> None:
    stream = b"".join(map(encode_record, sent))
    edges = [0, *sorted(cut for cut in cuts if cut < len(stream)), len(stream)]
    assert read([stream[a:b] for a, b in pairwise(edges)]) == sent


@given(st.binary(max_size=400))
def test_arbitrary_bytes_never_raise(data: bytes) -> None:
    read([data[at : at + 7] for at in range(0, len(data), 7)])


def test_a_record_is_whole_only_with_its_last_byte() -> None:
    sent: list[Record] = [
        WebSocketMessage("text", b"hello"),
        WebSocketClose(1000, b"bye"),
        WebSocketMessage("binary", b""),
    ]
    stream = b"".join(map(encode_record, sent))
    for cut in range(len(stream) + 1):
        assert read([stream[:cut], stream[cut:]]) == sent
    assert read([bytes((byte,)) for byte in stream]) == sent
    assert read([encode_record(sent[0])[:-1]]) == []


def test_a_message_over_the_limit_is_refused_before_it_has_arrived() -> None:
    stream = encode_record(WebSocketMessage("text", b"x" * (LIMIT + 1)))
    assert read([stream[:3]]) == RecordError("a message of 1001 bytes is larger than 1000")


def test_a_message_of_the_limit_is_taken() -> None:
    message = WebSocketMessage("binary", b"x" * LIMIT)
    assert read([encode_record(message)]) == [message]


@pytest.mark.parametrize(
    ("stream", "reason"),
    [
        (b"\x01" + b"\xff" * 10, "the length of a record cannot be read"),
        (b"\x01\x81\x00", "the length of a record cannot be read"),
        (b"\x08\x01x", "a close record has no code"),
        (b"\x08\x00", "a close record has no code"),
        (b"\x07", "a record has the unknown opcode 7"),
    ],
)
def test_what_is_no_record_is_refused(stream: bytes, reason: str) -> None:
    assert read([stream]) == RecordError(reason)
    assert read([bytes((byte,)) for byte in stream]) == RecordError(reason)


@pytest.mark.parametrize("stream", [b"\x01" + b"\xff" * 9, b"\x01", b"\x08"])
def test_what_may_become_a_record_is_waited_for(stream: bytes) -> None:
    assert read([stream]) == []
