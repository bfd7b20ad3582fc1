from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.tunnel.stream_compression import (
    REPLY_WINDOW_LOG,
    SOCKET_WINDOW_LOG,
    StreamDecoder,
    StreamEncoder,
    StreamError,
)
from tests.strategies import examples

PIECES = st.lists(st.binary(max_size=300) | st.sampled_from([b"data: {}\n\n", b"a" * 5000, b""]), max_size=20)


def read_all(decoder: StreamDecoder, at_once: int = 1000) -> bytes:
    got = bytearray()
    while True:
        data = decoder.read(at_once)
        assert isinstance(data, bytes)
        assert len(data) <= at_once
        if not data:
            return bytes(got)
        got += data


@settings(max_examples=examples(300))
@given(PIECES, st.integers(1, 3000))
def test_after_each_flush_the_peer_can_read_all_that_was_fed(pieces: list[bytes], at_once: int) -> None:
    encoder, decoder = StreamEncoder(), StreamDecoder()
    for piece in pieces:
        decoder.feed(encoder.feed(piece))
        decoder.feed(encoder.flush())
        assert read_all(decoder, at_once) == piece
        assert not decoder.eof
    decoder.feed(encoder.finish())
    assert read_all(decoder) == b""
    assert decoder.eof


@settings(max_examples=examples(200))
@given(PIECES, st.data())
def test_a_stream_may_be_cut_into_any_pieces(pieces: list[bytes], data: st.DataObject) -> None:
    encoder = StreamEncoder(SOCKET_WINDOW_LOG)
    stream = b"".join(encoder.feed(piece) for piece in pieces) + encoder.finish()
    decoder, got = StreamDecoder(SOCKET_WINDOW_LOG), b""
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        decoder.feed(stream[:size])
        stream = stream[size:]
        if data.draw(st.booleans()):
            got += read_all(decoder)
    assert got + read_all(decoder) == b"".join(pieces)
    assert decoder.eof


@settings(max_examples=examples(300))
@given(st.binary(max_size=200), st.binary(max_size=200))
def test_whatever_the_peer_sends_nothing_is_raised_and_an_error_stays(garbage: bytes, more: bytes) -> None:
    decoder = StreamDecoder()
    decoder.feed(garbage)
    first = decoder.read(1000)
    decoder.feed(more)
    second = decoder.read(1000)
    if isinstance(first, StreamError):
        assert second == first
        assert not decoder.eof


@settings(max_examples=examples(300))
@given(st.integers(0, 10_000), st.integers(1, 255))
def test_a_corrupted_stream_never_reads_longer_than_it_is_asked_for(at: int, flip: int) -> None:
    encoder = StreamEncoder()
    stream = bytearray(encoder.feed(b"event: a\ndata: {}\n\n" * 500) + encoder.flush() + encoder.feed(b"end"))
    stream += encoder.finish()
    stream[at % len(stream)] ^= flip
    decoder = StreamDecoder()
    decoder.feed(bytes(stream))
    for _ in range(1000):
        data = decoder.read(64)
        if not data or isinstance(data, StreamError):
            break
        assert len(data) <= 64


def test_a_bomb_expands_only_as_far_as_it_is_read() -> None:
    encoder = StreamEncoder()
    bomb = encoder.feed(bytes(50_000_000)) + encoder.finish()
    assert len(bomb) < 10_000
    decoder = StreamDecoder()
    decoder.feed(bomb)
    assert decoder.read(10) == bytes(10)
    assert decoder.read(100_000) == bytes(100_000)
    assert not decoder.eof


def test_reading_nothing_gives_nothing() -> None:
    decoder = StreamDecoder()
    assert decoder.read(10) == b""
    assert decoder.read(0) == b""


def test_a_truncated_stream_does_not_come_to_its_end() -> None:
    encoder = StreamEncoder()
    stream = encoder.feed(b"hello") + encoder.finish()
    decoder = StreamDecoder()
    decoder.feed(stream[:-1])
    read_all(decoder)
    assert not decoder.eof


def test_an_empty_stream_comes_to_its_end() -> None:
    decoder = StreamDecoder()
    decoder.feed(StreamEncoder().finish())
    assert read_all(decoder) == b""
    assert decoder.eof


def test_bytes_after_the_end_are_an_error_once_the_rest_was_read() -> None:
    encoder = StreamEncoder()
    stream = encoder.feed(b"hello") + encoder.finish()
    decoder = StreamDecoder()
    decoder.feed(stream + b"x")
    assert decoder.read(100) == b"hello"
    assert decoder.read(100) == StreamError("there are bytes after the end of the stream")
    assert not decoder.eof


