"""Arrays in the server's binary format: psycopg reads what we write."""

from __future__ import annotations

import struct
from uuid import UUID

import psycopg
from hypothesis import given
from hypothesis import strategies as st
from psycopg.adapt import Transformer
from psycopg.pq import Format

from segue.stores.postgres.arrays import PackedArray, byteas, floats, integers, texts, uuids


def read(array: PackedArray, element: str) -> object:
    """Return what psycopg makes of an array."""
    oid = psycopg.adapters.types[element].array_oid
    return Transformer().get_loader(oid, Format.BINARY).load(array.data)


@given(st.lists(st.none() | st.binary(max_size=40), max_size=8))
def test_bytes_come_back(values: list[bytes | None]) -> None:
    assert read(byteas(values), "bytea") == values


@given(st.lists(st.none() | st.text(max_size=20), max_size=8))
def test_texts_come_back(values: list[str | None]) -> None:
    assert read(texts(values), "text") == values


def test_numbers_come_back() -> None:
    assert read(floats([1.5, float("inf")]), "float8") == [1.5, float("inf")]
    assert read(integers([-1, 2**31 - 1]), "int4") == [-1, 2**31 - 1]
    assert read(uuids([bytes(range(16))]), "uuid") == [UUID(bytes=bytes(range(16)))]


def test_an_empty_array_has_no_dimension() -> None:
    assert byteas([]).data == struct.pack("!iiI", 0, 0, 17)
