"""Past turns as they were rendered, kept beside the history: one entry per turn and dialect, under one byte budget.

What a turn is rendered to depends only on its items and on where the turn before it left off, so an entry never
changes, and continuing a chain renders only what is new. An entry dies with its turn (the cache refers to turns
weakly), so nothing of a store=false conversation outlives it here. Over budget, the least recently used entry is
evicted; if that turn is asked for again, it is rendered again. Not here: what an entry holds, which is its dialect's
business.
"""

from __future__ import annotations

from collections import OrderedDict
from functools import partial
from typing import Generic, Protocol, TypeVar
from weakref import ref

import msgspec

from segue.history.chains import Turn

#: What an entry costs beside its bytes: objects and table entries, rounded up.
ENTRY_OVERHEAD_BYTES = 512


class Sized(Protocol):
    """A rendered turn, or an open message: all that the cache asks of it is its size."""

    @property
    def size_bytes(self) -> int:
        """Roughly how much memory it takes."""


R = TypeVar("R", bound=Sized)


class _CachedTurn(msgspec.Struct):
    """A turn that has entries, and the names of the views that they are in."""

    turn: ref[Turn]
    views: set[str]


class RenderCache:
    """The rendered turns of all dialects; every method is O(1). With `budget_bytes` 0 it keeps nothing."""

    def __init__(self, budget_bytes: int) -> None:
        self._budget_bytes = budget_bytes
        self._entries: OrderedDict[tuple[str, int], Sized] = OrderedDict()  # least recently used first
        # By a turn's address, which is its own as long as it lives; when the turn dies, its entries go.
        self._turns: dict[int, _CachedTurn] = {}
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def view(self, name: str, kind: type[R]) -> RenderCacheView[R]:
        """Return the part of the cache that belongs to one dialect of one provider."""
        return RenderCacheView(self, name, kind)

    def find(self, name: str, turn: Turn) -> Sized | None:
        """Return the rendered turn of a view, if it is cached."""
        key = (name, id(turn))
        found = self._entries.get(key)
        if found is not None:
            self._entries.move_to_end(key)
        return found

    def keep(self, name: str, turn: Turn, rendered: Sized) -> None:
        """Keep a rendered turn as long as the turn lives and the budget allows."""
        address = id(turn)
        self._evict((name, address))
        cached = self._turns.get(address)
        if cached is None:
            cached = self._turns[address] = _CachedTurn(ref(turn, partial(self._forget, address)), set())
        cached.views.add(name)
        self._entries[name, address] = rendered
        self.size_bytes += rendered.size_bytes + ENTRY_OVERHEAD_BYTES
        while self.size_bytes > self._budget_bytes and self._entries:
            self._evict(next(iter(self._entries)))

    def _forget(self, address: int, _: ref[Turn]) -> None:
        cached = self._turns[address]
        for name in tuple(cached.views):
            self._evict((name, address))

    def _evict(self, key: tuple[str, int]) -> None:
        rendered = self._entries.pop(key, None)
        if rendered is None:
            return
        self.size_bytes -= rendered.size_bytes + ENTRY_OVERHEAD_BYTES
        name, address = key
        cached = self._turns[address]
        cached.views.discard(name)
        if not cached.views:
            del self._turns[address]


class RenderCacheView(Generic[R]):
    """One dialect's part of the cache, with the type of its entries."""

    def __init__(self, cache: RenderCache, name: str, kind: type[R]) -> None:
        self._cache = cache
        self._name = name
        self._kind = kind

    def find(self, turn: Turn) -> R | None:
        """Return the rendered turn, if it is cached."""
        found = self._cache.find(self._name, turn)
        return found if isinstance(found, self._kind) else None

    def keep(self, turn: Turn, rendered: R) -> None:
        """Keep a rendered turn."""
        self._cache.keep(self._name, turn, rendered)
