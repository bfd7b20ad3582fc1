"""Content codings: any way to cut the content gives the same, bombs come out slowly, and half of it is an error."""

from __future__ import annotations

import gzip
import sys
import zlib
from collections.abc import Callable

import brotli
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.http.content_decoding import PIECE_BYTES, ContentDecoder, DecodingError, decoder_for
from segue.http.heads import Line
from tests.strategies import examples

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd


def bare(data: bytes) -> bytes:
    deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return deflate.compress(data) + deflate.flush()


ENCODERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "GZip": lambda data: gzip.compress(data[:100]) + gzip.compress(data[100:]) + b"\0" * 7,
    "deflate": zlib.compress,
    " deflate ": bare,
    "br": lambda data: bytes(brotli.compress(data, quality=4)),
    "zstd": zstd.compress,
    "ZSTD": lambda data: zstd.compress(data[:100]) + zstd.compress(data[100:]),
    "gzip, br": lambda data: bytes(brotli.compress(gzip.compress(data), quality=4)),
    "identity, zstd , deflate,br": lambda data: bytes(brotli.compress(zlib.compress(zstd.compress(data)), quality=4)),
}
EVERY = pytest.mark.parametrize("name", ENCODERS)


def decoder(name: str) -> ContentDecoder:
    found = decoder_for([Line(b"Content-Encoding", name.encode())])
    assert found is not None
    return found


def decode(undo: ContentDecoder, encoded: bytes, size: int) -> bytes:
    pieces = []
    for start in range(0, len(encoded), size):
        undo.feed(encoded[start : start + size])
        while piece := undo.read():
            assert len(piece) <= PIECE_BYTES
            pieces.append(piece)
    undo.finish()
    return b"".join(pieces)


DATA = st.binary(max_size=300) | st.builds(bytes.__mul__, st.binary(min_size=1, max_size=50), st.integers(0, 20_000))


@EVERY
@settings(max_examples=examples(60))
@given(data=DATA, size=st.integers(1, 400))
def test_any_cutting_gives_the_same(name: str, data: bytes, size: int) -> None:
    """Down to single bytes."""
    assert decode(decoder(name), ENCODERS[name](data), size) == data


@EVERY
def test_what_is_flushed_can_be_read_at_once(name: str) -> None:
    """A stream of events is not held back."""
    if "," in name or name.strip() not in {"gzip", "deflate", "zstd", "br"}:
        return
    compress, flush = FLUSHERS[name.strip()]()
    undo = decoder(name)
    for event in (b"data: one\n\n", b"data: two\n\n"):
        undo.feed(compress(event) + flush())
        assert undo.read() == event
        assert undo.read() == b""


def flusher_of_zlib(wbits: int) -> tuple[Callable[[bytes], bytes], Callable[[], bytes]]:
    deflate = zlib.compressobj(wbits=wbits)
    return deflate.compress, lambda: deflate.flush(zlib.Z_SYNC_FLUSH)


def flusher_of_zstd() -> tuple[Callable[[bytes], bytes], Callable[[], bytes]]:
    compressor = zstd.ZstdCompressor()
    return compressor.compress, lambda: compressor.flush(zstd.ZstdCompressor.FLUSH_BLOCK)


def flusher_of_brotli() -> tuple[Callable[[bytes], bytes], Callable[[], bytes]]:
    compressor = brotli.Compressor()
    return compressor.process, compressor.flush


FLUSHERS: dict[str, Callable[[], tuple[Callable[[bytes], bytes], Callable[[], bytes]]]] = {
    "gzip": lambda: flusher_of_zlib(31),
    "deflate": lambda: flusher_of_zlib(15),
    "zstd": flusher_of_zstd,
    "br": flusher_of_brotli,
}


@EVERY
def test_a_bomb_comes_out_in_pieces(name: str) -> None:
    """As its reader asks for them; a first piece costs no more than any."""
    size = 50_000_000
    undo = decoder(name)
    undo.feed(ENCODERS[name](bytes(size)))
    for _ in range(20):
        assert 0 < len(undo.read()) <= PIECE_BYTES


