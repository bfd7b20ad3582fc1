"""The function calls among items: which there are, which cannot be read, and which are still to be answered.

Not here: who carries them out, which is the program.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from segue.protocol.codec import UNREADABLE

T = TypeVar("T")


class FunctionCall(Struct, frozen=True):
    """A call of a tool: `arguments` is the JSON text that the model wrote, which may be no JSON."""

    call_id: str
    name: str
    arguments: str

    def answer(self, output: str) -> dict[str, Any]:
        """Return the item that answers this call, for the next turn to send."""
        return {"type": "function_call_output", "call_id": self.call_id, "output": output}


class _ItemType(Struct):
    type: str = ""


class _CallId(Struct):
    call_id: str = ""


class _CallFields(_CallId):
    name: str = ""
    arguments: str = ""


_types = msgspec.json.Decoder(_ItemType)
_call_ids = msgspec.json.Decoder(_CallId)
_calls = msgspec.json.Decoder(_CallFields)


def read_call(item: bytes) -> FunctionCall | None:
    """Return the function call that an item is; None if it is another item, or a call that cannot be read."""
    fields = _read(_calls, item) if _is_a(item, "function_call") else None
    return None if fields is None else FunctionCall(fields.call_id, fields.name, fields.arguments)


def is_unreadable_call(item: bytes) -> bool:
    """Return whether an item is a function call that nobody can carry out, such as one whose name is null."""
    return _is_a(item, "function_call") and _read(_calls, item) is None


def unanswered_calls(items: Iterable[bytes]) -> list[FunctionCall]:
    """Return the calls in a history that no output answers yet.

    A model may use an id again in another turn, so an output answers the calls of its id that stand before it.
    """
    calls: list[FunctionCall] = []
    for item in items:
        if (call := read_call(item)) is not None:
            calls.append(call)
        elif _is_a(item, "function_call_output") and (answer := _read(_call_ids, item)) is not None:
            calls = [one for one in calls if one.call_id != answer.call_id]
    return calls


def _is_a(item: bytes, kind: str) -> bool:
    if kind.encode() not in item:  # looking for it is quicker than reading an item, and most are of other types
        return False
    found = _read(_types, item)
    return found is not None and found.type == kind


def _read(decoder: msgspec.json.Decoder[T], item: bytes) -> T | None:
    """Return what a decoder makes of an item; None if it is not of that kind."""
    try:
        return decoder.decode(item)
    except UNREADABLE:
        return None
