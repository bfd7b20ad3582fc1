"""WebSocket records: the messages of a WebSocket exchange as they travel inside a compressed stream.

A record is an opcode byte, the length as a varint, and the payload; a close record's payload is a two-byte code and the
reason (docs/spec/tunnel.md, "WebSocket exchanges"). Reading never raises. Not here: frames of any socket.
"""

from __future__ import annotations

from typing import Final, TypeAlias

import msgspec

from segue.http.varints import encode_varint, read_varint
from segue.http.websocket import WebSocketClose, WebSocketMessage

_TEXT: Final = 1
_BINARY: Final = 2
_CLOSE: Final = 8
_CODE_BYTES: Final = 2
_LONGEST_VARINT: Final = 10
#: The bit of a varint's byte that another one follows.
_MORE_FOLLOWS: Final = 0x80


Record: TypeAlias = WebSocketMessage | WebSocketClose


class RecordError(msgspec.Struct, frozen=True):
    """The bytes are no records, or one is too large; you can read no more."""

    reason: str


def encode_record(record: Record) -> bytes:
    """Return the record of a message or a close."""
    if isinstance(record, WebSocketClose):
        payload = record.code.to_bytes(_CODE_BYTES, "big") + record.reason
        return bytes((_CLOSE,)) + encode_varint(len(payload)) + payload
    opcode = _TEXT if record.opcode == "text" else _BINARY
    return bytes((opcode,)) + encode_varint(len(record.data)) + record.data


class RecordReader:
    """Reads records from a stream that is cut anywhere; `limit` is the largest payload in bytes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held = bytearray()

    @property
    def held_bytes(self) -> int:
        """How many bytes there are of a record that is not whole."""
        return len(self._held)

    def feed(self, data: bytes) -> list[Record] | RecordError:
        """Take bytes and return the records that they complete."""
        self._held += data
        records: list[Record] = []
        while True:
            record = self._take()
            if isinstance(record, RecordError):
                return record
            if record is None:
                return records
            records.append(record)

    def _take(self) -> Record | RecordError | None:
        """Take one whole record from the bytes held; None if there is none yet."""
        if not self._held:
            return None
        read = read_varint(bytes(self._held[1 : 1 + _LONGEST_VARINT]), 0)
        opcode, (size, after) = self._held[0], read or (0, 0)
        reason = self._why_refused(opcode, size, cut_off=read is None)
        if reason is not None:
            return RecordError(reason)
        start = 1 + after
        if read is None or len(self._held) < start + size:
            return None
        payload = bytes(self._held[start : start + size])
        del self._held[: start + size]
        if opcode == _CLOSE:
            return WebSocketClose(int.from_bytes(payload[:_CODE_BYTES], "big"), payload[_CODE_BYTES:])
        return WebSocketMessage("text" if opcode == _TEXT else "binary", payload)

    def _why_refused(self, opcode: int, size: int, *, cut_off: bool) -> str | None:
        if opcode not in {_TEXT, _BINARY, _CLOSE}:
            return f"a record has the unknown opcode {opcode}"
        if cut_off:
            number = self._held[1 : 1 + _LONGEST_VARINT]
            is_whole = len(number) == _LONGEST_VARINT or any(byte < _MORE_FOLLOWS for byte in number)
            return "the length of a record cannot be read" if is_whole else None
        if size > self._limit:
            return f"a message of {size} bytes is larger than {self._limit}"
        return "a close record has no code" if opcode == _CLOSE and size < _CODE_BYTES else None
