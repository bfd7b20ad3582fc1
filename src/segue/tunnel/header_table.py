"""Header compression, as in HPACK: a header line that both ends have seen on this connection is sent as a reference.

Each direction of a connection has a dynamic table of its own, which lives as long as the connection. Lines are never
compressed, so that no secret in one can be guessed from a length, and they never leave memory. Not here: which lines
travel (`segue.http.heads`), the lines that a table starts with (`static_table`), and frames (`frames`).
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Final

from segue.http.heads import ExchangeKind, Line, ReplyHead, RequestHead
from segue.http.varints import encode_varint, read_varint

#: Bounds of a table; a line that is longer than `MAX_LINE_BYTES` is sent literally every time.
MAX_LINES = 256
MAX_BYTES = 64 * 1024
MAX_LINE_BYTES = 4096
#: Bounds of a head (`fits`). A decoder accepts twice the size, so that the two ends need not count framing alike.
MAX_HEAD_BYTES = 64 * 1024
MAX_HEAD_LINES = 1024

# The first number of an entry; numbers from _FIRST_SLOT on are slots of the table.
_LITERAL = 0
_ONCE = 1
_VALUE = 2
_REPEAT = 3
_FIRST_SLOT = 4
_LITERAL_BYTE, _ONCE_BYTE, _VALUE_BYTE, _REPEAT_BYTE = (bytes((form,)) for form in range(_FIRST_SLOT))
#: A reference to each slot, and the least byte with which a varint goes on.
_SLOTS = tuple(encode_varint(slot + _FIRST_SLOT) for slot in range(MAX_LINES))
_LONG_VARINT = 0x80
#: A single line is shorter as a reference to its slot.
_LEAST_REPEATED = 2

#: A line of a head; as a method, it needs no function for each line.
_LINE: Final = b"%b:%b"

#: The kinds of requests, by the byte in front of their lines.
KINDS: tuple[ExchangeKind, ...] = ("http", "websocket")


class HeaderTable:
    """Lines by slot, the least recently used evicted first. Both ends make the same steps, and so hold the same lines.

    It starts with `static_lines`, which both ends know, and remembers the lines of the latest head.
    """

    def __init__(self, static_lines: Iterable[bytes] = ()) -> None:
        self._by_line: OrderedDict[bytes, int] = OrderedDict()
        """The slot of each line that is held; the least recently used comes first."""
        self._lines: list[bytes | None] = []
        """The line in each slot."""
        self._by_name: dict[bytes, int] = {}
        self._free: list[int] = []
        self._size_bytes = 0
        self.latest: tuple[bytes, ...] = ()
        for line in static_lines:
            self.add(line)

    def find(self, line: bytes) -> int | None:
        """Return the slot that holds this line."""
        return self._by_line.get(line)

    def get(self, slot: int) -> bytes | None:
        """Return the line in a slot."""
        return self._lines[slot] if slot < len(self._lines) else None

    def encode(self, lines: Sequence[bytes]) -> bytes:
        """Encode the lines of a head; the receiver's table makes the same steps when it decodes them."""
        encoded: list[bytes] = []
        by_line, note_use, latest = self._by_line, self._by_line.move_to_end, self.latest
        at, end = 0, len(lines)
        same_end = min(end, len(latest))
        while at < end:
            same = at
            while same < same_end and lines[same] == latest[same]:
                same += 1
            if same - at >= _LEAST_REPEATED:
                encoded += (_REPEAT_BYTE, encode_varint(same - at))
                for line in lines[at:same]:
                    if line in by_line:
                        note_use(line)
                at = same
                continue
            line = lines[at]
            if line in by_line:
                note_use(line)
                encoded.append(_SLOTS[by_line[line]])
            else:
                encoded.append(self._encode_new(line))
            at += 1
        self.latest = tuple(lines)
        return b"".join(encoded)

    def decode(self, data: bytes, at: int = 0) -> list[bytes] | None:
        """Decode the lines of a head; None if it is none."""
        lines: list[bytes] = []
        size_bytes, end = 0, len(data)
        by_line, note_use = self._by_line, self._by_line.move_to_end
        while at < end:
            form = data[at]
            if _FIRST_SLOT <= form < _LONG_VARINT:
                held = self.get(form - _FIRST_SLOT)
                if held is None:
                    return None
                note_use(held)
                lines.append(held)
                size_bytes += len(held) + 2
                at += 1
            elif form == _REPEAT and at + 1 < end and 0 < data[at + 1] < _LONG_VARINT:
                count = data[at + 1]
                some = self.latest[len(lines) : len(lines) + count]
                if len(some) != count:
                    return None
                for line in some:
                    if line in by_line:
                        note_use(line)
                    size_bytes += len(line) + 2
                lines += some
                at += 2
            else:
                entry = self._decode_short(data, at) or self._decode_entry(data, at, len(lines))
                if entry is None:
                    return None
                others, at = entry
                size_bytes += sum(map(len, others)) + 2 * len(others)
                lines += others
            if len(lines) > MAX_HEAD_LINES + 1 or size_bytes > 2 * MAX_HEAD_BYTES:
                return None  # references expand, so what they expand to is bounded too
        self.latest = tuple(lines)
        return lines

    def add(self, line: bytes) -> None:
        """Add a line at the lowest free slot, if it is not too long."""
        if len(line) <= MAX_LINE_BYTES and line not in self._by_line:
            self._hold(line, _name(line))

    def use(self, lines: Iterable[bytes]) -> None:
        """Note that lines were used; skip those that are not in the table."""
        by_line = self._by_line
        for line in lines:
            if line in by_line:
                by_line.move_to_end(line)

    def _encode_new(self, line: bytes) -> bytes:
        """Encode a line that is not in the table."""
        size = len(line)
        if size > MAX_LINE_BYTES:
            return _ONCE_BYTE + encode_varint(size) + line
        begin = line.find(b":") + 1
        name = line[:begin] or line
        named = self._by_name.get(name) if begin else None
        self._hold(line, name)
        if named is None:
            return _LITERAL_BYTE + encode_varint(size) + line
        if named < _LONG_VARINT > size:  # in one step, since the first event of a reply waits for this
            return b"%c%c%c%b" % (_VALUE, named, size - begin, line[begin:])
        return _VALUE_BYTE + encode_varint(named) + encode_varint(size - begin) + line[begin:]

    def _hold(self, line: bytes, name: bytes) -> None:
        """Hold a line that is not in the table yet, and may be."""
        by_line, free, size = self._by_line, self._free, len(line)
        while len(by_line) >= MAX_LINES or self._size_bytes + size > MAX_BYTES:
            evicted, slot = by_line.popitem(last=False)
            old_name = evicted[: evicted.find(b":") + 1] or evicted
            if self._by_name.get(old_name) == slot:
                del self._by_name[old_name]
            self._lines[slot] = None
            heapq.heappush(free, slot)
            self._size_bytes -= len(evicted)
        if free:
            slot = heapq.heappop(free)
            self._lines[slot] = line
        else:
            slot = len(by_line)
            self._lines.append(line)
        by_line[line] = self._by_name[name] = slot
        self._size_bytes += size

    def _decode_short(self, data: bytes, at: int) -> tuple[Sequence[bytes], int] | None:
        """Read a short line with the name of another, as most lines are that are new; None: it is something else."""
        if len(data) < at + 4 or data[at] != _VALUE:
            return None
        slot, begin = data[at + 1], at + 3
        if slot >= _LONG_VARINT:  # a second byte follows; for all slots that there are it is the same
            begin += 1
            if data[at + 2] != slot >> 7:
                return None
        held, size = self.get(slot), data[begin - 1]
        end = begin + size
        if held is None or size >= _LONG_VARINT or end > len(data):
            return None
        name = held[: held.find(b":") + 1] or held
        line = name + data[begin:end]
        if len(line) <= MAX_LINE_BYTES and line not in self._by_line:
            self._hold(line, name)
        return (line,), end

    def _decode_entry(self, data: bytes, at: int, place: int) -> tuple[Sequence[bytes], int] | None:
        """Read an entry and repeat the sender's steps in the table; return its lines and the offset of the next."""
        read = read_varint(data, at)
        if read is None:
            return None
        form, at = read
        if form >= _FIRST_SLOT:
            held = self.get(form - _FIRST_SLOT)
            if held is None:
                return None
            self._by_line.move_to_end(held)
            return (held,), at
        if form != _REPEAT:
            return self._decode_line(data, at, form)
        read = read_varint(data, at)
        repeated = () if read is None else self.latest[place : place + min(read[0], MAX_HEAD_LINES + 1)]
        if read is None or not repeated or len(repeated) != read[0]:
            return None
        self.use(repeated)
        return repeated, read[1]

    def _decode_line(self, data: bytes, at: int, form: int) -> tuple[Sequence[bytes], int] | None:
        """Read a line that is not a reference."""
        name = b""
        if form == _VALUE:
            read = read_varint(data, at)
            named = None if read is None else self.get(read[0])
            if read is None or named is None:
                return None
            name, at = _name(named), read[1]
        read = read_varint(data, at)
        if read is None or read[0] > len(data) - read[1]:
            return None
        length, at = read
        line = name + data[at : at + length]
        if form != _ONCE:
            self.add(line)
        return (line,), at + length


