"""How events are written into one entry of a stream, and read from it. Pure. Not here: the stream (`redis_logs`).

An event's `item` is within its data, so only where it begins is written. The echo is once with the log: events say only
whether they end in it.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from segue.protocol.events import Event


class _WrittenEvent(msgspec.Struct, frozen=True, array_like=True):
    type: str
    data: bytes
    number: int
    item_at: int = -1
    item_bytes: int = 0
    echoes: bool = False


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[_WrittenEvent])


def encode_events(events: Sequence[Event]) -> bytes:
    """Write events without their echo."""
    return _encoder.encode([_write(event) for event in events])


def decode_events(entry: bytes, echo: bytes) -> list[Event]:
    """Read events; those that end in an echo end in this one. Raises `msgspec.DecodeError` if they are none."""
    return [_read(written, echo) for written in _decoder.decode(entry)]


def _write(event: Event) -> _WrittenEvent:
    at = event.data.find(event.item) if event.item else -1
    return _WrittenEvent(event.type, event.data, event.sequence_number, at, len(event.item), bool(event.echo))


def _read(written: _WrittenEvent, echo: bytes) -> Event:
    item = b"" if written.item_at < 0 else written.data[written.item_at : written.item_at + written.item_bytes]
    return Event(written.type, written.data, written.number, item, echo if written.echoes else b"")
