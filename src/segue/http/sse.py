"""Server-sent events: a reader that takes chunks cut anywhere, and a writer.

The reader follows the event stream format of the HTML standard (section 9.2) as far as model servers use it: `event`
and `data` fields, comments, LF, CRLF or CR line ends in any mix, a byte order mark at the start. It skips `id` and
`retry`, and drops an event that the end of the stream cuts off, as the standard says. Not here: what the data means,
and the reader of the tunnel's folds (`segue.tunnel.folds.sse`), which goes on after an event that is too large.
"""

from __future__ import annotations

import re

import msgspec

#: The largest event of a provider is the terminal one of a Responses server, which repeats the whole output.
MAX_EVENT_BYTES = 64 * 1024 * 1024

_LINE_END = re.compile(rb"\r\n|\n|\r")


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
        if self._after_cr and chunk:
            self._after_cr = False
            chunk = chunk.removeprefix(b"\n")
        if not chunk or self.overflowed:
            return []
        *lines, rest = _LINE_END.split(chunk)
        self._after_cr = chunk.endswith(b"\r")
        events: list[SseEvent] = []
        for line in lines:
            if self._rest:
                self._rest.append(line)
                line = b"".join(self._rest)  # noqa: PLW2901 - the line is only now complete
                self._rest, self._rest_size = [], 0
            self._size += len(line)
            if self._is_too_large():
                return events
            event = self._take(line)
            if event is not None:
                events.append(event)
        if rest:
            self._rest.append(rest)
            self._rest_size += len(rest)
        self._is_too_large()
        return events

    def _is_too_large(self) -> bool:
        self.overflowed = self._size + self._rest_size > self._max
        return self.overflowed

    def _take(self, line: bytes) -> SseEvent | None:
        if not self._begun:
            self._begun = True
            line = line.removeprefix(b"\xef\xbb\xbf")
        if not line:
            return self._dispatch()
        name, _, value = line.partition(b":")
        if name == b"data":
            self._data.append(value.removeprefix(b" "))
        elif name == b"event":
            self._type = value.removeprefix(b" ").decode("utf-8", "replace")
        return None

    def _dispatch(self) -> SseEvent | None:
        kind, data = self._type, self._data
        self._type, self._data, self._size = "", [], 0
        return SseEvent(kind, data[0] if len(data) == 1 else b"\n".join(data)) if data else None


def write_event(kind: str, data: bytes) -> bytes:
    """Write one event whose data is one line; `kind` may be empty, for APIs whose events have no name."""
    assert b"\n" not in data, "data of more than one line needs a field for each"
    head = b"event: %b\n" % kind.encode() if kind else b""
    return b"%bdata: %b\n\n" % (head, data)
