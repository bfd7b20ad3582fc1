"""The openings of a WebSocket's upload: messages of the agent as documents, in front of streams or between them.

So a large message, which often repeats a whole conversation, is a delta against what an earlier socket or request has
brought (docs/spec/tunnel.md, "Messages as documents"). Reading never raises. Not here: documents, and the streams of
records (`segue.tunnel.socket_upload`).
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from segue.http.varints import encode_varint, read_varint
from segue.tunnel.websocket_records import RecordError

#: What stands in front of a stream.
END_OF_OPENINGS: Final = b"\0"

_OPCODES: Final[dict[int, Literal["text", "binary"]]] = {1: "text", 2: "binary"}
_NUMBERS: Final = {opcode: number for number, opcode in _OPCODES.items()}
_LONGEST_VARINT: Final = 10
#: The bit of a varint's byte that another one follows.
_MORE_FOLLOWS: Final = 0x80


class SocketOpening(msgspec.Struct, frozen=True):
    """A message that stands in front of a stream; without a document, the stream follows."""

    opcode: Literal["text", "binary"]
    document: bytes | None
    end: int
    """Where the next opening or the stream begins."""


def encode_opening(opcode: Literal["text", "binary"], document: bytes) -> bytes:
    """Return the opening of a message with this document."""
    return bytes((_NUMBERS[opcode],)) + encode_varint(len(document)) + document


def read_opening(upload: bytes | bytearray, limit: int) -> SocketOpening | RecordError | None:
    """Read the opening at the beginning of some bytes; None if it is not whole yet. `limit`: of its document."""
    if upload[:1] == END_OF_OPENINGS:
        return SocketOpening("text", None, 1)
    if upload and upload[0] not in _OPCODES:
        return RecordError(f"an upload opens with the unknown opcode {upload[0]}")
    number = bytes(upload[1 : 1 + _LONGEST_VARINT])
    read = read_varint(number, 0)
    if read is None:
        is_whole = len(number) == _LONGEST_VARINT or any(byte < _MORE_FOLLOWS for byte in number)
        return RecordError("the length of an opening cannot be read") if is_whole else None
    size, start = read[0], 1 + read[1]
    if size > limit:
        return RecordError(f"an opening of {size} bytes is larger than {limit}")
    whole = len(upload) >= start + size
    return SocketOpening(_OPCODES[upload[0]], bytes(upload[start : start + size]), start + size) if whole else None
