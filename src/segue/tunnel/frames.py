"""Frames of the tunnel, and packets: the content of one binary WebSocket message.

A packet is one or more frames and their CRC-32, so that a corrupted byte ends the link before either end acts on it.
docs/spec/tunnel.md is the reference. Reading never raises: bytes that are no packet come back as `BadPacket`. Not here:
what a frame means (`endpoint`, `client`, `server`).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from types import MappingProxyType
from typing import Literal, TypeAlias

import msgspec

from segue.http.varints import encode_varint, read_varint

#: The version of the protocol in docs/spec/tunnel.md, and the number in the WebSocket subprotocol.
VERSION = 1
SUBPROTOCOL = f"segue-tunnel-{VERSION}"

#: No packet is larger, so that a heartbeat never queues behind more than this.
MAX_PACKET_BYTES = 16 * 1024
#: The most bytes that a frame adds to its payload: type, flags, three numbers. A packet's own ACK, PONG and checksum
#: together need no more, so the same number is set aside for them.
OVERHEAD_BYTES = 40

_CRC = struct.Struct("!I")

#: The types of frames that an end skips if it does not know them.
EXTENSIONS = range(64, 128)

#: Why an exchange is cut short, and the number of each reason.
ResetCode = Literal["cancelled", "aborted", "not_forwarded", "refused", "failed"]
RESET_CODES: tuple[ResetCode, ...] = ("cancelled", "aborted", "not_forwarded", "refused", "failed")
_MAX_TEXT_BYTES = 1024
_MAX_LISTED = 4096
_MAX_PARAMETERS = 64


class Parameter(msgspec.Struct, frozen=True):
    """What an end tells about itself when a link begins; the other end ignores an id that it does not know."""

    id: int
    value: bytes


class ExchangeResume(msgspec.Struct, frozen=True):
    """An exchange that the sidecar resumes: how much of its reply has arrived, and which upload it is making."""

    exchange: int
    reply_offset: int
    has_head: bool
    again: bool


class ExchangeResumed(msgspec.Struct, frozen=True):
    """An exchange that the gateway resumes: how much of its upload has arrived."""

    exchange: int
    upload_offset: int


class Hello(msgspec.Struct, frozen=True):
    """First frame of the sidecar: the epoch of the node it expects (empty: none yet), and the exchanges to resume.

    `last_number` is the highest number that it has ever given to an exchange. Parameters stand in the order of ids.
    """

    version: int
    epoch: bytes
    last_number: int
    resumes: tuple[ExchangeResume, ...]
    parameters: tuple[Parameter, ...] = ()


class Welcome(msgspec.Struct, frozen=True):
    """First frame of the gateway.

    `last_opened` is the highest exchange that may ever have been opened here in this session: a gateway that holds
    nothing of it begins with the `last_number` of the first HELLO it gets.
    """

    version: int
    epoch: bytes
    last_opened: int
    max_body_bytes: int
    address: bytes
    resumed: tuple[ExchangeResumed, ...]
    parameters: tuple[Parameter, ...] = ()


class Open(msgspec.Struct, frozen=True):
    """A piece of a request's head; the last piece opens the exchange. `has_body`: a document follows as DATA.

    `reply_base`: the reply may build on that of the exchange with a number lower by this; 0: on none.
    """

    exchange: int
    last: bool
    has_body: bool
    piece: bytes
    reply_base: int = 0


class ReplyFrame(msgspec.Struct, frozen=True):
    """A piece of a response's head. `has_base`: its body builds on the reply that OPEN named."""

    exchange: int
    last: bool
    piece: bytes
    has_base: bool = False


class Data(msgspec.Struct, frozen=True):
    """Bytes of one direction of an exchange, and their offset; `again`: they belong to the upload made after a MISS."""

    exchange: int
    offset: int
    final: bool
    again: bool
    payload: bytes


class Ack(msgspec.Struct, frozen=True):
    """The first `total` bytes of packets on this link have arrived, the last of them `delay_ms` ago."""

    total: int
    delay_ms: int


class Ping(msgspec.Struct, frozen=True):
    """Asks for a PONG with the same number."""

    token: int


class Pong(msgspec.Struct, frozen=True):
    """Answers a PING."""

    token: int


class Window(msgspec.Struct, frozen=True):
    """The peer may send DATA up to this offset."""

    exchange: int
    limit: int


class Miss(msgspec.Struct, frozen=True):
    """The gateway lacks the base of a document, or the body has another digest: send it again without a base.

    `answer`: the number of this answer in the exchange; that of an HTTP request is 1.
    """

    exchange: int
    answer: int


class Taken(msgspec.Struct, frozen=True):
    """The gateway has rebuilt a message of a WebSocket whose document named a base. `answer`: as in MISS."""

    exchange: int
    answer: int


