"""What a session would cost without segue, computed from its bytes and the framing that each standard prescribes.

- `raw`: HTTP/1.1 (RFC 9112): start line, head lines, Host and Content-Length, and the body; a streamed reply comes in
  chunks, one per event. A WebSocket session: the upgrade, and a frame per message (RFC 6455, 5.2; masked from the
  client).
- `gzip`, `zstd`: each request body is compressed by itself (gzip level 6, zstd level 3) and has a Content-Encoding
  line. Each reply is one compressed stream, flushed after every event so that no event is held back. In a WebSocket
  session each message is compressed by itself.
- `permessage-deflate` (RFC 7692): everything goes over one WebSocket, whatever the session's own transport is. Each
  request body is one message, and so is each event. Each way has one context for the whole session, with a window of
  32 KB and zlib level 6. The head lines are sent once, in the upgrade.

No baseline counts the bytes of TCP and TLS themselves; no measured arm does either.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal

from segue.bench.meters.tcp import WireBytes
from segue.http.heads import Line, RequestHead
from segue.testing.recorded_session import LEVEL, RecordedSession, RecordedTurn

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

Baseline = Literal["raw", "gzip", "zstd", "permessage-deflate"]
HOST = b"127.0.0.1:12345"

_GZIP_LEVEL = 6
_TAIL_BYTES = 4  # RFC 7692, 7.2.1: what a flush ends with is not sent
_MASK_BYTES = 4
_SOCKET_LINES = (
    Line(b"Upgrade", b"websocket"),
    Line(b"Connection", b"Upgrade"),
    Line(b"Sec-WebSocket-Version", b"13"),
    Line(b"Sec-WebSocket-Key", b"dGhlIHNhbXBsZSBub25jZQ=="),
)
_ACCEPTED_LINES = (
    Line(b"Upgrade", b"websocket"),
    Line(b"Connection", b"Upgrade"),
    Line(b"Sec-WebSocket-Accept", b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
)
_DEFLATE_LINE = Line(b"Sec-WebSocket-Extensions", b"permessage-deflate")

#: Compresses a series of parts and flushes after each, so that a receiver can read each one at once.
Compressor = Callable[[bytes], bytes]


def cost(baseline: Baseline, session: RecordedSession, host: bytes = HOST) -> list[WireBytes]:
    """Return the bytes of each turn; the first turn includes the handshake of the connection."""
    if baseline == "permessage-deflate":
        return _socket_cost(session, host, _deflate(), _deflate(), extension=True)
    if session.transport == "websocket":
        return _socket_cost(session, host, _whole(baseline), _whole(baseline), extension=False)
    return [_exchange(baseline, session, turn, host) for turn in session.turns]


# --- HTTP ------------------------------------------------------------------------------------------------------------


def _exchange(baseline: Baseline, session: RecordedSession, turn: RecordedTurn, host: bytes) -> WireBytes:
    encoded = () if baseline == "raw" else (Line(b"Content-Encoding", baseline.encode()),)
    body = _whole(baseline)(turn.body)
    up = request_head(turn.head, host, (*encoded, Line(b"Content-Length", b"%d" % len(body))))
    lines = (*turn.reply.head_lines(streamed=session.streamed), *encoded)
    if not session.streamed:
        whole = _whole(baseline)(turn.reply.whole)
        down = _reply_head((*lines, Line(b"Content-Length", b"%d" % len(whole))))
        return WireBytes(len(up) + len(body), len(down) + len(whole))
    pack = _stream(baseline)
    chunks = sum(_chunk_bytes(len(pack(event))) for event in turn.reply.events)
    down = _reply_head((*lines, Line(b"Transfer-Encoding", b"chunked")))
    return WireBytes(len(up) + len(body), len(down) + chunks + len(b"0\r\n\r\n"))


def request_head(head: RequestHead, host: bytes, more: Iterable[Line]) -> bytes:
    """Write the head of a request: Host first, and the lines that a transport adds last."""
    start = b"%b %b HTTP/1.1\r\n" % (head.method, head.target)
    return start + _rendered((Line(b"Host", host), *head.lines, *more))


def socket_head(head: RequestHead, host: bytes, more: Sequence[Line] = ()) -> bytes:
    """Write the head of an upgrade to WebSocket."""
    kept = tuple(line for line in head.lines if line.name.lower() not in {b"connection", b"content-type"})
    return request_head(RequestHead(b"GET", head.target, kept), host, (*_SOCKET_LINES, *more))


def _reply_head(lines: Iterable[Line]) -> bytes:
    return b"HTTP/1.1 200 OK\r\n" + _rendered(lines)


def _rendered(lines: Iterable[Line]) -> bytes:
    return b"".join(b"%b: %b\r\n" % line for line in lines) + b"\r\n"


def _chunk_bytes(size: int) -> int:
    return len(b"%x\r\n\r\n" % size) + size


# --- WebSocket -------------------------------------------------------------------------------------------------------


def _socket_cost(
    session: RecordedSession, host: bytes, up: Compressor, down: Compressor, *, extension: bool
) -> list[WireBytes]:
    more = (_DEFLATE_LINE,) if extension else ()
    shaken = WireBytes(
        len(socket_head(session.turns[0].head, host, more)),
        len(b"HTTP/1.1 101 Switching Protocols\r\n" + _rendered((*_ACCEPTED_LINES, *more))),
    )
    carried: list[WireBytes] = []
    for turn in session.turns:
        asked = frame_bytes(len(up(turn.body)), masked=True)
        said = turn.reply.messages if session.streamed else (turn.reply.whole,)
        carried.append(WireBytes(asked, sum(frame_bytes(len(down(message)), masked=False) for message in said)))
    carried[0] = WireBytes(carried[0].up_bytes + shaken.up_bytes, carried[0].down_bytes + shaken.down_bytes)
    return carried


def frame_bytes(size: int, *, masked: bool) -> int:
    """Return the size of a WebSocket frame with a payload of `size` bytes (RFC 6455, 5.2)."""
    if size < 126:  # noqa: PLR2004 - the three forms of a length
        head = 2
    elif size < 0x10000:  # noqa: PLR2004 - as above
        head = 4
    else:
        head = 10
    return head + (_MASK_BYTES if masked else 0) + size


# --- compression -----------------------------------------------------------------------------------------------------


def _whole(baseline: Baseline) -> Compressor:
    packers: Mapping[str, Compressor] = {
        "gzip": lambda data: zlib.compress(data, _GZIP_LEVEL, 31),
        "zstd": lambda data: zstd.compress(data, LEVEL),
    }
    return packers.get(baseline, _as_it_is)


def _stream(baseline: Baseline) -> Compressor:
    if baseline == "gzip":
        gzip = zlib.compressobj(_GZIP_LEVEL, wbits=31)
        return lambda data: gzip.compress(data) + gzip.flush(zlib.Z_SYNC_FLUSH)
    if baseline == "zstd":
        packer = zstd.ZstdCompressor(LEVEL)
        return lambda data: packer.compress(data, mode=packer.FLUSH_BLOCK)
    return _as_it_is


def _deflate() -> Compressor:
    packer = zlib.compressobj(_GZIP_LEVEL, wbits=-15)

    def pack(data: bytes) -> bytes:
        return (packer.compress(data) + packer.flush(zlib.Z_SYNC_FLUSH))[:-_TAIL_BYTES]

    return pack


def _as_it_is(data: bytes) -> bytes:
    return data
