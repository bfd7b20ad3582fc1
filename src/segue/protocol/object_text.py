"""A JSON object as its author wrote it, with the places of its fields, so that some can change and the rest stay.

A value is replaced, or a field left out or added, by cutting the text. All other bytes stay as they are: blanks, the
order of the fields, the form of numbers and escapes. Not here: what the fields mean.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import msgspec

from segue.protocol.codec import decode, is_utf8
from segue.protocol.problems import Problem, invalid_json

_BLANKS = b" \t\n\r"
_KEY = re.compile(rb'[ \t\n\r,]*("(?:[^"\\]|\\.)*")[ \t\n\r]*:[ \t\n\r]*', re.DOTALL)

_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])
_texts = msgspec.json.Decoder(str)


class FieldSpan(NamedTuple):
    """Where a field stands in its object's text: its key begins at `key`, its value at `start`, and ends at `end`."""

    key: int
    start: int
    end: int


class ObjectText(msgspec.Struct, frozen=True):
    """The text of an object, and the spans of its fields in the order in which they stand there."""

    text: bytes
    spans: Mapping[str, FieldSpan]

    def value(self, name: str) -> bytes | None:
        """Return the text of a field's value; None if there is no such field."""
        span = self.spans.get(name)
        return None if span is None else self.text[span.start : span.end]

    def changed(
        self,
        values: Mapping[str, Sequence[bytes]],
        *,
        without: Collection[str] = (),
        added: Mapping[str, bytes] | None = None,
    ) -> tuple[bytes, ...]:
        """Return the text in pieces, with other `values` for fields that it has, `without` some, and with more.

        A name in `added` must not be one of its fields.
        """
        text, ordered = self.text, list(self.spans.items())
        pieces: list[bytes] = []
        at, kept = 0, -1  # where the rest begins, and where the last field ends that stays
        for number, (name, span) in enumerate(ordered):
            if name in without:  # with the comma before it, or if it comes first, with the one behind
                pieces.append(text[at : ordered[0][1].key if kept < 0 else kept])
                is_last = number + 1 == len(ordered)
                at = span.end if kept >= 0 or is_last else ordered[number + 1][1].key
                continue
            kept = span.end
            if name in values:
                pieces += [text[at : span.start], *values[name]]
                at = span.end
        close = text.rindex(b"}")
        pieces.append(text[at:close])
        for name, value in (added or {}).items():
            pieces.append(b'%b"%b":%b' % (b"" if kept < 0 else b",", name.encode(), value))
            kept = close
        return tuple(piece for piece in (*pieces, text[close:]) if piece)


def read_object(text: bytes) -> ObjectText | Problem:
    """Find the fields of an object. A name that stands there twice is refused: its readers might not agree on which."""
    fields = decode(text, _fields)
    if isinstance(fields, Problem):
        return fields
    if not (text.isascii() or is_utf8(text)):  # values are not decoded, and go on as they are
        return invalid_json("it holds text that is not valid Unicode")
    spans: dict[str, FieldSpan] = {}
    at = text.index(b"{") + 1
    while (found := _KEY.match(text, at)) is not None:
        name = _texts.decode(found[1])
        value = bytes(fields[name])
        start = found.end()
        if name in spans or not text.startswith(value, start):
            return _twice()
        at = start + len(value)
        spans[name] = FieldSpan(found.start(1), start, at)
    return ObjectText(text, spans) if text[at:].strip(_BLANKS) == b"}" else _twice()


def _twice() -> Problem:
    return invalid_json("it names a field twice")
