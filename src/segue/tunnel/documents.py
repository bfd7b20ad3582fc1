"""Documents: a request body as it travels up the tunnel, whole or as a delta against a base that both ends hold.

A document is a small header (coding, base, size, wrapping, digest) and the body, plain or compressed with zstd. Bytes
in, bytes out; docs/spec/documents.md is the reference. Decoding never raises on what a peer sent, never expands a body
beyond the limit, and returns a body only if it has the declared SHA-256. Not here: which base to choose.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from io import BytesIO
from typing import Final, TypeAlias

import msgspec

from segue.http.content_coding import Unwrapped, Wrapping, encode_wrapping, read_wrapping, rewrap
from segue.http.varints import encode_varint, read_varint

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

#: The id of a base has this many bytes of its body's SHA-256. Two bases with the same id cost a full send, if at all.
BASE_ID_BYTES = 4
#: The largest body of a document, both plain and as the agent sent it.
MAX_BODY_BYTES = 64 * 1024 * 1024

#: A document has so many bytes of the SHA-256 of what the agent sent.
_DIGEST_BYTES = 16
#: The coding byte: two bits for the coding, and one if a wrapping follows the size.
_RAW: Final = 0
_ZSTD: Final = 1
_DELTA: Final = 2
_PRIMED: Final = 3
_WRAPPED: Final = 4
_WITH_BASE: Final = frozenset({_DELTA, _PRIMED})

#: Every zstd frame of ours starts with this, so it is not sent: magic, and a descriptor without any flag.
_FRAME_HEAD: Final = b"\x28\xb5\x2f\xfd\x00"
#: The decoder, which knows the size, puts this there: single segment, content size in 8 bytes (RFC 8878, 3.1.1.1).
_SIZED_FRAME_HEAD: Final = b"\x28\xb5\x2f\xfd\xe0"
_MIN_WINDOW_LOG = 10
#: zstd takes no shorter prefix, so both ends treat a shorter one as none.
_MIN_PREFIX_BYTES = 8

#: A primed delta starts with these tables (docs/spec/documents.md, "Preset tables"), which would otherwise cost some 15
#: bytes in each document: the head of a zstd dictionary (RFC 8878, 5), whose content is the prefix.
_PRESET_TABLES: Final = bytes.fromhex(
    "37a430ec5b51a17d3c10c09334073330033330033304d2ac63ecd6a6b5fdbf6fff5776f726abb58f105b8f31de68998d1f59456a44a49452"
    "4a9992fceef69a8d9268c89a06d300000c0a0f07e4f2785836d9dc0104608811a7a29b5145c220c7711406310819878c21c6106294110101"
    "1000000000c4b2aa9541cc0c212000000000020000000000010000000400000008000000"
)

#: Up to this size of base and body together, a thorough search is cheap: it saves some 10 % against level 3.
_THOROUGH_BYTES = 1024 * 1024
_THOROUGH_LEVEL = 9
#: What makes level 9 smaller by 1 to 2 % in less time: tables as large as the window, more candidates, and matches of
#: four bytes.
_SEARCH_LOG = 6
_MIN_MATCH = 4
#: A body without a base is the first of its kind, and many times as large as those that follow. Up to this size, an
#: exhaustive search saves 4 % of it for some 10 ms, once.
_EXHAUSTIVE_BYTES = 128 * 1024
_EXHAUSTIVE_LEVEL = 17
_FAST_LEVEL = 3
_LDM_MIN_MATCH = 32
#: A header has at most ten numbers, the id of a base and a digest.
_MOST_HEADER_BYTES = 256
#: So much is expanded or copied in one call, during which nothing else runs. A `BytesIO` gives away what was written
#: without a copy, whereas to join pieces is one call for all of them.
_PIECE_BYTES = 1024 * 1024


#: A dictionary, and how the library is to use it.
_Dictionary: TypeAlias = tuple[zstd.ZstdDict, int]


class Base:
    """A plain request body and the folded reply to it: a later body can be a delta against the two."""

    __slots__ = ("_id", "body", "reply")

    def __init__(self, body: bytes, reply: bytes = b"", *, body_id: bytes | None = None) -> None:
        self.body: Final = body
        self.reply: Final = reply
        self._id = body_id

    @property
    def id(self) -> bytes:
        """The first bytes of the SHA-256 of the body; computed once."""
        if self._id is None:
            self._id = base_id_of(digest_of(self.body))
        return self._id

    @property
    def size(self) -> int:
        """The size of body and reply in bytes."""
        return len(self.body) + len(self.reply)


class Body(msgspec.Struct, frozen=True):
    """A decoded body. `sent` is what the agent sent; `plain` differs from it only if the agent had compressed it."""

    sent: bytes
    plain: bytes
    plain_id: bytes
    """The id that the plain body has as a base."""

    def as_base(self, reply: bytes) -> Base:
        """Return the base of this body and the folded reply to it."""
        return Base(self.plain, reply, body_id=self.plain_id)


class BaseMiss(msgspec.Struct, frozen=True):
    """This end cannot rebuild the body: the other end must send it again, without base and wrapping."""

    base_id: bytes
    reason: str


class DocumentError(msgspec.Struct, frozen=True):
    """The document itself is wrong; sending it again would not help."""

    reason: str
    too_large: bool = False


class _DocumentHeader(msgspec.Struct, frozen=True):
    coding: int
    base_id: bytes
    covered: int
    size: int
    wrapping: Wrapping | None
    digest: bytes
    end: int


def digest_of(body: bytes) -> bytes:
    """Return what a document has of the SHA-256 of a body."""
    return hashlib.sha256(body).digest()[:_DIGEST_BYTES]


def base_id_of(digest: bytes) -> bytes:
    """Return the id of the base whose body has this digest."""
    return digest[:BASE_ID_BYTES]


def encode_document(
    body: bytes | Unwrapped, base: Base | None = None, covered: int | None = None, *, digest: bytes | None = None
) -> bytes:
    """Return the document of a body, as a delta if there is a base.

    `covered` is how many bytes of the base's reply to use; None: all. A body that would not get smaller stays as it is.
    `digest`: that of the body as the agent sent it, if you have it.
    """
    if isinstance(body, Unwrapped):
        sent, plain, wrapping = body.sent, body.plain, body.wrapping
    else:
        sent, plain, wrapping = body, body, None
    coding, reference, prefix = _ZSTD, b"", b""
    if base is not None:
        covered = len(base.reply) if covered is None else covered
        reference, prefix = base.id + encode_varint(covered), _prefix(base, covered)
        coding = _PRIMED if len(prefix) + len(plain) <= _THOROUGH_BYTES else _DELTA
    payload = _compress(plain, prefix, _as_dictionary(prefix, primed=coding == _PRIMED))
    if payload is None or len(payload) + len(reference) >= len(plain):
        coding, reference, payload = _RAW, b"", plain
    wrapped = b"" if wrapping is None else encode_wrapping(wrapping)
    first = coding if wrapping is None else coding | _WRAPPED
    sent_digest = digest_of(sent) if digest is None else digest
    return b"".join((bytes((first,)), reference, encode_varint(len(plain)), wrapped, sent_digest, payload))


def _go_on() -> None:
    """Go on without a pause."""


def decode_document(
    document: bytes | bytearray,
    lookup: Callable[[bytes], Base | None],
    limit: int = MAX_BODY_BYTES,
    *,
    pause: Callable[[], None] = _go_on,
) -> Body | BaseMiss | DocumentError:
    """Return the body of a document, if its size is within `limit` and its digest is right.

    `lookup` finds a base by its id. If the two ends differ, in a base or in how their libraries compress, the result is
    a `BaseMiss`; if the document itself is wrong, it is a `DocumentError`. `pause` is called between the pieces of the
    body: whoever decodes a large one can let others work there.
    """
    header = _read_header(document)
    if header is None:
        return DocumentError("the header is malformed")
    if header.size > limit:
        return DocumentError(f"the body has {header.size} bytes, more than {limit}", too_large=True)
    prefix = _find_prefix(header, lookup)
    if isinstance(prefix, BaseMiss):
        return prefix
    payload = memoryview(document)[header.end :]
    dictionary = _as_dictionary(prefix, primed=header.coding == _PRIMED)
    if header.coding == _RAW:
        plain = _copy(payload, header.size, pause)
    else:
        plain = _expand(payload, header.size, dictionary=dictionary, pause=pause)
    if plain is None or len(plain) != header.size:
        return _failure(header, "the body does not expand to its size")
    return _check(header, plain, limit)


def may_be_missed(document: bytes) -> bool:
    """Tell whether a document needs what the other end may not have: a base, or the same way to wrap a body."""
    return bool(document) and (document[0] & ~_WRAPPED in _WITH_BASE or bool(document[0] & _WRAPPED))


def is_wrapped(document: bytes) -> bool:
    """Tell whether the body of a document is to be wrapped again."""
    return bool(document) and bool(document[0] & _WRAPPED)


def declared_size(document: bytes | bytearray) -> int:
    """Return the size that a document declares for its body, or 0; use it to decide where to decode."""
    header = _read_header(document)
    return 0 if header is None else header.size


def _find_prefix(header: _DocumentHeader, lookup: Callable[[bytes], Base | None]) -> bytes | BaseMiss:
    if header.coding not in _WITH_BASE:
        return b""
    base = lookup(header.base_id)
    if base is None:
        return BaseMiss(header.base_id, "the base is not here")
    if header.covered > len(base.reply):
        return BaseMiss(header.base_id, "the reply in the base is shorter")
    return _prefix(base, header.covered)


def _check(header: _DocumentHeader, plain: bytes, limit: int) -> Body | BaseMiss | DocumentError:
    """Compress a plain body as the agent did, and compare the result with the declared digest."""
    sent = plain if header.wrapping is None else rewrap(plain, header.wrapping)
    if len(sent) > limit:
        return DocumentError(f"the body as sent has more than {limit} bytes", too_large=True)
    digest = digest_of(sent)
    if digest != header.digest:
        return _failure(header, "the body has another digest")
    return Body(sent, plain, base_id_of(digest if sent is plain else digest_of(plain)))


def _failure(header: _DocumentHeader, reason: str) -> BaseMiss | DocumentError:
    """Blame a difference between the two ends where one is possible, and the document otherwise."""
    if header.coding in _WITH_BASE or header.wrapping is not None:
        return BaseMiss(header.base_id, reason)
    return DocumentError(reason)


def _read_header(whole: bytes | bytearray) -> _DocumentHeader | None:
    document = bytes(whole[:_MOST_HEADER_BYTES])
    coding = document[0] if document else _WRAPPED * 2
    wrapped, coding = bool(coding & _WRAPPED), coding & ~_WRAPPED
    if coding not in {_RAW, _ZSTD, *_WITH_BASE}:
        return None
    at, base_id, covered = 1, b"", 0
    if coding in _WITH_BASE:
        base_id = document[at : at + BASE_ID_BYTES]
        read = read_varint(document, at + BASE_ID_BYTES)
        if read is None:
            return None
        covered, at = read
    read = read_varint(document, at)
    if read is None:
        return None
    size, at = read
    wrapping = None
    if wrapped:
        unpacked = read_wrapping(document, at)
        if unpacked is None:
            return None
        wrapping, at = unpacked
    end = at + _DIGEST_BYTES
    if len(document) < end:
        return None
    return _DocumentHeader(coding, base_id, covered, size, wrapping, document[at:end], end)


def _prefix(base: Base, covered: int) -> bytes:
    """Return the prefix that both ends give to zstd."""
    reply = base.reply if covered == len(base.reply) else base.reply[:covered]
    return base.body + reply


def _window_log(size: int) -> int:
    return max(_MIN_WINDOW_LOG, (size - 1).bit_length())


def _compress(plain: bytes, prefix: bytes, dictionary: _Dictionary | None) -> bytes | None:
    """Return the blocks of one zstd frame without its head, or None if the library writes another kind of head."""
    parameter = zstd.CompressionParameter
    total = len(plain) + len(prefix)
    options: dict[int, int] = {
        **_search(total, has_base=bool(prefix)),
        parameter.window_log: _window_log(total),
        # the document's header already has size and digest
        parameter.content_size_flag: 0,
        parameter.checksum_flag: 0,
        parameter.dict_id_flag: 0,
    }
    compressor = zstd.ZstdCompressor(options=options, zstd_dict=dictionary)
    frame = compressor.compress(plain, zstd.ZstdCompressor.FLUSH_FRAME)
    window_at = len(_FRAME_HEAD)
    return frame[window_at + 1 :] if frame.startswith(_FRAME_HEAD) else None


def _search(total: int, *, has_base: bool) -> dict[int, int]:
    """Return how hard to search for matches."""
    parameter = zstd.CompressionParameter
    if total > _THOROUGH_BYTES:
        # without long-distance matching zstd finds no far base, and a higher level costs too much time
        return {
            parameter.compression_level: _FAST_LEVEL,
            parameter.enable_long_distance_matching: 1,
            parameter.ldm_min_match: _LDM_MIN_MATCH,
        }
    if not has_base and total <= _EXHAUSTIVE_BYTES:
        return {parameter.compression_level: _EXHAUSTIVE_LEVEL}
    return {
        parameter.compression_level: _THOROUGH_LEVEL,
        parameter.hash_log: _window_log(total),
        parameter.chain_log: _window_log(total),
        parameter.strategy: zstd.Strategy.lazy2,
        parameter.search_log: _SEARCH_LOG,
        parameter.min_match: _MIN_MATCH,
    }


def _copy(payload: memoryview, size: int, pause: Callable[[], None]) -> bytes | None:
    """Return the bytes if they have this size; what has another may be large, and is not copied to be refused."""
    if len(payload) != size:
        return None
    copied = BytesIO()
    for at in range(0, size, _PIECE_BYTES):
        pause()
        copied.write(payload[at : at + _PIECE_BYTES])
    return copied.getvalue()


def _expand(
    blocks: memoryview, size: int, *, dictionary: _Dictionary | None, pause: Callable[[], None]
) -> bytes | None:
    """Return exactly `size` bytes from exactly these blocks, or None."""
    options: dict[int, int] = {zstd.DecompressionParameter.window_log_max: _window_log(size + 1)}
    expander = zstd.ZstdDecompressor(options=options, zstd_dict=dictionary)
    expanded = BytesIO()
    left, given = size + 1, _PIECE_BYTES
    piece: bytes | memoryview = b"".join((_SIZED_FRAME_HEAD, size.to_bytes(8, "little"), blocks[:given]))
    try:
        while True:
            pause()
            left -= expanded.write(expander.decompress(piece, min(left, _PIECE_BYTES)))
            if expander.eof or not left:
                break
            piece = b""
            if expander.needs_input:
                piece = blocks[given : given + _PIECE_BYTES]
                given += len(piece)
                if not piece:
                    break
    except zstd.ZstdError:
        return None
    whole = expander.eof and given >= len(blocks) and not expander.unused_data
    return expanded.getvalue() if whole else None


def _as_dictionary(prefix: bytes, *, primed: bool) -> _Dictionary | None:
    if len(prefix) < _MIN_PREFIX_BYTES:
        return None
    if primed:
        return zstd.ZstdDict(_PRESET_TABLES + prefix).as_undigested_dict
    # zstd would hardly use a base of more than 2 MB as a loaded dictionary
    return zstd.ZstdDict(prefix, is_raw=True).as_prefix
