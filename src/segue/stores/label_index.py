"""An index in memory of responses by their labels, in the order of time.

Not here: which responses are alive (`memory`), and the same index in a database (`sqlite_labels`).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

from segue.protocol.ids import ResponseId
from segue.protocol.response_query import SCAN_LIMIT, Label, Position, ResponseQuery
from segue.stores.interface import QueryTooBroad


class IndexedResponse(NamedTuple):
    """A response in the index."""

    position: Position
    id: ResponseId


class LabelIndex:
    """Which responses of a tenant have a label, sorted by position."""

    def __init__(self, scan_limit: int = SCAN_LIMIT) -> None:
        self._entries: dict[tuple[str, Label | None], list[IndexedResponse]] = {}  # None: all of a tenant
        self._labels: dict[tuple[str, ResponseId], frozenset[Label]] = {}
        self._scan_limit = scan_limit

    def add(self, tenant: str, entry: IndexedResponse, labels: Sequence[Label]) -> None:
        """Add a response."""
        self._labels[tenant, entry.id] = frozenset(labels)
        for label in (None, *labels):
            insort(self._entries.setdefault((tenant, label), []), entry)

    def remove(self, tenant: str, entry: IndexedResponse) -> None:
        """Take a response out."""
        for label in (None, *self._labels.pop((tenant, entry.id))):
            entries = self._entries[tenant, label]
            del entries[bisect_left(entries, entry)]
            if not entries:
                del self._entries[tenant, label]

    def clear(self) -> None:
        """Take everything out."""
        self._entries.clear()
        self._labels.clear()

    def find(
        self, tenant: str, query: ResponseQuery, *, after: Position | None, is_alive: Callable[[ResponseId], bool]
    ) -> list[ResponseId]:
        """Return the living responses that match. Raises `QueryTooBroad`."""
        wanted = frozenset(query.labels)
        most = self._scan_limit // max(1, len(query.labels))
        for label in query.labels or (None,):
            between = self._between(tenant, label, query, after)
            seen = islice(between, most) if wanted else between
            alive = (one.id for one in seen if is_alive(one.id) and wanted <= self._labels[tenant, one.id])
            found = list(islice(alive, query.limit))
            if len(found) == query.limit or next(between, None) is None:
                return found
        raise QueryTooBroad(f"no label of {query.labels!r} is rare enough")

    def _between(
        self, tenant: str, label: Label | None, query: ResponseQuery, after: Position | None
    ) -> Iterator[IndexedResponse]:
        entries = self._entries.get((tenant, label), [])
        low, high = query.bounds(after)
        begin = bisect_right(entries, low, key=_position)
        end = bisect_left(entries, high, key=_position)
        places = range(begin, end) if query.order == "asc" else range(end - 1, begin - 1, -1)
        return (entries[place] for place in places)


def _position(entry: IndexedResponse) -> Position:
    return entry.position
