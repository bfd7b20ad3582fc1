"""Columns of new rows as arrays in PostgreSQL's binary format, one parameter for each column. Pure.

A statement that takes arrays is the same for one row and for many. psycopg's own lists would be adapted value by value:
a record would cost twice as much. https://www.postgresql.org/docs/current/protocol-overview.html#PROTOCOL-FORMAT-CODES
Not here: what the columns mean (`appends`).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence

_HEAD = struct.Struct("!iiIii")  # dimensions, whether there is a NULL, type of the elements, their number, first index
_EMPTY = struct.Struct("!iiI")
_LENGTH = struct.Struct("!i")
_NULL = _LENGTH.pack(-1)

#: The types of elements: https://www.postgresql.org/docs/current/catalog-pg-type.html
BYTEA, INT4, TEXT, FLOAT8, UUID = 17, 23, 25, 701, 2950

_FLOAT8 = struct.Struct("!d")
_INT4 = struct.Struct("!i")


class PackedArray:
    """An array as the server reads it."""

    __slots__ = ("data",)

    def __init__(self, kind: int, values: Sequence[bytes | None]) -> None:
        self.data = _pack(kind, values)


def byteas(values: Iterable[bytes | None]) -> PackedArray:
    """Return an array of bytes."""
    return PackedArray(BYTEA, tuple(values))


def texts(values: Iterable[str | None]) -> PackedArray:
    """Return an array of texts."""
    return PackedArray(TEXT, [None if value is None else value.encode() for value in values])


def uuids(values: Iterable[bytes]) -> PackedArray:
    """Return an array of UUIDs, of 16 bytes each."""
    return PackedArray(UUID, tuple(values))


def floats(values: Iterable[float]) -> PackedArray:
    """Return an array of doubles."""
    return PackedArray(FLOAT8, [_FLOAT8.pack(value) for value in values])


def integers(values: Iterable[int]) -> PackedArray:
    """Return an array of integers of 4 bytes."""
    return PackedArray(INT4, [_INT4.pack(value) for value in values])


def _pack(kind: int, values: Sequence[bytes | None]) -> bytes:
    if not values:
        return _EMPTY.pack(0, 0, kind)
    parts = [_HEAD.pack(1, int(None in values), kind, len(values), 1)]
    for value in values:
        if value is None:
            parts.append(_NULL)
        else:
            parts.append(_LENGTH.pack(len(value)))
            parts.append(value)
    return b"".join(parts)
