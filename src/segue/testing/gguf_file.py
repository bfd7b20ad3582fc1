"""Writes GGUF files: their entries and tensors, as llama.cpp reads them. Not here: what a model is (`tiny_model`)."""

from __future__ import annotations

import struct
from array import array
from collections.abc import Sequence
from pathlib import Path

_MAGIC, _VERSION, _ALIGNMENT = b"GGUF", 3, 32
_UINT32, _FLOAT32, _BOOL, _STRING, _ARRAY, _INT32 = 4, 6, 7, 8, 9, 5

#: Name, dimensions (innermost first) and values.
Tensor = tuple[str, tuple[int, ...], "array[float]"]


def write_gguf(path: Path, entries: Sequence[bytes], tensors: Sequence[Tensor]) -> None:
    """Write a file of these entries and tensors, whose values have 32 bits."""
    described, data = _layout(tensors)
    head = _MAGIC + struct.pack("<IQQ", _VERSION, len(tensors), len(entries)) + b"".join(entries) + described
    path.write_bytes(head + bytes(-len(head) % _ALIGNMENT) + data)


def number(key: str, value: int) -> bytes:
    """An entry that is a whole number."""
    return _entry(key, _UINT32, struct.pack("<I", value))


def fraction(key: str, value: float) -> bytes:
    """An entry that is a number with 32 bits."""
    return _entry(key, _FLOAT32, struct.pack("<f", value))


def flag(key: str, *, value: bool) -> bytes:
    """An entry that is true or false."""
    return _entry(key, _BOOL, bytes([value]))


def string(key: str, value: str) -> bytes:
    """An entry that is a text."""
    return _entry(key, _STRING, _text(value))


def strings(key: str, values: Sequence[str]) -> bytes:
    """An entry that is a list of texts."""
    return _entry(key, _ARRAY, _array(_STRING, [_text(value) for value in values]))


def numbers(key: str, values: Sequence[int]) -> bytes:
    """An entry that is a list of whole numbers."""
    return _entry(key, _ARRAY, _array(_INT32, [struct.pack("<i", value) for value in values]))


def _layout(tensors: Sequence[Tensor]) -> tuple[bytes, bytes]:
    """Return the descriptions of the tensors, and their values at the offsets in those descriptions."""
    described, data = [], bytearray()
    for name, dimensions, values in tensors:
        sizes = struct.pack(f"<I{len(dimensions)}Q", len(dimensions), *dimensions)
        described.append(_text(name) + sizes + struct.pack("<IQ", 0, len(data)))
        data += struct.pack(f"<{len(values)}f", *values)
        data += bytes(-len(data) % _ALIGNMENT)
    return b"".join(described), bytes(data)


def _text(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _entry(key: str, kind: int, value: bytes) -> bytes:
    return _text(key) + struct.pack("<I", kind) + value


def _array(kind: int, values: Sequence[bytes]) -> bytes:
    return struct.pack("<IQ", kind, len(values)) + b"".join(values)
