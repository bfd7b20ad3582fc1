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
        if b"\r" in piece or self._after_cr:
            self._read_lines(piece, events)
            return events
        # most streams end their lines with LF alone, and most pieces are whole events
        begun, end, whole = (b"", b"", piece) if self._between_events else piece.partition(b"\n\n")
        self._read_lines(begun + end, events)
        if not self._between_events:
            self._read_lines(whole, events)
            return events
        *blocks, unfinished = whole.split(b"\n\n")
        for block in blocks:
            self._read_block(block, events)
        self._read_lines(unfinished, events)
        return events

    @property
    def _between_events(self) -> bool:
        return not (self._at_start or self._line or self._data or self._dropped)

    def _read_block(self, block: bytes, events: list[bytes]) -> None:
        """Read the lines of a whole event, without the empty line at its end."""
        before, _, last = block.rpartition(b"\n")
        if last.startswith(b"data:") and b"\n" not in before and before[:4] != b"data" and len(block) <= self._limit:
            value = last[5:].removeprefix(b" ")
            if len(value) < self._limit:
                events.append(value)
                return
        self._read_lines(block + b"\n\n", events)

    def _read_lines(self, piece: bytes, events: list[bytes]) -> None:
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
