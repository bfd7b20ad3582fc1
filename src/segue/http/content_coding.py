"""Request bodies that an agent compressed itself: decoded only if encoding them again gives the same bytes.

A wrapping is a content coding with the settings that the agent used. `unwrap` tries a few settings of gzip, zlib and
zstd, and drops each at the first byte that differs. Whether the other end's library makes the same bytes is not known
here; the digest in the document's header decides. Not here: content codings of replies (`content_decoding`).
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Iterator
from typing import Final, Literal, Protocol, TypeAlias

import msgspec

from segue.http.varints import encode_varint, read_varint

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

#: A body that is larger than this when decoded stays compressed: the tries would cost more time than they save.
MAX_PLAIN_BYTES = 8 * 1024 * 1024
_PIECE_BYTES = 64 * 1024

_GZIP_MAGIC: Final = b"\x1f\x8b\x08\x00"  # deflate, and none of the optional header fields (RFC 1952, 2.3)
_GZIP_HEAD_BYTES = 10
_GZIP_TAIL_BYTES = 8
_ZSTD_MAGIC: Final = b"\x28\xb5\x2f\xfd"
_DEFLATE_LEVELS = (6, 9, 1, 5, 4, 7, 3, 8, 2)
_ZSTD_LEVELS = (3, 1, 6, 9, 2, 5, 4, 7, 8)


class _Deflater(Protocol):
    """What `zlib.compressobj` returns."""

    def compress(self, data: memoryview, /) -> bytes: ...
    def flush(self) -> bytes: ...


class Gzip(msgspec.Struct, frozen=True):
    """One gzip member: its level, and the header fields that do not depend on the content."""

    level: int
    mtime: int
    xfl: int
    os: int


class Deflate(msgspec.Struct, frozen=True):
    """A zlib stream (the coding that HTTP calls `deflate`)."""

    level: int


class Zstd(msgspec.Struct, frozen=True):
    """One zstd frame. `sized`: it was made in one call that knew the size; otherwise as a stream."""

    level: int
    sized: bool
    checksum: bool


Wrapping: TypeAlias = Gzip | Deflate | Zstd


class Unwrapped(msgspec.Struct, frozen=True):
    """A body as the agent sent it, the plain body in it, and the wrapping that leads from one to the other."""

    sent: bytes
    plain: bytes
    wrapping: Wrapping


def unwrap(body: bytes, content_encoding: bytes, limit: int = MAX_PLAIN_BYTES) -> Unwrapped | None:
    """Decode a body if `rewrap` provably gives the same bytes again; None: send it as it is.

    `content_encoding` is the value of that header line; only one coding is undone. `limit` bounds the plain size.
    """
    match content_encoding.strip().lower():
        case b"gzip" | b"x-gzip":
            plain = _inflate(body, 31, limit)
            tries = _gzip_tries(body)
        case b"deflate":
            plain = _inflate(body, 15, limit)
            tries = (Deflate(level) for level in _DEFLATE_LEVELS)
        case b"zstd":
            plain = _expand(body, limit)
            tries = _zstd_tries(body)
        case _:
            return None
    if not plain:
        return None  # an empty body has nothing to match
    for wrapping in tries:
        if _makes(plain, wrapping, body):
            return Unwrapped(body, plain, wrapping)
    return None


def rewrap(plain: bytes, wrapping: Wrapping) -> bytes:
    """Encode a plain body as the agent did."""
    return b"".join(_pieces(plain, wrapping))


def encode_wrapping(wrapping: Wrapping) -> bytes:
    """Return the bytes of a wrapping in a document's header (docs/spec/documents.md)."""
    match wrapping:
        case Gzip(level, mtime, xfl, os):
            return b"".join(map(encode_varint, (1, level, mtime, xfl, os)))
        case Deflate(level):
            return b"".join(map(encode_varint, (2, level)))
        case Zstd(level, sized, checksum):
            return b"".join(map(encode_varint, (3, level, sized + 2 * checksum)))


def read_wrapping(data: bytes, at: int) -> tuple[Wrapping, int] | None:
    """Read the bytes of a wrapping; return it and the offset after it, or None for anything else."""
    numbers: list[int] = []
    wanted = 1
    while len(numbers) < wanted:
        read = read_varint(data, at)
        if read is None:
            return None
        number, at = read
        numbers.append(number)
        wanted = {1: 5, 2: 2, 3: 3}.get(numbers[0], 0)
    wrapping = _wrapping(numbers)
    return None if wrapping is None else (wrapping, at)


