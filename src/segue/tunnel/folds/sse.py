"""Server-sent events, as far as the fold needs them: the data of each event, from a stream that is cut anywhere.

Lines end with CR LF, LF or CR; several data lines are joined; comments and other fields are skipped (WHATWG HTML,
9.2.6). Memory is bounded: an event with a line, or with data, over the limit is dropped, and the next one is read; the
reader of `segue.http.sse` stops there instead. Both ends must drop the same events, so this reader is part of the fold.
Not here: what the data mean.
"""

from __future__ import annotations

_BOM = b"\xef\xbb\xbf"


class EventReader:
    """Splits a stream of server-sent events into the data of its events."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._line = bytearray()
        self._data: list[bytes] = []
        self._data_bytes = 0
        self._dropped = False
        self._at_start = True
        self._after_cr = False

    def feed(self, piece: bytes) -> list[bytes]:
        """Take the next bytes of the stream; return the data of the events that they complete."""
        events: list[bytes] = []
        if self._after_cr and piece:
            self._after_cr = False
            piece = piece.removeprefix(b"\n")
        for part in piece.splitlines(keepends=True):
            self._line += part
            self._after_cr = part[-1:] == b"\r"
            if part[-1:] in {b"\n", b"\r"}:
                self._end_line(events)
            elif len(self._line) > self._limit:
                self._dropped = True
                del self._line[self._limit + 1 :]  # stays too long until it ends
        return events

    def _end_line(self, events: list[bytes]) -> None:
        line = bytes(self._line).rstrip(b"\r\n")
        self._line.clear()
        is_too_long = len(line) > self._limit
        if self._at_start:
            self._at_start = False
            line = line.removeprefix(_BOM)
        if is_too_long:
            self._dropped = True
        elif not line:
            self._end_event(events)
        else:
            name, _, value = line.partition(b":")
            if name == b"data":
                self._add_data(value.removeprefix(b" "))

    def _add_data(self, value: bytes) -> None:
        self._data_bytes += len(value) + 1
        if self._data_bytes > self._limit:
            self._dropped = True
            self._data.clear()
        if not self._dropped:
            self._data.append(value)

    def _end_event(self, events: list[bytes]) -> None:
        if self._data and not self._dropped:
            events.append(b"\n".join(self._data))
        self._data.clear()
        self._data_bytes = 0
        self._dropped = False