@EVERY
def test_content_that_ends_early_is_an_error(name: str) -> None:
    """Wherever it does, but for none at all (an empty answer to which somebody put the line)."""
    encoded = ENCODERS[name](b"0123456789" * 30)
    decode(decoder(name), b"", 1)
    whole = len(encoded) - (7 if name == "GZip" else 0)
    ends = {len(gzip.compress(b"0123456789" * 10))} if name == "GZip" else set()
    ends |= {len(zstd.compress(b"0123456789" * 10))} if name == "ZSTD" else set()
    for end in sorted(set(range(1, whole)) - ends):
        with pytest.raises(DecodingError):
            decode(decoder(name), encoded[:end], end)


@EVERY
@settings(max_examples=examples(60))
@given(data=st.binary(min_size=1, max_size=100), at=st.integers(0, 200), size=st.integers(1, 50))
def test_noise_is_an_error_or_something(name: str, data: bytes, at: int, size: int) -> None:
    """But nothing else is raised, and it ends."""
    encoded = ENCODERS[name](b"0123456789" * 30)
    try:
        decode(decoder(name), encoded[:at] + data + encoded[at:], size)
    except DecodingError as error:
        assert str(error)  # noqa: PT017 - that it may also pass is the point


@pytest.mark.parametrize("name", ["deflate", "br", "gzip", "zstd"])
def test_something_after_the_end_is_an_error(name: str) -> None:
    """It would be lost."""
    with pytest.raises(DecodingError):
        decode(decoder(name), ENCODERS[name](b"x") + b"more", 3)


def test_a_window_that_no_server_may_use_is_refused() -> None:
    """It would cost its size in memory: RFC 9659 allows 8 MB."""
    parameter = zstd.CompressionParameter
    compressor = zstd.ZstdCompressor(options={parameter.window_log: 27, parameter.content_size_flag: 0})
    encoded = compressor.compress(b"x" * 1000) + compressor.flush()
    with pytest.raises(DecodingError):
        decode(decoder("zstd"), encoded, len(encoded))


@pytest.mark.parametrize(
    "lines",
    [
        [],
        [(b"Content-Encoding", b"")],
        [(b"Content-Encoding", b"identity")],
        [(b"Content-Encoding", b"compress")],
        [(b"Content-Encoding", b"dcb")],
        [(b"Content-Encoding", b"gzip, other")],
        [(b"Content-Encoding", b"other"), (b"Content-Encoding", b"gzip")],
        [(b"Content-Encoding", b"gzip, gzip, gzip, gzip")],
        [(b"Content-Encoding", b"gzip"), (b"Content-Digest", b"sha-256=:x:")],
        [(b"Content-Encoding", b"gzip"), (b"Content-Range", b"bytes 0-9/100")],
        [(b"X-Content-Encoding", b"gzip")],
    ],
)
def test_what_is_not_known_in_full_is_left_alone(lines: list[tuple[bytes, bytes]]) -> None:
    """And so is content whose very bytes are described."""
    assert decoder_for([Line(*line) for line in lines]) is None


TEXTS = (
    b'{"error":{"message":"no such model"}}',
    b"<html>\n<head><title>502 Bad Gateway</title></head>",
    b"data: {}\n\n",
    "<p>Die Größe ist falsch.</p>".encode(),
    b"plain " * 30_000,
)


@pytest.mark.untraced
@EVERY
@pytest.mark.parametrize("size", [1, 70_000])
@pytest.mark.parametrize("text", TEXTS)
def test_text_that_is_in_no_coding_comes_out_as_it_is(name: str, text: bytes, size: int) -> None:
    """A proxy has decoded it and left the line, or an error page never was in it."""
    if "deflate" in name.lower():  # without the header of zlib, the first bytes of anything may decode
        size = 70_000
    text = text[: 10_000 * size]  # in single bytes, that much of it
    assert decode(decoder(name), text, size) == text


@pytest.mark.parametrize("name", ["deflate", "br", "gzip", "zstd"])
@pytest.mark.parametrize("data", [b'{"a": 1}\0', b"\x1f\x8b\x08 spoilt", b"\x1b[31mred", b"\xff\xfe{}"])
def test_what_is_neither_in_the_coding_nor_text_is_an_error(name: str, data: bytes) -> None:
    with pytest.raises(DecodingError):
        decode(decoder(name), data, len(data))


def test_what_begins_in_the_coding_is_never_taken_for_text() -> None:
    with pytest.raises(DecodingError):
        decode(decoder("gzip"), gzip.compress(b"text") + b"and more of it", 5)