def _wrapping(numbers: list[int]) -> Wrapping | None:
    match numbers:
        case [1, level, mtime, xfl, os] if 1 <= level <= 9 and mtime < 2**32 and xfl < 256 and os < 256:  # noqa: PLR2004 - the ranges of RFC 1952, 2.3.1
            return Gzip(level, mtime, xfl, os)
        case [2, level] if 1 <= level <= 9:  # noqa: PLR2004 - the levels of zlib
            return Deflate(level)
        case [3, level, flags] if level in _ZSTD_LEVELS and flags < 4:  # noqa: PLR2004 - two flags
            return Zstd(level, sized=bool(flags & 1), checksum=bool(flags & 2))
        case _:
            return None


def _inflate(body: bytes, window_bits: Literal[15, 31], limit: int) -> bytes | None:
    """Decode exactly one stream that fits into the limit."""
    expander = zlib.decompressobj(window_bits)
    try:
        plain = expander.decompress(body, limit + 1)
    except zlib.error:
        return None
    whole = expander.eof and not expander.unused_data and len(plain) <= limit
    return plain if whole else None


def _expand(body: bytes, limit: int) -> bytes | None:
    """Decode exactly one zstd frame that fits into the limit."""
    options: dict[int, int] = {zstd.DecompressionParameter.window_log_max: max(10, min(27, limit.bit_length()))}
    expander = zstd.ZstdDecompressor(options=options)
    try:
        plain = expander.decompress(body, limit + 1)
    except zstd.ZstdError:
        return None
    whole = expander.eof and not expander.unused_data and len(plain) <= limit
    return plain if whole else None


def _gzip_tries(body: bytes) -> Iterator[Wrapping]:
    if body.startswith(_GZIP_MAGIC):
        mtime, xfl, os = int.from_bytes(body[4:8], "little"), body[8], body[9]
        for level in _DEFLATE_LEVELS:
            yield Gzip(level, mtime, xfl, os)


def _zstd_tries(body: bytes) -> Iterator[Wrapping]:
    descriptor = body[len(_ZSTD_MAGIC)]  # RFC 8878, 3.1.1.1.1
    sized, checksum = bool(descriptor & 0b1110_0000), bool(descriptor & 0b100)
    for level in _ZSTD_LEVELS:
        yield Zstd(level, sized, checksum)


def _makes(plain: bytes, wrapping: Wrapping, body: bytes) -> bool:
    """Tell whether a wrapping gives exactly this body; stop at the first difference."""
    at = 0
    for piece in _pieces(plain, wrapping):
        if body[at : at + len(piece)] != piece:
            return False
        at += len(piece)
    return at == len(body)


def _pieces(plain: bytes, wrapping: Wrapping) -> Iterator[bytes]:
    match wrapping:
        case Gzip(level, mtime, xfl, os):
            yield _GZIP_MAGIC + mtime.to_bytes(4, "little") + bytes((xfl, os))
            yield from _deflated(plain, zlib.compressobj(level, zlib.DEFLATED, -15))
            yield zlib.crc32(plain).to_bytes(4, "little") + (len(plain) & 0xFFFFFFFF).to_bytes(4, "little")
        case Deflate(level):
            yield from _deflated(plain, zlib.compressobj(level, zlib.DEFLATED, 15))
        case Zstd(level, sized, checksum):
            yield from _zstd_pieces(plain, level, sized=sized, checksum=checksum)


def _deflated(plain: bytes, compressor: _Deflater) -> Iterator[bytes]:
    view = memoryview(plain)
    for at in range(0, len(plain), _PIECE_BYTES):
        yield compressor.compress(view[at : at + _PIECE_BYTES])
    yield compressor.flush()


def _zstd_pieces(plain: bytes, level: int, *, sized: bool, checksum: bool) -> Iterator[bytes]:
    parameter = zstd.CompressionParameter
    compressor = zstd.ZstdCompressor(
        options={
            parameter.compression_level: level,
            parameter.checksum_flag: int(checksum),
            parameter.content_size_flag: int(sized),
        }
    )
    if sized:
        compressor.set_pledged_input_size(len(plain))
    view = memoryview(plain)
    for at in range(0, len(plain), _PIECE_BYTES):
        yield compressor.compress(view[at : at + _PIECE_BYTES], zstd.ZstdCompressor.CONTINUE)
    yield compressor.flush(zstd.ZstdCompressor.FLUSH_FRAME)