def encode_request(head: RequestHead, kind: ExchangeKind, table: HeaderTable) -> bytes:
    """Encode a request's head against the sender's table."""
    first = head.method + b" " + head.target
    return bytes([KINDS.index(kind)]) + table.encode([first, *map(_LINE.__mod__, head.lines)])


def decode_request(data: bytes, table: HeaderTable) -> tuple[RequestHead, ExchangeKind] | None:
    """Decode a request's head against the receiver's table; None if it is not one."""
    if not data or data[0] >= len(KINDS):
        return None
    lines = table.decode(data, 1)
    if not lines:
        return None
    method, _, target = lines[0].partition(b" ")
    if not method or not target:
        return None
    split = _split(lines[1:])
    return None if split is None else (RequestHead(method, target, split), KINDS[data[0]])


def encode_reply(head: ReplyHead, table: HeaderTable) -> bytes:
    """Encode a response's head against the sender's table."""
    first = b"%d %b" % (head.status, head.reason)
    return table.encode([first, *map(_LINE.__mod__, head.lines)])


def decode_reply(data: bytes, table: HeaderTable) -> ReplyHead | None:
    """Decode a response's head against the receiver's table; None if it is not one."""
    lines = table.decode(data)
    if not lines:
        return None
    status, _, reason = lines[0].partition(b" ")
    if len(status) != 3 or not status.isdigit():  # noqa: PLR2004 - RFC 9112, 4: a status has three digits
        return None
    split = _split(lines[1:])
    return None if split is None else ReplyHead(int(status), reason, split)


def fits(head: RequestHead | ReplyHead) -> bool:
    """Tell whether a head may be sent: the other end takes its size and its number of lines."""
    size_bytes = len(head.method) + len(head.target) if isinstance(head, RequestHead) else len(head.reason)
    size_bytes += sum(map(len, chain.from_iterable(head.lines)))
    return size_bytes <= MAX_HEAD_BYTES and len(head.lines) <= MAX_HEAD_LINES


def _name(line: bytes) -> bytes:
    """Return the name of the field with its colon."""
    name, colon, _ = line.partition(b":")
    return name + colon


def _split(lines: Sequence[bytes]) -> tuple[Line, ...] | None:
    split: list[Line] = []
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon:
            return None
        split.append(tuple.__new__(Line, (name, value)))  # its own constructor is a call of Python for each line
    return tuple(split)