class Reset(msgspec.Struct, frozen=True):
    """The exchange is cut short, and why."""

    exchange: int
    code: ResetCode
    message: bytes


class GoAway(msgspec.Struct, frozen=True):
    """The node drains: exchanges that run go on here; the sidecar opens new ones at another node."""


class ExtensionFrame(msgspec.Struct, frozen=True):
    """A frame of a type that an extension of the protocol has, and that this end does not know: it is skipped."""

    type: int
    payload: bytes


Frame: TypeAlias = (
    Hello
    | Welcome
    | Open
    | ReplyFrame
    | Data
    | Ack
    | Ping
    | Pong
    | Window
    | Miss
    | Taken
    | Reset
    | GoAway
    | ExtensionFrame
)  # fmt: skip - one closed set


class BadPacket(msgspec.Struct, frozen=True):
    """The message is no packet; the link cannot go on."""

    reason: str


# -------------------------------------------------------------------------------------------------------------- writing

_HELLO, _WELCOME, _OPEN, _REPLY, _DATA, _ACK, _PING, _PONG, _WINDOW, _MISS, _RESET, _GO_AWAY, _TAKEN = range(1, 14)

#: The most frequent frames, and how many numbers each begins with.
_FREQUENT = {_DATA: 4, _REPLY: 3, _ACK: 2}

#: The least first byte of a varint that has more.
_LONG_VARINT = 0x80

_LAST = 1
_HAS_BODY = 2
_NAMES_REPLY = 4
_BUILDS_ON_IT = 2
_FINAL = 1
_AGAIN = 2
_HAS_HEAD = 1


def encode_frame(frame: Frame) -> bytes:  # noqa: PLR0911 - one arm for each kind of a closed set
    """Encode one frame. The most frequent kinds come first: each arm that does not match costs time."""
    match frame:
        case Data(exchange, offset, final, again, payload):
            return encode_data(exchange, offset, payload, final=final, again=again)
        case Ack(total, delay_ms):
            return encode_ack(total, delay_ms)
        case Window(exchange, limit):
            return bytes([_WINDOW]) + encode_varint(exchange) + encode_varint(limit)
        case Open() | ReplyFrame():
            return _encode_head_piece(frame)
        case Reset(exchange, code, message):
            number = bytes([RESET_CODES.index(code)])
            return bytes([_RESET]) + encode_varint(exchange) + number + _text(message[:_MAX_TEXT_BYTES])
        case Ping() | Pong() | Miss() | Taken():
            return bytes([_NUMBERED[type(frame)]]) + b"".join(map(encode_varint, msgspec.structs.astuple(frame)))
        case Hello() | Welcome():
            return _encode_first(frame)
        case GoAway():
            return bytes([_GO_AWAY])
        case ExtensionFrame(kind, payload):
            return bytes([kind]) + _text(payload)


def encode_data(exchange: int, offset: int, payload: bytes, *, final: bool, again: bool) -> bytes:
    """Encode a DATA."""
    flags, number = _FINAL * final | _AGAIN * again, encode_varint(exchange)
    return b"%c%b%c%b%b%b" % (_DATA, number, flags, encode_varint(offset), encode_varint(len(payload)), payload)


def encode_ack(total: int, delay_ms: int) -> bytes:
    """Encode an ACK."""
    return b"%c%b%b" % (_ACK, encode_varint(total), encode_varint(delay_ms))


_NUMBERED: Mapping[type, int] = MappingProxyType({Ping: _PING, Pong: _PONG, Miss: _MISS, Taken: _TAKEN})


def encode_packet(frames: Sequence[bytes]) -> bytes:
    """Put encoded frames into one packet."""
    content = b"".join(frames)
    return content + _CRC.pack(zlib.crc32(content))


def pieces(blob: bytes, limit: int = MAX_PACKET_BYTES - 2 * OVERHEAD_BYTES) -> list[bytes]:
    """Cut an encoded head into pieces, one for each frame."""
    if len(blob) <= limit:
        return [blob]
    return [blob[at : at + limit] for at in range(0, len(blob), limit)]


def _encode_first(frame: Hello | Welcome) -> bytes:
    if isinstance(frame, Hello):
        return b"".join(
            (
                bytes([_HELLO]),
                encode_varint(frame.version),
                _text(frame.epoch),
                encode_varint(frame.last_number),
                encode_varint(len(frame.resumes)),
                *map(_encode_resume, frame.resumes),
                _encode_parameters(frame.parameters),
            )
        )
    resumed = (encode_varint(one.exchange) + encode_varint(one.upload_offset) for one in frame.resumed)
    return b"".join(
        (
            bytes([_WELCOME]),
            encode_varint(frame.version),
            _text(frame.epoch),
            encode_varint(frame.last_opened),
            encode_varint(frame.max_body_bytes),
            _text(frame.address),
            encode_varint(len(frame.resumed)),
            *resumed,
            _encode_parameters(frame.parameters),
        )
    )


