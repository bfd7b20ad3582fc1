"""A least-recently-used cache with a budget in bytes: the cache keeps values until their sizes exceed the budget.

It has no lock and no clock, and it does not measure values: the caller says how many bytes each one counts. Not here:
what is cached, and expiry by time.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class ByteLru(Generic[K, V]):
    """Values by key, the least recently used first. Every method takes O(1) time, `put` for each key that it evicts."""

    def __init__(self, budget_bytes: int, *, max_entries: int | None = None) -> None:
        self._budget_bytes = budget_bytes
        self._max_entries = max_entries
        self._entries: OrderedDict[K, tuple[V, int]] = OrderedDict()
        self._size_bytes = 0

    @property
    def size_bytes(self) -> int:
        """The sum of the sizes of all values."""
        return self._size_bytes

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: object) -> bool:
        return key in self._entries

    def __iter__(self) -> Iterator[K]:
        """Iterate over the keys, the least recently used first. Do not change the cache meanwhile."""
        return iter(self._entries)

    def get(self, key: K) -> V | None:
        """Return the value of a key and make it the most recently used one."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        self._entries.move_to_end(key)
        return entry[0]

    def peek(self, key: K) -> V | None:
        """Return the value of a key and leave the order of use as it is."""
        entry = self._entries.get(key)
        return None if entry is None else entry[0]

    def put(self, key: K, value: V, *, size_bytes: int) -> list[K]:
        """Keep a value as the most recently used one; return the keys that this evicts.

        A value replaces the one with the same key. A value that is larger than the whole budget is evicted at once,
        and takes no other value with it.
        """
        self.pop(key)
        if size_bytes > self._budget_bytes:
            return [key]
        self._entries[key] = value, size_bytes
        self._size_bytes += size_bytes
        evicted: list[K] = []
        while self._size_bytes > self._budget_bytes or self._too_many:
            oldest, (_, oldest_bytes) = self._entries.popitem(last=False)
            self._size_bytes -= oldest_bytes
            evicted.append(oldest)
        return evicted

    def pop(self, key: K) -> V | None:
        """Remove a key and return its value; return None if there is none."""
        entry = self._entries.pop(key, None)
        if entry is None:
            return None
        value, size_bytes = entry
        self._size_bytes -= size_bytes
        return value

    @property
    def _too_many(self) -> bool:
        return self._max_entries is not None and len(self._entries) > self._max_entries
