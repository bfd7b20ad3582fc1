"""What is encoded comes back, each flush at once; and a coding that is told is never another one."""

from __future__ import annotations

import hashlib
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.http.content_decoding import ContentDecoder, DecodingError, decoder_for, dictionary_decoder
from segue.http.event_coding import DICTIONARY, PRESET, EventEncoder, StreamCoding, preset_decoder, stream_coding
from segue.http.heads import Line
from tests.strategies import examples

EVENT = b'data: [0,0,"resp_68ca38ea0968a88f97f6bd40ef582a8dc90aaf10",1796010760]\n\n'


def decoder_of(coding: StreamCoding) -> ContentDecoder:
    if coding == PRESET:
        return preset_decoder()
    decoder = decoder_for((Line(b"Content-Encoding", b"gzip"),))
    assert decoder is not None
    return decoder


def drain(decoder: ContentDecoder, data: bytes) -> bytes:
    decoder.feed(data)
    return b"".join(iter(decoder.read, b""))


def read_whole(decoder: ContentDecoder, data: bytes) -> bytes:
    read = drain(decoder, data)
    decoder.finish()
    return read


def test_the_dictionary_is_for_ever() -> None:
    """Both ends have it; whoever changes it must give the coding another name."""
    assert hashlib.sha256(DICTIONARY).hexdigest() == (
        "f0886136d6d5f52f5a31b27317a81f3751652c27f72f5dbbc7480415bb6fe570"
    )
    assert len(DICTIONARY) < 32 * 1024, "what deflate can refer to"


@settings(max_examples=examples(60))
@given(
    pieces=st.lists(st.one_of(st.just(EVENT), st.binary(max_size=300), st.just(b"x" * 200_000)), max_size=6),
    coding=st.sampled_from(("gzip", "segue-1")),
)
def test_what_was_flushed_can_be_read_at_once(pieces: list[bytes], coding: StreamCoding) -> None:
    encoder, decoder = EventEncoder(coding), decoder_of(coding)
    for piece in pieces:
        assert drain(decoder, encoder.feed(piece) + encoder.flush()) == piece
    assert drain(decoder, encoder.feed(b"end") + encoder.end()) == b"end"
    decoder.finish()


def test_a_flush_costs_less_than_three_bytes() -> None:
    """The end of a block, an empty one, and the head of the next; that of `Z_SYNC_FLUSH` costs five or six."""
    at_once, piecewise = EventEncoder("segue-1"), EventEncoder("segue-1")
    whole = at_once.feed(bytes(range(80))) + at_once.flush()
    flushed = [piecewise.feed(bytes([at])) + piecewise.flush() for at in range(80)]
    assert len(b"".join(flushed)) - len(whole) < 80 * 3


def test_the_dictionary_pays_from_the_first_event_on() -> None:
    plain, preset = EventEncoder("gzip"), EventEncoder("segue-1")
    assert len(preset.feed(EVENT) + preset.flush()) < len(plain.feed(EVENT) + plain.flush()) - 20


@pytest.mark.parametrize("spoilt", ["other dictionary", "no dictionary", "cut", "other bytes"])
def test_what_is_in_another_coding_is_noticed(spoilt: str) -> None:
    encoder = EventEncoder("segue-1")
    data = encoder.feed(EVENT) + encoder.end()
    decoder = preset_decoder()
    if spoilt == "other dictionary":
        decoder = dictionary_decoder(DICTIONARY[1:])
    elif spoilt == "no dictionary":
        decoder = dictionary_decoder(b"")
    elif spoilt == "cut":
        data = data[:-1]
    else:
        data = b"{}" + zlib.compress(EVENT)
    with pytest.raises(DecodingError):
        read_whole(decoder, data)


@pytest.mark.parametrize(
    ("accepted", "lean", "compact"),
    [
        ("segue-1, gzip", "gzip", "segue-1"),
        ("gzip, segue-1", "gzip", "segue-1"),
        ("SEGUE-1", None, "segue-1"),
        ("segue-1;q=0, gzip", "gzip", "gzip"),
        ("segue-2, gzip", "gzip", "gzip"),
        ("gzip, deflate, br", "gzip", "gzip"),
        ("br;q=1.0, GZIP; q=0.5", "gzip", "gzip"),
        ("br, gzip; q=0.0", None, None),
        ("identity", None, None),
        ("*", None, None),
        ("", None, None),
    ],
)
def test_a_client_gets_the_best_coding_that_it_names(accepted: str, lean: str | None, compact: str | None) -> None:
    assert stream_coding(accepted, preset=False) == lean
    assert stream_coding(accepted, preset=True) == compact