def _encode_parameters(parameters: Sequence[Parameter]) -> bytes:
    return encode_varint(len(parameters)) + b"".join(encode_varint(one.id) + _text(one.value) for one in parameters)


def _encode_resume(resume: ExchangeResume) -> bytes:
    flags = _HAS_HEAD * resume.has_head | _AGAIN * resume.again
    return encode_varint(resume.exchange) + bytes([flags]) + encode_varint(resume.reply_offset)


def _encode_head_piece(frame: Open | ReplyFrame) -> bytes:
    named = b""
    if isinstance(frame, Open):
        kind, flags = _OPEN, _LAST * frame.last | _HAS_BODY * frame.has_body | _NAMES_REPLY * bool(frame.reply_base)
        named = encode_varint(frame.reply_base) if frame.reply_base else b""
    else:
        kind, flags = _REPLY, _LAST * frame.last | _BUILDS_ON_IT * frame.has_base
    exchange, size = encode_varint(frame.exchange), encode_varint(len(frame.piece))
    return b"%c%b%c%b%b%b" % (kind, exchange, flags, size, frame.piece, named)


def _text(data: bytes) -> bytes:
    return encode_varint(len(data)) + data


# -------------------------------------------------------------------------------------------------------------- reading


def read_packet(packet: bytes) -> list[Frame] | BadPacket:
    """Read all frames of a packet, or none of them."""
    if len(packet) > MAX_PACKET_BYTES:
        return BadPacket(f"a packet of {len(packet)} bytes is larger than {MAX_PACKET_BYTES}")
    content = packet[: -_CRC.size]
    if len(packet) <= _CRC.size or _CRC.pack(zlib.crc32(content)) != packet[-_CRC.size :]:
        return BadPacket("the checksum of a packet is wrong")
    frames: list[Frame] = []
    at, end = 0, len(content)
    while at < end:
        frequent = _read_frequent(content, at) if content[at] in _FREQUENT else None
        if frequent is None:
            return _read_others(content, at, frames)
        frame, at = frequent
        frames.append(frame)
    return frames


def _read_frequent(data: bytes, at: int) -> tuple[Frame, int] | None:
    """Read a DATA, REPLY or ACK in one call, since replies wait for it; None: see what is wrong with it."""
    kind, end = data[at], len(data)
    numbers: list[int] = []
    at += 1
    for _ in range(_FREQUENT[kind]):  # the flags among them are a number of one byte, or wrong
        if at < end and data[at] < _LONG_VARINT:
            numbers.append(data[at])
            at += 1
        elif (read := read_varint(data, at)) is not None:
            numbers.append(read[0])
            at = read[1]
        else:
            return None
    if kind == _ACK:
        return Ack(numbers[0], numbers[1]), at
    exchange, flags, size = numbers[0], numbers[1], numbers[-1]
    if flags & ~(_LAST | _BUILDS_ON_IT) or size > end - at:  # the same bits as those of DATA
        return None
    payload, at = data[at : at + size], at + size
    if kind == _DATA:
        return Data(exchange, numbers[2], bool(flags & _FINAL), bool(flags & _AGAIN), payload), at
    return ReplyFrame(exchange, bool(flags & _LAST), payload, bool(flags & _BUILDS_ON_IT)), at


def _read_others(content: bytes, at: int, frames: list[Frame]) -> list[Frame] | BadPacket:
    """Read the rest of a packet, whatever it holds."""
    reader = _FrameReader(content, at)
    try:
        while reader.at < len(content):
            frames.append(_read_frame(reader))
    except _Malformed as error:
        return BadPacket(str(error))
    return frames


class _Malformed(ValueError):
    """Raised while a frame is read; `read_packet` catches it."""


class _FrameReader:
    """A place in a packet."""

    def __init__(self, data: bytes, at: int) -> None:
        self._data = data
        self.at = at

    def number(self) -> int:
        at, data = self.at, self._data
        if at < len(data) and data[at] < 0x80:  # noqa: PLR2004 - a varint of one byte, as most are
            self.at = at + 1
            return data[at]
        read = read_varint(self._data, self.at)
        if read is None:
            raise _Malformed("a number in a frame is cut off or too large")
        number, self.at = read
        return number

    def byte(self) -> int:
        if self.at >= len(self._data):
            raise _Malformed("a frame is cut off")
        self.at += 1
        return self._data[self.at - 1]

    def flags(self, allowed: int) -> int:
        flags = self.byte()
        if flags & ~allowed:
            raise _Malformed(f"a frame has unknown flags: {flags:#x}")
        return flags

    def bytes(self, limit: int = MAX_PACKET_BYTES) -> bytes:
        size = self.number()
        if size > limit or size > len(self._data) - self.at:
            raise _Malformed("a frame is cut off")
        self.at += size
        return self._data[self.at - size : self.at]

    def count(self, limit: int = _MAX_LISTED) -> int:
        count = self.number()
        if count > limit:
            raise _Malformed(f"a frame lists {count} exchanges or parameters")
        return count


