"""Finds the idle session that a framework's request continues: by the history that it sends, or by a response's id.

A session is taken out while its turn runs, so no two requests share one, and put back with what it holds then. The
sessions unused for longest are given up when there are too many. Not here: how histories are compared
(`history_digest`), and what a session is.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Generic, NamedTuple, TypeVar

from segue.client.adapters.history_digest import EMPTY, extend_digest

S = TypeVar("S")


class HeldHistory(NamedTuple):
    """A history that a session holds: its digest, and the id of the response that it ends with."""

    digest: bytes
    response_id: str


class SessionMatch(NamedTuple, Generic[S]):
    """The session that a request continues, if there is one; how many of its items that session holds already.

    `digest` is that of the whole history, the new items included.
    """

    session: S | None
    held: int
    digest: bytes


class SessionIndex(Generic[S]):
    """The idle sessions, at most so many."""

    def __init__(self, most: int = 64) -> None:
        self._most = most
        self._idle: OrderedDict[int, tuple[HeldHistory, S]] = OrderedDict()
        self._by_digest: dict[bytes, set[int]] = {}
        self._by_response: dict[str, int] = {}
        self._next = 0

    def __len__(self) -> int:
        return len(self._idle)

    def take_by_history(self, items: Sequence[bytes]) -> SessionMatch[S]:
        """Take out the session whose history is the longest beginning of these items."""
        digests = list(extend_digest(EMPTY, items))
        whole = digests[-1] if digests else EMPTY
        for held in range(len(digests), 0, -1):
            numbers = self._by_digest.get(digests[held - 1])
            if numbers:
                return SessionMatch(self._take(max(numbers))[1], held, whole)
        return SessionMatch(None, 0, whole)

    def take_by_response(self, response_id: str, items: Sequence[bytes]) -> SessionMatch[S] | None:
        """Take out the session that ends with this response, to which the items are added; None if none does."""
        number = self._by_response.get(response_id)
        if number is None:
            return None
        held, session = self._take(number)
        return SessionMatch(session, 0, [held.digest, *extend_digest(held.digest, items)][-1])

    def put(self, session: S, held: HeldHistory) -> list[S]:
        """Put a session back; return those that are given up for it."""
        number, self._next = self._next, self._next + 1
        self._idle[number] = (held, session)
        self._by_digest.setdefault(held.digest, set()).add(number)
        self._by_response[held.response_id] = number
        surplus = len(self._idle) - self._most
        return [self._take(next(iter(self._idle)))[1] for _ in range(surplus)]

    def clear(self) -> list[S]:
        """Take out all sessions."""
        return [self._take(number)[1] for number in tuple(self._idle)]

    def _take(self, number: int) -> tuple[HeldHistory, S]:
        held, session = self._idle.pop(number)
        same = self._by_digest[held.digest]
        same.discard(number)
        if not same:
            del self._by_digest[held.digest]
        if self._by_response.get(held.response_id) == number:
            del self._by_response[held.response_id]
        return held, session
