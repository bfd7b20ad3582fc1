"""Decoders of the content codings of replies, which give out pieces of at most 64 KB.

A decompression bomb expands no further than its reader reads. Not here: transfer codings, which the HTTP parser undoes,
and request bodies (`content_coding`).
"""

from __future__ import annotations

import codecs
import importlib.util
import re
import sys
import zlib
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Final, Protocol

from segue.http.heads import Line, values

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

#: No piece is longer.
PIECE_BYTES: Final = 64 * 1024

#: Brotli grows its output buffer in blocks of 32 KB, doubled, until it exceeds this: 16 KB give 32 KB.
_BROTLI_LIMIT: Final = 16 * 1024
#: Servers should use no larger window (RFC 9659, 3): 8 MB.
_ZSTD_WINDOW_LOG: Final = 23
#: No server stacks more codings; each costs the memory of its decoder.
_MOST_CODINGS: Final = 3
_CONTROLS: Final = re.compile(r"[^\t\n\r\x20-\x7e\x85\xa0-\U0010ffff]")


class DecodingError(Exception):
    """The content is not what its Content-Encoding says, or ends too early."""


class ContentDecoder(Protocol):
    """Undoes one content coding. After `feed`, call `read` until it returns `b""` before you feed it again."""

    def feed(self, data: bytes) -> None:
        """Take some of the encoded content."""

    def read(self) -> bytes:
        """Return a piece of the decoded content; `b""`: feed more.

        Raises:
            DecodingError: the content is not in this coding.
        """

    def finish(self) -> None:
        """Note the end of the content.

        Raises:
            DecodingError: the content is cut off. (No content at all is no error.)
        """


def decoder_for(lines: Iterable[Line]) -> ContentDecoder | None:
    """Return a decoder for the codings that the lines name; None if there are none, or one of them is not known.

    Content stays encoded if other lines describe its bytes, such as a digest (RFC 9530, 2). Text that is in no
    coding at all, though the lines say so, comes out as it is: proxies that decode a reply may leave the line in it.
    """
    lines = tuple(lines)
    named = b",".join(values(lines, b"content-encoding")).lower().split(b",")
    codings = [name for name in map(bytes.strip, named) if name not in (b"", b"identity")]
    if not 1 <= len(codings) <= _MOST_CODINGS:
        return None
    known = _known()
    if not known.keys() >= set(codings):
        return None
    if any(line.name.lower() in (b"content-digest", b"content-md5", b"content-range", b"digest") for line in lines):
        return None
    stages = [known[name]() for name in reversed(codings)]  # RFC 9110, 8.4: listed in the order they were applied
    return _TextAsItIs(stages[0] if len(stages) == 1 else _DecoderChain(stages))


@cache
def _known() -> Mapping[bytes, Callable[[], ContentDecoder]]:
    known: dict[bytes, Callable[[], ContentDecoder]] = {
        b"gzip": lambda: _InflateDecoder(_GZIP),
        b"x-gzip": lambda: _InflateDecoder(_GZIP),
        b"deflate": _DeflateDecoder,
        b"zstd": _ZstdDecoder,
    }
    if importlib.util.find_spec("brotli") is not None:  # there is no wheel for PyPy
        known[b"br"] = _BrotliDecoder
    return known


_GZIP: Final = 16 + zlib.MAX_WBITS
_ZLIB: Final = zlib.MAX_WBITS
_RAW: Final = -zlib.MAX_WBITS


def dictionary_decoder(dictionary: bytes) -> ContentDecoder:
    """Return a decoder of one stream of zlib that was encoded with a preset dictionary."""
    return _InflateDecoder(_ZLIB, dictionary)


class _InflateDecoder:
    """Gzip, of any number of members (RFC 1952, 2.2), or one stream of zlib or of bare deflate."""

    def __init__(self, window_bits: int, dictionary: bytes = b"") -> None:
        self._window_bits = window_bits
        self._inflater = zlib.decompressobj(window_bits, dictionary)
        self._input = b""
        self._begun = False
        self._more_output = False

    def feed(self, data: bytes) -> None:
        self._input += data
        self._begun |= bool(data)

    def read(self) -> bytes:
        while self._input or self._more_output:
            if self._inflater.eof and not self._begin_member():
                return b""
            try:
                piece = self._inflater.decompress(self._input, PIECE_BYTES)
            except zlib.error as error:
                raise DecodingError(str(error)) from None
            inflater = self._inflater
            self._input = inflater.unused_data if inflater.eof else inflater.unconsumed_tail
            self._more_output = len(piece) == PIECE_BYTES and not inflater.eof
            if piece:
                return piece
        return b""

    def finish(self) -> None:
        if self._begun and not self._inflater.eof:
            raise DecodingError("it ends too early")

    def _begin_member(self) -> bool:
        """Begin the next member after the end of one; zeros pad the last one."""
        self._input = self._input.lstrip(b"\0")
        if self._input and self._window_bits != _GZIP:
            raise DecodingError("there is something after its end")
        if self._input:
            self._inflater = zlib.decompressobj(self._window_bits)
        return bool(self._input)


