"""What was rendered of past turns, kept beside the history: one fragment per turn and dialect, under one byte budget.

A fragment is made from a turn's items and from where the turn before it left off, so it never changes; continuing a
chain renders only what is new. It dies with its turn (the cache refers to turns weakly), so that nothing of a
store=false conversation outlives it here. Over budget, what was used least recently goes first, and is rendered again
if it is asked for. Not here: what a fragment holds, which is its dialect's business.
"""

from __future__ import annotations

from collections import OrderedDict
from functools import partial
from typing import Generic, Protocol, TypeVar
from weakref import ref

import msgspec

from segue.history.chains import Turn

#: What a fragment costs beside its bytes: objects and table entries, rounded up.
FRAGMENT_OVERHEAD_BYTES = 512


class Sized(Protocol):
    """A fragment: all that the cache asks of it is its size."""

    @property
    def size_bytes(self) -> int:
        """Roughly what it holds in memory."""


F = TypeVar("F", bound=Sized)


class _Owner(msgspec.Struct):
    """A turn that fragments are kept of, and on which shelves."""

    turn: ref[Turn]
    names: set[str]


class Fragments:
    """The fragments of all dialects; every method is O(1). `budget_bytes` 0 keeps nothing."""

    def __init__(self, budget_bytes: int) -> None:
        self._budget_bytes = budget_bytes
        self._kept: OrderedDict[tuple[str, int], Sized] = OrderedDict()
        # By the address of the turn, which is its own as long as it lives; when it dies, what is kept of it goes.
        self._owners: dict[int, _Owner] = {}
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._kept)

    def shelf(self, name: str, kind: type[F]) -> Shelf[F]:
        """Return the part of the cache that belongs to one dialect of one provider."""
        return Shelf(self, name, kind)

    def find(self, name: str, turn: Turn) -> Sized | None:
        """Return a fragment, if it is kept."""
        key = (name, id(turn))
        found = self._kept.get(key)
        if found is not None:
            self._kept.move_to_end(key)
        return found

    def keep(self, name: str, turn: Turn, fragment: Sized) -> None:
        """Keep a fragment as long as its turn lives and the budget allows."""
        address = id(turn)
        self._drop((name, address))
        owner = self._owners.get(address)
        if owner is None:
            owner = self._owners[address] = _Owner(ref(turn, partial(self._forget, address)), set())
        owner.names.add(name)
        self._kept[name, address] = fragment
        self.size_bytes += fragment.size_bytes + FRAGMENT_OVERHEAD_BYTES
        while self.size_bytes > self._budget_bytes and self._kept:
            self._drop(next(iter(self._kept)))

    def _forget(self, address: int, _: ref[Turn]) -> None:
        owner = self._owners[address]
        for name in tuple(owner.names):
            self._drop((name, address))

    def _drop(self, key: tuple[str, int]) -> None:
        fragment = self._kept.pop(key, None)
        if fragment is None:
            return
        self.size_bytes -= fragment.size_bytes + FRAGMENT_OVERHEAD_BYTES
        name, address = key
        owner = self._owners[address]
        owner.names.discard(name)
        if not owner.names:
            del self._owners[address]


class Shelf(Generic[F]):
    """One dialect's view of the fragments, with their type."""

    def __init__(self, fragments: Fragments, name: str, kind: type[F]) -> None:
        self._fragments = fragments
        self._name = name
        self._kind = kind

    def find(self, turn: Turn) -> F | None:
        """Return the fragment of a turn, if it is kept."""
        found = self._fragments.find(self._name, turn)
        return found if isinstance(found, self._kind) else None

    def keep(self, turn: Turn, fragment: F) -> None:
        """Keep the fragment of a turn."""
        self._fragments.keep(self._name, turn, fragment)