def test_what_is_no_stream_is_an_error_in_the_words_of_the_library() -> None:
    decoder = StreamDecoder()
    decoder.feed(b"\xff" * 100)
    error = decoder.read(100)
    assert isinstance(error, StreamError)
    assert " " in error.reason
    assert decoder.read(100) == error


def test_nothing_is_matched_beyond_the_window() -> None:
    far = random.Random(1).randbytes(1 << REPLY_WINDOW_LOG)
    stream = far + far[:1000] + far[-1000:] + far
    encoder, decoder = StreamEncoder(), StreamDecoder()
    decoder.feed(encoder.feed(stream) + encoder.finish())
    assert read_all(decoder, 10_000) == stream
    assert decoder.eof


def test_the_head_of_the_frame_is_not_sent() -> None:
    encoder = StreamEncoder()
    assert encoder.feed(b"") + encoder.finish() == bytes.fromhex("010000")
    encoder = StreamEncoder()
    # one raw block of five bytes, then the empty last one (RFC 8878, 3.1.1.2)
    assert encoder.feed(b"hello") + encoder.flush() + encoder.finish() == bytes.fromhex("280000") + b"hello\x01\0\0"


def test_repeated_messages_cost_a_few_bytes_each() -> None:
    encoder = StreamEncoder(SOCKET_WINDOW_LOG)
    message = bytes(range(256)) * 40
    first = len(encoder.feed(message) + encoder.flush())
    later = [len(encoder.feed(message + b"%d" % n) + encoder.flush()) for n in range(30)]
    assert first > 250
    assert max(later) < 40


def test_a_finished_encoder_refuses_more() -> None:
    encoder = StreamEncoder()
    encoder.finish()
    with pytest.raises(RuntimeError, match="finished"):
        encoder.feed(b"x")
    with pytest.raises(RuntimeError, match="finished"):
        encoder.flush()
    with pytest.raises(RuntimeError, match="finished"):
        encoder.finish()


@settings(max_examples=examples(100))
@given(PIECES, st.binary(max_size=40) | st.sampled_from([b"data: {}\n\n" * 100, b"a" * 5000]), st.booleans())
def test_a_stream_builds_on_bytes_that_both_ends_have(pieces: list[bytes], prefix: bytes, socket: bool) -> None:
    window_log = SOCKET_WINDOW_LOG if socket else REPLY_WINDOW_LOG
    encoder, decoder = StreamEncoder(window_log, prefix=prefix), StreamDecoder(window_log, prefix=prefix)
    for piece in pieces:
        for byte in encoder.feed(piece) + encoder.flush():
            decoder.feed(bytes((byte,)))
        assert read_all(decoder) == piece
    decoder.feed(encoder.finish())
    assert read_all(decoder) == b""
    assert decoder.eof


def test_what_a_reply_repeats_of_the_one_before_costs_next_to_nothing() -> None:
    before = random.Random(1).randbytes(30_000)
    encoder = StreamEncoder(prefix=before)
    encoded = encoder.feed(before + b"news") + encoder.finish()
    assert len(encoded) < 60
    decoder = StreamDecoder(prefix=before)
    decoder.feed(encoded)
    assert read_all(decoder, 100_000) == before + b"news"


def test_what_is_fed_and_flushed_at_once_can_be_read_at_once() -> None:
    encoder, decoder = StreamEncoder(), StreamDecoder()
    decoder.feed(encoder.feed(b"held back, "))
    assert decoder.read(100) == b""
    decoder.feed(encoder.feed_and_flush(b"and sent"))
    assert decoder.read(100) == b"held back, and sent"
    assert encoder.flush() == b""
    decoder.feed(encoder.finish())
    assert (decoder.read(100), decoder.eof) == (b"", True)


def test_a_decoder_tells_whether_it_has_more() -> None:
    encoder, decoder = StreamEncoder(), StreamDecoder()
    assert decoder.has_more  # what every stream begins with
    decoder.feed(encoder.feed_and_flush(b"x" * 10))
    assert (decoder.read(4), decoder.has_more) == (b"xxxx", True)
    decoder.feed(encoder.feed_and_flush(b"y"))
    assert (decoder.read(100), decoder.has_more) == (b"x" * 6, True)  # though that was less than was asked for
    assert (decoder.read(100), decoder.has_more) == (b"y", False)
    decoder.feed(encoder.finish() + b"behind it")
    assert (decoder.read(100), decoder.eof, decoder.has_more) == (b"", True, True)
    assert isinstance(decoder.read(100), StreamError)