def _read_hello(read: _FrameReader) -> Hello:
    version, epoch, last_number = read.number(), read.bytes(limit=64), read.number()
    resumes = tuple(_read_resume(read) for _ in range(read.count()))
    _check_order([one.exchange for one in resumes], "exchange")
    return Hello(version, epoch, last_number, resumes, _read_parameters(read))


def _read_parameters(read: _FrameReader) -> tuple[Parameter, ...]:
    count = read.count(_MAX_PARAMETERS)
    parameters = tuple(Parameter(read.number(), read.bytes(limit=_MAX_TEXT_BYTES)) for _ in range(count))
    _check_order([one.id for one in parameters], "parameter")
    return parameters


def _check_order(numbers: Sequence[int], what: str) -> None:
    if any(first >= second for first, second in pairwise(numbers)):
        raise _Malformed(f"a frame lists one {what} twice, or out of order")


def _read_resume(read: _FrameReader) -> ExchangeResume:
    exchange, flags = read.number(), read.flags(_HAS_HEAD | _AGAIN)
    return ExchangeResume(exchange, read.number(), bool(flags & _HAS_HEAD), bool(flags & _AGAIN))


def _read_welcome(read: _FrameReader) -> Welcome:
    version, epoch = read.number(), read.bytes(limit=64)
    last_opened, max_body_bytes, address = read.number(), read.number(), read.bytes(limit=_MAX_TEXT_BYTES)
    resumed = tuple(ExchangeResumed(read.number(), read.number()) for _ in range(read.count()))
    _check_order([one.exchange for one in resumed], "exchange")
    return Welcome(version, epoch, last_opened, max_body_bytes, address, resumed, _read_parameters(read))


def _read_open(read: _FrameReader) -> Open:
    exchange, flags = read.number(), read.flags(_LAST | _HAS_BODY | _NAMES_REPLY)
    piece, reply_base = read.bytes(), read.number() if flags & _NAMES_REPLY else 0
    if flags & _NAMES_REPLY and not 0 < reply_base < exchange:
        raise _Malformed("an OPEN names the reply of an exchange that cannot be")
    return Open(exchange, bool(flags & _LAST), bool(flags & _HAS_BODY), piece, reply_base)


def _read_reply(read: _FrameReader) -> ReplyFrame:
    exchange, flags = read.number(), read.flags(_LAST | _BUILDS_ON_IT)
    return ReplyFrame(exchange, bool(flags & _LAST), read.bytes(), bool(flags & _BUILDS_ON_IT))


def _read_data(read: _FrameReader) -> Data:
    exchange, flags = read.number(), read.flags(_FINAL | _AGAIN)
    return Data(exchange, read.number(), bool(flags & _FINAL), bool(flags & _AGAIN), read.bytes())


def _read_reset(read: _FrameReader) -> Reset:
    exchange, code = read.number(), read.byte()
    if code >= len(RESET_CODES):
        raise _Malformed(f"a RESET has the unknown code {code}")
    return Reset(exchange, RESET_CODES[code], read.bytes(limit=_MAX_TEXT_BYTES))


_READERS: dict[int, Callable[[_FrameReader], Frame]] = {
    _HELLO: _read_hello,
    _WELCOME: _read_welcome,
    _OPEN: _read_open,
    _REPLY: _read_reply,
    _DATA: _read_data,
    _ACK: lambda read: Ack(read.number(), read.number()),
    _PING: lambda read: Ping(read.number()),
    _PONG: lambda read: Pong(read.number()),
    _WINDOW: lambda read: Window(read.number(), read.number()),
    _MISS: lambda read: Miss(read.number(), read.number()),
    _RESET: _read_reset,
    _GO_AWAY: lambda _: GoAway(),
    _TAKEN: lambda read: Taken(read.number(), read.number()),
}


def _read_frame(read: _FrameReader) -> Frame:
    kind = read.byte()
    reader = _READERS.get(kind)
    if reader is not None:
        return reader(read)
    if kind in EXTENSIONS:
        return ExtensionFrame(kind, read.bytes())
    raise _Malformed(f"a frame has the unknown type {kind}")
