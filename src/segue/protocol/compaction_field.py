"""What a create wants compacted: its field `context_management`, and an input that asks for nothing else. Pure.

Not here: the other fields of a create (`requests`).
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta, Raw

from segue.protocol.codec import decode, decode_value
from segue.protocol.items import COMPACTION, Input
from segue.protocol.problems import Problem


class _ContextManagement(msgspec.Struct):
    """One thing to do about a long history. Types that are not known may have any fields."""

    type: str
    compact_threshold: Annotated[int, Meta(ge=1000)] | None = None


_lists = msgspec.json.Decoder(list[_ContextManagement])
_FIELD = "context_management"


class CompactionRequest(msgspec.Struct, frozen=True):
    """What a request wants compacted: the history from `threshold` tokens on (None: as many as the gateway says).

    With `only`, nothing but the compaction is wanted, at once, and no answer. With `window`, the client wants what is
    left of the history too, and the response cannot be continued.
    """

    threshold: int | None = None
    only: bool = False
    window: bool = False


def read_context_management(field: Raw) -> Raw | Problem:
    """Check the field, and return it as it came."""
    known = decode(field, _lists, _FIELD)
    value = known if isinstance(known, Problem) else decode_value(field, _FIELD)
    return value if isinstance(value, Problem) else field.copy()


def compaction_of(field: Raw, given: Input) -> CompactionRequest | None:
    """Return what of the history is to be compacted. The field was checked, or is null."""
    if given.triggers:
        return CompactionRequest(only=True)
    wanted = (one for one in _lists.decode(field) if one.type == COMPACTION)
    return next((CompactionRequest(one.compact_threshold) for one in wanted), None)
