"""Server-sent events: a reader that takes chunks cut anywhere, and a writer.

The reader follows the event stream format of the HTML standard (section 9.2) as far as model servers use it: `event`
and `data` fields, comments, LF, CRLF or CR line ends in any mix, a byte order mark at the start. It skips `id` and
`retry`, and drops an event that the end of the stream cuts off, as the standard says. Not here: what the data means,
and the reader of the tunnel's folds (`segue.tunnel.folds.sse`), which goes on after an event that is too large.
"""

from __future__ import annotations

import re

import msgspec

from segue.http.blocks import Pieces

#: The largest event of a provider is the terminal one of a Responses server, which repeats the whole output.
MAX_EVENT_BYTES = 64 * 1024 * 1024

_LINE_END = re.compile(rb"\r\n|\n|\r")

#: As numbers: to look for one is many times as fast as to look for `b"\n"`, and every event is searched.
LF, CR = b"\n\r"


class SseEvent(msgspec.Struct, frozen=True, gc=False):
    """One event: its `event` field (empty if there was none) and its data, lines joined by LF."""

    type: str
    data: bytes


class SseReader:
    """Splits a byte stream into events. When an event is too large, `overflowed` is set: stop reading then."""

    def __init__(self, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._max = max_event_bytes
        self._rest: list[bytes] = []  # of a line that has not ended
        self._rest_size = 0
        self._size = 0  # of the event so far, without the rest
        self._type = ""
        self._data: list[bytes] = []
        self._after_cr = False  # an LF that comes next belongs to the CR before it
        self._begun = False
        self.overflowed = False

    def feed(self, chunk: bytes) -> list[SseEvent]:
        """Return the events that `chunk` completes. O(chunk), whatever was kept from before."""
        # A stream has a line for every few characters of its answer, so the lines that servers write are read here.
        if not chunk or self.overflowed:
            return []
        events: list[SseEvent] = []
        for line in self._split(chunk):
            if not line:
                if self._data:
                    events.append(SseEvent(self._type, b"\n".join(self._data)))
                    self._data.clear()
                self._type, self._size = "", 0
                continue
            self._size += len(line)
            if self._size > self._max:
                self.overflowed = True
                return events
            if line.startswith(b"data: "):
                self._data.append(line[6:])
            elif line.startswith(b"event: "):
                self._type = line[7:].decode("utf-8", "replace")
            else:
                self._take(line)
        self.overflowed = self._size + self._rest_size > self._max
        return events

    def _split(self, chunk: bytes) -> list[bytes]:
        """Return the lines that `chunk` completes, and keep what it begins."""
        if self._after_cr:
            chunk = chunk.removeprefix(b"\n")
        self._after_cr = chunk.endswith(b"\r")
        lines = _LINE_END.split(chunk) if CR in chunk else chunk.split(b"\n")
        rest = lines.pop()
        if lines and self._rest:
            lines[0] = b"".join((*self._rest, lines[0]))
            self._rest, self._rest_size = [], 0
        if lines and not self._begun:
            self._begun = True
            lines[0] = lines[0].removeprefix(b"\xef\xbb\xbf")
        if rest:
            self._rest.append(rest)
            self._rest_size += len(rest)
        return lines

    def _take(self, line: bytes) -> None:
        """Take a line that has no space after its colon, or no colon, or another field than the usual ones."""
        name, _, value = line.partition(b":")
        if name == b"data":
            self._data.append(value)
        elif name == b"event":
            self._type = value.decode("utf-8", "replace")


def write_event(kind: str, data: bytes) -> bytes:
    """Write one event whose data is JSON, or one line; `kind` may be empty, for APIs whose events have no name."""
    if LF in data:  # between two values of the JSON, where a space means the same: many clients read a line at a time
        data = data.replace(b"\n", b" ")
    head = b"event: %b\n" % kind.encode() if kind else b""
    return b"%bdata: %b\n\n" % (head, data)


def event_pieces(kind: str, data: Pieces) -> Pieces:
    """Write one event without copying its data, which is one line, as in `write_event`."""
    return (b"event: %bdata: " % (kind.encode() + b"\n") if kind else b"data: ", *data, b"\n\n")
