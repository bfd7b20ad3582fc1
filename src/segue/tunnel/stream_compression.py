"""Stream compression: zstd over the bytes of a reply, or over the messages of a WebSocket, one stream each way.

The caller flushes the encoder, so that the other end can read at once what was fed; it asks the decoder for one bounded
piece at a time, so that a decompression bomb expands no further than the caller reads. Both have a small window and
small tables, since there may be hundreds of them. docs/spec/documents.md ("Stream contexts") is the reference. Not
here: documents.
"""

from __future__ import annotations

import sys
from typing import Final

import msgspec

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

#: The window of one HTTP reply: an encoder takes about 260 KB, a decoder 300 KB.
REPLY_WINDOW_LOG = 17
#: The window of one direction of a WebSocket, whose messages resemble much earlier ones: 880 KB and 690 KB.
SOCKET_WINDOW_LOG = 19

#: So many of the first bytes of a reply are the prefix of a later one's stream: events of the same form, and what the
#: provider repeats of the request. More saves nothing that can be measured.
REPLY_BASE_BYTES = 32 * 1024
#: zstd takes no shorter prefix, so both ends treat a shorter one as none.
_MIN_PREFIX_BYTES: Final = 8

#: Every zstd frame of these streams starts with this, so it is not sent: magic, no flags. Then follows the window.
_FRAME_HEAD: Final = b"\x28\xb5\x2f\xfd\x00"
_MIN_WINDOW_LOG: Final = 10
#: The tables have an eighth of the window's length: larger ones double the memory and save no measurable bytes.
_TABLE_LOG_LESS: Final = 3


class StreamError(msgspec.Struct, frozen=True):
    """The peer's bytes are no stream, or one that needs a larger window; you can read no more from it."""

    reason: str


class StreamEncoder:
    """Compresses one stream. Every call may return output; send it in the order of the calls.

    `prefix`: bytes that the stream builds on, and that its decoder has too.
    """

    def __init__(self, window_log: int = REPLY_WINDOW_LOG, level: int = 6, *, prefix: bytes = b"") -> None:
        parameter = zstd.CompressionParameter
        options: dict[int, int] = {
            parameter.compression_level: level,
            parameter.window_log: window_log,
            parameter.hash_log: window_log - _TABLE_LOG_LESS,
            parameter.chain_log: window_log - _TABLE_LOG_LESS,
            parameter.content_size_flag: 0,
            parameter.checksum_flag: 0,
        }
        self._compressor = zstd.ZstdCompressor(options=options, zstd_dict=_as_prefix(prefix))
        self._head_left = len(_FRAME_HEAD) + 1
        self._finished = False

    def go_through_prefix(self) -> None:
        """Do now what the first call of `feed` would do, and what takes longer than an event."""
        self._compressor.compress(b"", zstd.ZstdCompressor.CONTINUE)  # without a block there is no output

    def feed(self, data: bytes) -> bytes:
        """Compress bytes; often there is no output yet."""
        return self._strip(self._compressor.compress(data, zstd.ZstdCompressor.CONTINUE))

    def feed_and_flush(self, data: bytes) -> bytes:
        """Compress bytes; return all that the peer needs to read them."""
        return self._strip(self._compressor.compress(data, zstd.ZstdCompressor.FLUSH_BLOCK))

    def flush(self) -> bytes:
        """Return the rest that the peer needs to read all that was fed so far."""
        return self._strip(self._compressor.flush(zstd.ZstdCompressor.FLUSH_BLOCK))

    def finish(self) -> bytes:
        """End the stream; call nothing after it."""
        encoded = self._strip(self._compressor.flush(zstd.ZstdCompressor.FLUSH_FRAME))
        self._finished = True
        return encoded

    def _strip(self, encoded: bytes) -> bytes:
        if self._finished:
            raise RuntimeError("the stream has been finished")
        if self._head_left and encoded:
            skipped = min(self._head_left, len(encoded))
            self._head_left -= skipped
            return encoded[skipped:]
        return encoded


class StreamDecoder:
    """Expands one stream, made with a window of at most `window_log` and this prefix, one piece for each `read`.

    It holds compressed bytes that were fed and not yet read; the caller bounds them.
    """

    def __init__(self, window_log: int = REPLY_WINDOW_LOG, *, prefix: bytes = b"") -> None:
        options: dict[int, int] = {zstd.DecompressionParameter.window_log_max: window_log}
        self._expander = zstd.ZstdDecompressor(options=options, zstd_dict=_as_prefix(prefix))
        self._fed = bytearray(_FRAME_HEAD)
        self._fed.append((window_log - _MIN_WINDOW_LOG) << 3)  # RFC 8878, 3.1.1.1.2
        self._error: StreamError | None = None

    @property
    def eof(self) -> bool:
        """The stream was read to its end."""
        return self._expander.eof and self._error is None

    @property
    def has_more(self) -> bool:
        """`read` may return something without another `feed`."""
        return bool(self._fed) or not (self._expander.needs_input or self._expander.eof)

    def feed(self, data: bytes) -> None:
        """Take compressed bytes, cut anywhere."""
        self._fed += data

    def take_rest(self) -> bytes:
        """Return the bytes behind the end of the stream, which are then no error."""
        rest = bytes(self._fed)
        self._fed.clear()
        return rest

    def read(self, max_bytes: int, data: bytes = b"") -> bytes | StreamError:
        """Return the next bytes, at most `max_bytes`; `b""` if there are no more before the next `feed`.

        `data` is fed before.
        """
        if data:
            self._fed += data
        if self._error is None and self._expander.eof and self._fed:
            self._error = StreamError("there are bytes after the end of the stream")
        if self._error is not None:
            return self._error
        if self._expander.eof:
            return b""
        fed = b""
        if self._expander.needs_input:
            fed = bytes(self._fed)
            self._fed.clear()
        try:
            expanded = self._expander.decompress(fed, max_bytes)
        except zstd.ZstdError as error:
            self._error = StreamError(str(error))
            return self._error
        if self._expander.unused_data:
            # bytes before the end can be read; the next call returns the error
            self._fed += self._expander.unused_data
        return expanded


def _as_prefix(prefix: bytes) -> tuple[zstd.ZstdDict, int] | None:
    return zstd.ZstdDict(prefix, is_raw=True).as_prefix if len(prefix) >= _MIN_PREFIX_BYTES else None
