from __future__ import annotations

import gzip
import sys
import zlib
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.http.content_coding import Deflate, Gzip, Wrapping, Zstd, encode_wrapping, read_wrapping, rewrap, unwrap
from tests.strategies import examples

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

PLAIN = b'{"messages":[' + b",".join(b'{"role":"user","content":"%d"}' % (n * n) for n in range(9000)) + b"]}"

#: Bytes to what a library makes of them. The tests encode, not the module: every test process collects every file.
Encode = Callable[[bytes], bytes]

GZIP = st.builds(Gzip, st.integers(1, 9), st.integers(0, 2**32 - 1), st.integers(0, 255), st.integers(0, 255))
DEFLATE = st.builds(Deflate, st.integers(1, 9))
ZSTD = st.builds(Zstd, st.integers(1, 9), st.booleans(), st.booleans())


def zstd_stream(plain: bytes, level: int, *, checksum: bool = False) -> bytes:
    options: dict[int, int] = {
        zstd.CompressionParameter.compression_level: level,
        zstd.CompressionParameter.checksum_flag: int(checksum),
    }
    compressor = zstd.ZstdCompressor(options=options)
    return compressor.compress(plain) + compressor.flush()


@pytest.mark.parametrize("plain", [b"{}", PLAIN])
@pytest.mark.parametrize("level", [1, 6, 9])
def test_what_libraries_send_is_taken_apart_and_put_together(plain: bytes, level: int) -> None:
    for coding, sent in (
        (b"gzip", gzip.compress(plain, level)),
        (b"GZip ", gzip.compress(plain, level, mtime=0)),
        (b"x-gzip", zlib.compress(plain, level, 31)),
        (b"deflate", zlib.compress(plain, level)),
        (b"zstd", zstd.compress(plain, level)),
        (b"zstd", zstd_stream(plain, level)),
        (b"zstd", zstd_stream(plain, level, checksum=True)),
    ):
        unwrapped = unwrap(sent, coding)
        assert unwrapped is not None, (coding, level)
        assert unwrapped.plain == plain
        assert unwrapped.sent == sent
        assert rewrap(plain, unwrapped.wrapping) == sent


@settings(max_examples=examples(200))
@given(GZIP | DEFLATE | ZSTD, st.binary(min_size=1, max_size=300))
def test_every_wrapping_is_found_again_or_an_equal_one(wrapping: Wrapping, plain: bytes) -> None:
    coding = {Gzip: b"gzip", Deflate: b"deflate", Zstd: b"zstd"}[type(wrapping)]
    sent = rewrap(plain, wrapping)
    unwrapped = unwrap(sent, coding)
    assert unwrapped is not None
    assert unwrapped.plain == plain
    assert rewrap(plain, unwrapped.wrapping) == sent


@given(GZIP | DEFLATE | ZSTD, st.binary(max_size=3), st.binary(max_size=3))
def test_a_wrapping_is_read_back_from_its_numbers(wrapping: Wrapping, before: bytes, after: bytes) -> None:
    encoded = encode_wrapping(wrapping)
    read = read_wrapping(before + encoded + after, len(before))
    assert read == (wrapping, len(before) + len(encoded))
    assert type(read[0]) is type(wrapping)


@given(st.binary(max_size=12))
def test_any_other_numbers_are_none(data: bytes) -> None:
    read = read_wrapping(data, 0)
    if read is not None:
        assert encode_wrapping(read[0]) == data[: read[1]]


@pytest.mark.parametrize("coding", [b"gzip", b"deflate", b"zstd", b"br", b"identity", b"gzip, gzip", b""])
@given(st.binary(max_size=60))
def test_what_is_not_of_its_coding_is_left_as_it_is(coding: bytes, body: bytes) -> None:
    unwrapped = unwrap(body, coding)
    assert unwrapped is None or rewrap(unwrapped.plain, unwrapped.wrapping) == body


@pytest.mark.parametrize(
    ("coding", "encode"),
    [
        (b"gzip", lambda plain: gzip.compress(plain) + gzip.compress(plain)),
        (b"gzip", lambda plain: gzip.compress(plain)[:-1]),
        (b"gzip", lambda plain: gzip.compress(plain) + b"x"),
        (b"deflate", lambda plain: zlib.compress(plain, wbits=-15)),
        (b"zstd", lambda plain: zstd.compress(plain) + zstd.compress(b"x")),
        (b"zstd", lambda plain: zstd.compress(plain)[:-1]),
        (b"zstd", lambda plain: zstd.compress(plain, 19)),
        (b"zstd", lambda _: zstd.compress(b"")),
        (b"zstd", lambda _: b""),
    ],
)
def test_what_cannot_be_made_again_is_left_as_it_is(coding: bytes, encode: Encode) -> None:
    assert unwrap(encode(PLAIN), coding) is None


def test_a_gzip_with_a_file_name_is_left_as_it_is() -> None:
    named = bytearray(gzip.compress(PLAIN))
    named[3] = 8
    named[10:10] = b"name\0"
    assert gzip.decompress(named) == PLAIN
    assert unwrap(bytes(named), b"gzip") is None


@pytest.mark.parametrize(
    ("coding", "encode"), [(b"gzip", gzip.compress), (b"deflate", zlib.compress), (b"zstd", zstd.compress)]
)
def test_a_body_over_the_limit_is_left_as_it_is(coding: bytes, encode: Encode) -> None:
    sent = encode(PLAIN)
    assert unwrap(sent, coding, len(PLAIN)) is not None
    assert unwrap(sent, coding, len(PLAIN) - 1) is None
