"""A second decoder of the tunnel's heads, for `tunnel_checker`. It is written from docs/spec/tunnel.md alone.

It also holds the encoder to its part: a line that the table has is sent as its slot, and no line of the hop is sent.
Not here: frames (`tunnel_frames`), and the preset lines, which it is given.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

import msgspec

from segue.testing.tunnel_frames import WireFault, read_number

_MAX_LINES: Final = 256
_MAX_BYTES: Final = 65_536
_MAX_LINE_BYTES: Final = 4096
_MAX_HEAD_BYTES: Final = 65_536
_MAX_HEAD_LINES: Final = 1024

_ADDED, _ONCE, _NAMED, _REPEATED, _FIRST_SLOT = range(5)

#: RFC 9110, 7.6.1, as docs/spec/tunnel.md lists them; Content-Length is judged with its reply.
_OF_THE_HOP: Final = frozenset(
    b"host connection keep-alive transfer-encoding te trailer upgrade expect proxy-connection proxy-authenticate "
    b"proxy-authorization proxy-authentication-info".split()
)
_OF_A_HANDSHAKE: Final = frozenset(
    b"sec-websocket-key sec-websocket-version sec-websocket-accept sec-websocket-extensions".split()
)


class WireHead(msgspec.Struct, frozen=True):
    """A decoded head: its first line, and names in lower case with their values."""

    first: bytes
    lines: tuple[tuple[bytes, bytes], ...]

    def has(self, name: bytes) -> bool:
        """Tell whether a line has this name, in lower case."""
        return any(name == one for one, _ in self.lines)


class HeadDecoder:
    """The table of one direction of one link."""

    def __init__(self, preset: Sequence[bytes]) -> None:
        self._slots: OrderedDict[int, bytes] = OrderedDict()
        self._before: list[bytes] = []
        for line in preset:
            self._add(line)

    def decode(self, data: bytes, at: int, *, is_websocket: bool) -> WireHead:
        """Return a head.

        Raises:
            WireFault: it is none, or not encoded as the specification says.
        """
        lines: list[bytes] = []
        while at < len(data):
            some, at = self._entry(data, at, len(lines))
            lines += some
        self._before = lines
        if not lines or len(lines) > _MAX_HEAD_LINES + 1 or sum(map(len, lines)) > _MAX_HEAD_BYTES + 2 * len(lines):
            raise WireFault("a head without a line, or with too many")
        return WireHead(lines[0], tuple(_split(line, is_websocket=is_websocket) for line in lines[1:]))

    def _entry(self, data: bytes, at: int, place: int) -> tuple[Sequence[bytes], int]:
        form, at = read_number(data, at)
        if form >= _FIRST_SLOT:
            self._slots.move_to_end(self._known(form - _FIRST_SLOT))
            return [self._slots[form - _FIRST_SLOT]], at
        if form == _REPEATED:
            return self._repeat(data, at, place)
        name = b""
        if form == _NAMED:
            slot, at = read_number(data, at)
            named, colon, _ = self._slots[self._known(slot)].partition(b":")
            name = named + colon
            if not colon:
                raise WireFault("the name of a line that has none")
        size, at = read_number(data, at)
        line = name + data[at : at + size]
        if at + size > len(data):
            raise WireFault("a line is cut")
        if line in self._slots.values():
            raise WireFault("a line is sent although the table has it")
        if form == _ONCE and len(line) <= _MAX_LINE_BYTES:
            raise WireFault("a line that fits into the table is not added to it")
        if form != _ONCE:
            self._add(line)
        return [line], at + size

    def _repeat(self, data: bytes, at: int, place: int) -> tuple[Sequence[bytes], int]:
        count, at = read_number(data, at)
        some = self._before[place : place + count]
        if count < 2 or len(some) != count:  # noqa: PLR2004 - the encoder uses it for two lines or more
            raise WireFault("a repetition of one line, or of lines that were not there")
        by_line = {line: slot for slot, line in self._slots.items()}
        for line in some:
            if line in by_line:
                self._slots.move_to_end(by_line[line])
        return some, at

    def _known(self, slot: int) -> int:
        if slot not in self._slots:
            raise WireFault(f"slot {slot} is empty")
        return slot

    def _add(self, line: bytes) -> None:
        if len(line) > _MAX_LINE_BYTES or line in self._slots.values():
            return
        while len(self._slots) == _MAX_LINES or sum(map(len, self._slots.values())) + len(line) > _MAX_BYTES:
            self._slots.popitem(last=False)
        self._slots[min(set(range(_MAX_LINES)) - self._slots.keys())] = line


def _split(line: bytes, *, is_websocket: bool) -> tuple[bytes, bytes]:
    name, colon, value = line.partition(b":")
    lowered = name.lower()
    if not colon or value != value.strip(b" \t"):
        raise WireFault("a line without a colon, or with white space around its value")
    if lowered in _OF_THE_HOP or (is_websocket and lowered in _OF_A_HANDSHAKE):
        raise WireFault(f"a line of the hop: {lowered.decode('latin-1')}")
    return lowered, value