class _DeflateDecoder:
    """`deflate` is zlib's format (RFC 9110, 8.4.1.2), but some servers send bare deflate; the first two bytes tell."""

    def __init__(self) -> None:
        self._first = b""
        self._inflate: _InflateDecoder | None = None

    def feed(self, data: bytes) -> None:
        if self._inflate is None:
            self._first += data
            if len(self._first) < 2:  # noqa: PLR2004 - as the docstring says
                return
            zlib_header = self._first[0] & 0x0F == zlib.DEFLATED and int.from_bytes(self._first[:2], "big") % 31 == 0
            self._inflate = _InflateDecoder(_ZLIB if zlib_header else _RAW)
            data, self._first = self._first, b""
        self._inflate.feed(data)

    def read(self) -> bytes:
        return self._inflate.read() if self._inflate is not None else b""

    def finish(self) -> None:
        if self._inflate is not None:
            self._inflate.finish()
        elif self._first:
            raise DecodingError("it ends too early")


class _BrotliDecoder:
    """Brotli (RFC 7932)."""

    def __init__(self) -> None:
        import brotli  # noqa: PLC0415 - not every platform has it

        self._error: type[Exception] = brotli.error
        self._decompressor = brotli.Decompressor()
        self._input = b""
        self._begun = False

    def feed(self, data: bytes) -> None:
        self._input += data
        self._begun |= bool(data)

    def read(self) -> bytes:
        # It may take all input long before it returns all output: only an empty piece means that it needs more.
        while not self._decompressor.is_finished():
            data = b""
            if self._decompressor.can_accept_more_data():
                data, self._input = self._input, b""
            try:
                piece = bytes(self._decompressor.process(data, output_buffer_limit=_BROTLI_LIMIT))
            except self._error as error:
                raise DecodingError(str(error)) from None
            if piece or not (data or self._input):
                return piece
        if self._input:
            raise DecodingError("there is something after its end")
        return b""

    def finish(self) -> None:
        if self._begun and not self._decompressor.is_finished():
            raise DecodingError("it ends too early")


class _ZstdDecoder:
    """Zstandard, of any number of frames (RFC 8878, 3)."""

    def __init__(self) -> None:
        self._decompressor = _zstd_decompressor()
        self._input = b""
        self._begun = False

    def feed(self, data: bytes) -> None:
        self._input += data
        self._begun |= bool(data)

    def read(self) -> bytes:
        while self._input or not (self._decompressor.needs_input or self._decompressor.eof):
            if self._decompressor.eof:
                self._decompressor = _zstd_decompressor()
            data, self._input = self._input, b""
            try:
                piece = self._decompressor.decompress(data, PIECE_BYTES)
            except zstd.ZstdError as error:
                raise DecodingError(str(error)) from None
            if self._decompressor.eof:
                self._input = self._decompressor.unused_data
            if piece:
                return piece
        return b""

    def finish(self) -> None:
        if self._begun and not self._decompressor.eof:
            raise DecodingError("it ends too early")


def _zstd_decompressor() -> zstd.ZstdDecompressor:
    return zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: _ZSTD_WINDOW_LOG})


class _DecoderChain:
    """Several codings, the last applied first."""

    def __init__(self, stages: list[ContentDecoder]) -> None:
        self._stages = stages

    def feed(self, data: bytes) -> None:
        self._stages[0].feed(data)

    def read(self) -> bytes:
        return self._pull(len(self._stages) - 1)

    def finish(self) -> None:
        for stage in self._stages:
            stage.finish()

    def _pull(self, number: int) -> bytes:
        while True:
            piece = self._stages[number].read()
            if piece or number == 0:
                return piece
            below = self._pull(number - 1)
            if not below:
                return b""
            self._stages[number].feed(below)


class _TextAsItIs:
    """Another decoder, until that finds that the content is in no coding: if it is text, it comes out as it is.

    What begins as the coding says and is spoilt later is an error all the same, and so is what is no text: an answer
    that is incomplete must not look complete.
    """

    def __init__(self, decoder: ContentDecoder) -> None:
        self._decoder: ContentDecoder | None = decoder
        self._begin: bytes | None = b""  # all of the content, as long as nothing has come out and it is short
        self._plain = b""

    def feed(self, data: bytes) -> None:
        if self._decoder is None:
            self._plain += data
            return
        if self._begin is not None:
            self._begin = self._begin + data if len(self._begin) < PIECE_BYTES else None
        self._decoder.feed(data)

    def read(self) -> bytes:
        if self._decoder is not None:
            try:
                piece = self._decoder.read()
            except DecodingError:
                if self._begin is None or not _is_text(self._begin):
                    raise
                self._decoder, self._plain = None, self._begin
            else:
                if piece:
                    self._begin = None
                return piece
        piece, self._plain = self._plain[:PIECE_BYTES], self._plain[PIECE_BYTES:]
        return piece

    def finish(self) -> None:
        if self._decoder is not None:
            self._decoder.finish()


def _is_text(data: bytes) -> bool:
    """Tell whether data is UTF-8 without control characters; its last character may be cut."""
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(data)
    except UnicodeDecodeError:
        return False
    return not _CONTROLS.search(text)
