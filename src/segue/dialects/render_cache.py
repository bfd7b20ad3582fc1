"""Past turns as they were rendered, kept beside the history: one entry per turn and dialect, under one byte budget.

What a turn is rendered to depends only on its items and on where the turn before it left off, so an entry never
changes, and continuing a chain renders only what is new. An entry dies with its turn (the cache refers to turns
weakly), so nothing of a store=false conversation outlives it here. Over budget, the least recently used entry is
evicted; if that turn is asked for again, it is rendered again. Not here: what an entry holds, which is its dialect's
business.
"""

from __future__ import annotations

from functools import partial
from typing import Generic, Protocol, TypeVar
from weakref import ref

from segue.byte_lru import ByteLru
from segue.history.chains import Turn

#: What an entry costs beside its bytes: objects and table entries, rounded up.
ENTRY_OVERHEAD_BYTES = 512


class Sized(Protocol):
    """A rendered turn, or an open message: all that the cache asks of it is its size."""

    @property
    def size_bytes(self) -> int:
        """Roughly how much memory it takes."""


R = TypeVar("R", bound=Sized)


class RenderCache:
    """The rendered turns of all dialects; every method is O(1). With `budget_bytes` 0 it keeps nothing."""

    def __init__(self, budget_bytes: int) -> None:
        self._entries: ByteLru[tuple[str, int], Sized] = ByteLru(budget_bytes)
        # By a turn's address, which is its own as long as it lives; when the turn dies, its entries go.
        self._turns: dict[int, ref[Turn]] = {}
        self._views: set[str] = set()

    @property
    def size_bytes(self) -> int:
        """How much memory all entries take."""
        return self._entries.size_bytes

    def __len__(self) -> int:
        return len(self._entries)

    def view(self, name: str, kind: type[R]) -> RenderCacheView[R]:
        """Return the part of the cache that belongs to one dialect of one provider."""
        return RenderCacheView(self, name, kind)

    def staged(self) -> StagedRenders:
        """Return a cache for one rendering in another thread, which changes nothing here until it is committed."""
        return StagedRenders(self)

    def peek(self, name: str, turn: Turn) -> Sized | None:
        """Return the rendered turn of a view, if it is cached, and leave the order of use as it is. For any thread."""
        return self._entries.peek((name, id(turn)))

    def find(self, name: str, turn: Turn) -> Sized | None:
        """Return the rendered turn of a view, if it is cached."""
        return self._entries.get((name, id(turn)))

    def keep(self, name: str, turn: Turn, rendered: Sized) -> None:
        """Keep a rendered turn as long as the turn lives and the budget allows."""
        address = id(turn)
        if address not in self._turns:
            self._turns[address] = ref(turn, partial(self._forget, address))
        self._views.add(name)
        self._entries.put((name, address), rendered, size_bytes=rendered.size_bytes + ENTRY_OVERHEAD_BYTES)

    def _forget(self, address: int, _: ref[Turn]) -> None:
        del self._turns[address]
        for name in self._views:  # one for each dialect of each provider
            self._entries.pop((name, address))


class StagedRenders(RenderCache):
    """What one rendering finds in a cache, and what it will keep there."""

    def __init__(self, base: RenderCache) -> None:
        super().__init__(0)
        self._base = base
        self._kept: dict[tuple[str, int], tuple[Turn, Sized]] = {}

    def find(self, name: str, turn: Turn) -> Sized | None:
        """Return the rendered turn of a view, if it is staged or cached."""
        kept = self._kept.get((name, id(turn)))
        return self._base.peek(name, turn) if kept is None else kept[1]

    def keep(self, name: str, turn: Turn, rendered: Sized) -> None:
        """Keep a rendered turn until the commit."""
        self._kept[name, id(turn)] = turn, rendered

    def commit(self) -> None:
        """Keep in the cache itself what was rendered. In the cache's own thread."""
        for (name, _), (turn, rendered) in self._kept.items():
            self._base.keep(name, turn, rendered)


class RenderCacheView(Generic[R]):
    """One dialect's part of the cache, with the type of its entries."""

    def __init__(self, cache: RenderCache, name: str, kind: type[R]) -> None:
        self._cache = cache
        self.name = name
        self._kind = kind

    def find(self, turn: Turn) -> R | None:
        """Return the rendered turn, if it is cached."""
        found = self._cache.find(self.name, turn)
        return found if isinstance(found, self._kind) else None

    def keep(self, turn: Turn, rendered: R) -> None:
        """Keep a rendered turn."""
        self._cache.keep(self.name, turn, rendered)
