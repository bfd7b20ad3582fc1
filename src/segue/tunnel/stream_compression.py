"""Stream contexts: zstd over the bytes of a reply, or over the messages of a WebSocket, as one stream each way.

The encoder flushes when its caller says so, so that what was fed can be read at the other end at once; the decoder is
asked for a bounded piece at a time, so that a bomb expands no further than its reader reads. Both have a small window
and small tables, for there may be hundreds of them. docs/spec/documents.md is the reference. Not here: documents.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Final

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

#: Window of the stream of one HTTP reply: about 260 KB for an encoder, 300 KB for a decoder.
REPLY_WINDOW_LOG = 17
#: Window of one direction of a WebSocket, where messages resemble ones far back: 880 KB and 690 KB.
SOCKET_WINDOW_LOG = 19

#: What begins a frame of these streams, and is therefore not sent: magic, no flags; then comes the window.
_FRAME_HEAD: Final = b"\x28\xb5\x2f\xfd\x00"
_MIN_WINDOW_LOG: Final = 10
#: The tables have an eighth of the window's length: larger ones double the memory and save nothing measurable.
_TABLE_LOG_LESS: Final = 3


@dataclass(frozen=True)
class StreamError:
    """The peer's bytes are no stream, or one that needs a larger window; nothing more can be read from it."""

    reason: str


class StreamEncoder:
    """Compresses one stream. Output may come from any call, and belongs into the stream in the order of the calls."""

    def __init__(self, window_log: int = REPLY_WINDOW_LOG, level: int = 6) -> None:
        parameter = zstd.CompressionParameter
        options: dict[int, int] = {
            parameter.compression_level: level,
            parameter.window_log: window_log,
            parameter.hash_log: window_log - _TABLE_LOG_LESS,
            parameter.chain_log: window_log - _TABLE_LOG_LESS,
            parameter.content_size_flag: 0,
            parameter.checksum_flag: 0,
        }
        self._compressor = zstd.ZstdCompressor(options=options)
        self._head_left = len(_FRAME_HEAD) + 1
        self._is_finished = False

    def feed(self, data: bytes) -> bytes:
        """Take bytes of the stream; often there is no output yet."""
        return self._strip(self._compressor.compress(data, zstd.ZstdCompressor.CONTINUE))

    def flush(self) -> bytes:
        """Return what the peer needs to read all that was fed so far."""
        return self._strip(self._compressor.flush(zstd.ZstdCompressor.FLUSH_BLOCK))

    def finish(self) -> bytes:
        """End the stream; nothing may be called after it."""
        encoded = self._strip(self._compressor.flush(zstd.ZstdCompressor.FLUSH_FRAME))
        self._is_finished = True
        return encoded

    def _strip(self, encoded: bytes) -> bytes:
        if self._is_finished:
            raise RuntimeError("the stream has been finished")
        if self._head_left and encoded:
            skipped = min(self._head_left, len(encoded))
            self._head_left -= skipped
            return encoded[skipped:]
        return encoded


class StreamDecoder:
    """Expands one stream, made with a window of at most `window_log`, piece by piece as it is asked for.

    It holds what was fed and not yet read in its compressed form; bounding that is the caller's part.
    """

    def __init__(self, window_log: int = REPLY_WINDOW_LOG) -> None:
        options: dict[int, int] = {zstd.DecompressionParameter.window_log_max: window_log}
        self._expander = zstd.ZstdDecompressor(options=options)
        self._fed = bytearray(_FRAME_HEAD)
        self._fed.append((window_log - _MIN_WINDOW_LOG) << 3)  # RFC 8878, 3.1.1.1.2
        self._error: StreamError | None = None

    @property
    def eof(self) -> bool:
        """The stream was read to the end that its encoder gave it."""
        return self._expander.eof and self._error is None

    def feed(self, data: bytes) -> None:
        """Take compressed bytes as they come."""
        self._fed += data

    def read(self, max_bytes: int) -> bytes | StreamError:
        """Return the next bytes, at most `max_bytes`; none when there are no more before the next `feed`."""
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
            data = self._expander.decompress(fed, max_bytes)
        except zstd.ZstdError as error:
            self._error = StreamError(str(error))
            return self._error
        if self._expander.unused_data:
            # what stands before the end may be read; the next call tells
            self._fed += self._expander.unused_data
        return data
