"""Repairs events of a Responses server that strict decoding refuses, so that the rest of the stream can pass.

What cannot be written as UTF-8 (a character cut in two) would break clients, and an odd number in a side field is no
reason to lose an answer. Half a character at the end of a delta waits for the next delta of the same text; if that does
not bring the other half, a delta of its own says that a character could not be read. Not here: what events mean.
"""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any, NamedTuple

import msgspec

from segue.dialects.growing_text import REPLACEMENT, GrowingText
from segue.dialects.lenient_decoding import decode_json

Json = dict[str, Any]

_NUMBERS = ("sequence_number", "output_index", "content_index", "summary_index")
_PLACE = ("type", "item_id", "output_index", "content_index", "summary_index")
_DELTA = frozenset({"delta"})


class RepairedEvents(NamedTuple):
    """What to read in place of an event, and the event whose delta is half a character that waits."""

    events: list[bytes]
    held: Json | None


def repair_event(data: bytes, held: Json | None) -> RepairedEvents:
    """Repair an event that comes after what is `held`. Raise one of `UNREADABLE` if it is no JSON object."""
    event = decode_json(data, _DELTA)
    if not isinstance(event, dict):
        raise msgspec.ValidationError("it is no object")
    for name in _NUMBERS:
        _repair_number(event, name)
    if not isinstance(event.get("type", ""), str):
        del event["type"]
    delta, events = event.get("delta"), []
    if held is not None and not is_of_a_response(event.get("type", "response.")):
        return RepairedEvents([_encoded(event)], held)
    if held is not None and isinstance(delta, str) and all(held.get(name) == event.get(name) for name in _PLACE):
        delta = held["delta"] + delta
    elif held is not None:
        events.append(_encoded({**held, "delta": REPLACEMENT}))
    if not isinstance(delta, str):
        return RepairedEvents([*events, _encoded(event)], None)
    text = GrowingText()
    whole = text.mend(delta)
    if whole or not text.half:
        events.append(_encoded({**event, "delta": whole}))
    return RepairedEvents(events, {**event, "delta": text.half} if text.half else None)


def is_of_a_response(kind: str) -> bool:
    """Return whether a type is that of an event of a response, and not of a ping or another thing of a vendor's own."""
    return kind.startswith("response.")


def _repair_number(event: Json, name: str) -> None:
    value = event.pop(name, None)
    if value is not None:
        with suppress(msgspec.ValidationError):
            event[name] = msgspec.convert(value, int, strict=False)


def _encoded(event: Json) -> bytes:
    return json.dumps(event, separators=(",", ":")).encode()
