"""The format of GGUF files (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md)."""

from __future__ import annotations

import struct
from array import array
from pathlib import Path

from segue.testing.gguf_file import flag, fraction, number, numbers, string, strings, write_gguf


def test_entries_come_first_and_tensors_are_aligned(tmp_path: Path) -> None:
    entries = [number("n", 7), fraction("f", 0.5), flag("b", value=True), string("s", "é")]
    entries += [strings("l", ["a", "bc"]), numbers("i", [1, -2])]
    tensors = [("first", (3,), array("f", [1.0, 2.0, 3.0])), ("second", (2, 1), array("f", [4.0, 5.0]))]
    path = tmp_path / "file"
    write_gguf(path, entries, tensors)
    data = path.read_bytes()
    assert struct.unpack("<4sIQQ", data[:24]) == (b"GGUF", 3, 2, 6)
    assert struct.pack("<Q", 1) + b"n" + struct.pack("<II", 4, 7) in data
    assert struct.pack("<Q", 1) + b"s" + struct.pack("<IQ", 8, 2) + "é".encode() in data
    assert struct.pack("<IIQii", 9, 5, 2, 1, -2) in data
    described = data.index(b"second") + len("second")
    assert struct.unpack("<IQQIQ", data[described : described + 32]) == (2, 2, 1, 0, 32)
    values = data[-64:]
    assert (len(data) % 32, struct.unpack("<3f", values[:12]), struct.unpack("<2f", values[32:40])) == (
        0,
        (1.0, 2.0, 3.0),
        (4.0, 5.0),
    )
