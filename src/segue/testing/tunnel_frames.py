"""A second reader of the tunnel's packets, for `tunnel_checker`. It is written from docs/spec/tunnel.md alone.

It shares no code with `segue.tunnel`: an error in one of the two shows as a difference. It is stricter than an end of
the tunnel must be. Not here: what frames mean, and heads (`tunnel_heads`).
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from itertools import pairwise
from typing import Final, Literal, TypeAlias

import msgspec

FrameName: TypeAlias = Literal[
    "HELLO",
    "WELCOME",
    "OPEN",
    "REPLY",
    "DATA",
    "ACK",
    "PING",
    "PONG",
    "WINDOW",
    "MISS",
    "RESET",
    "GOAWAY",
    "TAKEN",
    "EXTENSION",
]

#: The id and the value of a parameter of HELLO or WELCOME.
WireParameter: TypeAlias = tuple[int, bytes]

_MAX_PACKET_BYTES: Final = 16_384
_CHECKSUM_BYTES: Final = 4
_MAX_NUMBER: Final = 2**62 - 1
_MAX_LISTED: Final = 4096
_MAX_PARAMETERS: Final = 64
_EXTENSIONS: Final = range(64, 128)
_MAX_EPOCH_BYTES: Final = 64
_MAX_TEXT_BYTES: Final = 1024
_CODES: Final = 5
_MORE: Final = 0x80
_NAMES_REPLY: Final = 4


class WireFault(Exception):
    """Something on the wire is not as the specification says."""


class Listed(msgspec.Struct, frozen=True):
    """An exchange in HELLO or WELCOME. `flags` is 0 in WELCOME."""

    exchange: int
    flags: int
    offset: int


class WireFrame(msgspec.Struct, frozen=True):
    """A frame. `value` is its second number: the last number, offset, total, token, limit, code, or how far back."""

    name: FrameName
    exchange: int = 0
    flags: int = 0
    value: int = 0
    data: bytes = b""
    listed: tuple[Listed, ...] = ()
    parameters: tuple[WireParameter, ...] = ()
    version: int = 0


def read_wire_packet(packet: bytes) -> list[WireFrame]:
    """Return the frames of a packet.

    Raises:
        WireFault: it is a bad one.
    """
    if len(packet) > _MAX_PACKET_BYTES:
        raise WireFault(f"a packet of {len(packet)} bytes")
    content, checksum = packet[:-_CHECKSUM_BYTES], packet[-_CHECKSUM_BYTES:]
    if not content or zlib.crc32(content).to_bytes(_CHECKSUM_BYTES, "big") != checksum:
        raise WireFault("a packet without frames or with another checksum")
    reader = _ContentReader(content)
    frames: list[WireFrame] = []
    while reader.at < len(content):
        kind = reader.byte()
        if kind not in _FRAMES and kind not in _EXTENSIONS:
            raise WireFault(f"a frame of type {kind}")
        frames.append(_FRAMES.get(kind, _ContentReader.extension)(reader))
    return frames


def read_number(data: bytes, at: int) -> tuple[int, int]:
    """Return the number at a place, and the place behind it.

    Raises:
        WireFault: it is cut, too large, or not in its shortest form.
    """
    number = shift = 0
    while True:
        if at >= len(data):
            raise WireFault("a number is cut")
        byte = data[at]
        at += 1
        number |= (byte & ~_MORE) << shift
        if byte < _MORE:
            break
        shift += 7
    if number > _MAX_NUMBER or (shift and not byte):
        raise WireFault("a number is too large, or not in its shortest form")
    return number, at


class _ContentReader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self.at = 0

    def byte(self) -> int:
        if self.at >= len(self._data):
            raise WireFault("a frame is cut")
        self.at += 1
        return self._data[self.at - 1]

    def number(self) -> int:
        number, self.at = read_number(self._data, self.at)
        return number

    def flags(self, known: int) -> int:
        flags = self.byte()
        if flags & ~known:
            raise WireFault(f"flags {flags:#04x}")
        return flags

    def bytes(self, limit: int = _MAX_PACKET_BYTES) -> bytes:
        size = self.number()
        if size > limit or self.at + size > len(self._data):
            raise WireFault("bytes are cut, or too many")
        self.at += size
        return self._data[self.at - size : self.at]

    def code(self) -> int:
        code = self.byte()
        if code >= _CODES:
            raise WireFault(f"a RESET with code {code}")
        return code

    def listed(self, known_flags: int | None) -> tuple[Listed, ...]:
        count = self.number()
        if count > _MAX_LISTED:
            raise WireFault(f"a list of {count}")
        listed = tuple(
            Listed(self.number(), 0 if known_flags is None else self.flags(known_flags), self.number())
            for _ in range(count)
        )
        _check_rising([one.exchange for one in listed])
        return listed

    def parameters(self) -> tuple[WireParameter, ...]:
        count = self.number()
        if count > _MAX_PARAMETERS:
            raise WireFault(f"{count} parameters")
        parameters = tuple((self.number(), self.bytes(_MAX_TEXT_BYTES)) for _ in range(count))
        _check_rising([one for one, _ in parameters])
        return parameters

    def extension(self) -> WireFrame:
        return WireFrame("EXTENSION", data=self.bytes())

    def open(self) -> WireFrame:
        exchange, flags, piece = self.number(), self.flags(7), self.bytes()
        back = self.number() if flags & _NAMES_REPLY else 0
        if flags & _NAMES_REPLY and not 0 < back < exchange:
            raise WireFault("OPEN names an exchange that cannot be")
        return WireFrame("OPEN", exchange=exchange, flags=flags, value=back, data=piece)

    def ack(self) -> WireFrame:
        total = self.number()
        self.number()  # the delay
        return WireFrame("ACK", value=total)

    def welcome(self) -> WireFrame:
        version, epoch, last_opened = self.number(), self.bytes(_MAX_EPOCH_BYTES), self.number()
        self.number()  # the largest body
        self.bytes(_MAX_TEXT_BYTES)  # the address
        return WireFrame(
            "WELCOME",
            version=version,
            data=epoch,
            value=last_opened,
            listed=self.listed(None),
            parameters=self.parameters(),
        )


def _check_rising(numbers: list[int]) -> None:
    if any(one >= other for one, other in pairwise(numbers)):
        raise WireFault("a list has a number twice, or is not in the order of its numbers")


_FRAMES: dict[int, Callable[[_ContentReader], WireFrame]] = {
    1: lambda read: WireFrame(
        "HELLO",
        version=read.number(),
        data=read.bytes(_MAX_EPOCH_BYTES),
        value=read.number(),
        listed=read.listed(known_flags=3),
        parameters=read.parameters(),
    ),
    2: _ContentReader.welcome,
    3: _ContentReader.open,
    4: lambda read: WireFrame("REPLY", exchange=read.number(), flags=read.flags(3), data=read.bytes()),
    5: lambda read: WireFrame(
        "DATA", exchange=read.number(), flags=read.flags(3), value=read.number(), data=read.bytes()
    ),
    6: _ContentReader.ack,
    7: lambda read: WireFrame("PING", value=read.number()),
    8: lambda read: WireFrame("PONG", value=read.number()),
    9: lambda read: WireFrame("WINDOW", exchange=read.number(), value=read.number()),
    10: lambda read: WireFrame("MISS", exchange=read.number(), value=read.number()),
    11: lambda read: WireFrame("RESET", exchange=read.number(), value=read.code(), data=read.bytes(_MAX_TEXT_BYTES)),
    12: lambda _: WireFrame("GOAWAY"),
    13: lambda read: WireFrame("TAKEN", exchange=read.number(), value=read.number()),
}
