"""Truncation: which of the oldest items of a history are left out where a model's context does not hold all of it.

Items that belong together stay together: a call and its output, and reasoning with what it has led to. Messages of the
system and of developers stay, and items that change settings; so do the last message of the user and what is newest.
What is left begins with a message of the user, as some APIs want it. Pure. Not here: when a history is too long, which
its model says (`gateway.turns.truncation`), and the local model's own way (`engine.prompt.truncation`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import msgspec

from segue.protocol.items import CONFIGURATION, Item, answered_by, key_of

_KEPT_ROLES = frozenset({"system", "developer"})
_USER = "user"


class _Speaker(msgspec.Struct):
    role: str | None = None


_speakers = msgspec.json.Decoder(_Speaker)


class Shortened(NamedTuple):
    """What is left of a history, and how many items are not."""

    items: tuple[Item, ...]
    left_out: int


class _Group(NamedTuple):
    """Items that stay together: whether they have to stay at all, and whether a user speaks in them."""

    items: tuple[Item, ...]
    fixed: bool
    asks: bool

    @property
    def size_bytes(self) -> int:
        return sum(map(len, self.items))


def shorten(items: Sequence[Item], share: float, *, new: int = 0) -> Shortened:
    """Leave out the oldest items until only this share is left of the bytes that may go; the `new` last items stay."""
    groups = list(_groups(items, len(items) - new))
    left = sum(group.size_bytes for group in groups if not group.fixed)
    wanted = share * left
    kept: list[Item] = []
    asked = False
    for group in groups:
        if not group.fixed and (left > wanted or (len(kept) < len(items) and not asked and not group.asks)):
            left -= group.size_bytes
            continue
        asked = asked or group.asks
        kept += group.items
    return Shortened(tuple(kept), len(items) - len(kept))


def _groups(items: Sequence[Item], new_from: int) -> Iterator[_Group]:
    roles = [_speakers.decode(item).role for item in items]
    answered = answered_by(items)
    last_asked = max((place for place, role in enumerate(roles) if role == _USER), default=-1)
    first, waiting = 0, set[str]()
    for place, item in enumerate(items):
        key = key_of(item)
        if key.call_id is not None and key.is_output:
            waiting.discard(key.call_id)
        elif key.call_id in answered:
            waiting.add(str(key.call_id))
        end = place + 1
        if end < len(items) and (waiting or key.kind == "reasoning"):
            continue
        fixed = first <= last_asked < end or end > new_from or end == len(items)
        fixed = fixed or not _KEPT_ROLES.isdisjoint(roles[first:end])
        fixed = fixed or any(key_of(one).kind in CONFIGURATION for one in items[first:end])
        yield _Group(tuple(items[first:end]), fixed, _USER in roles[first:end])
        first = end
