"""Keeps answers whose tokens take long to choose from slowing down the others: they pay with time. Pure.

An answer under a grammar may need many milliseconds for a token, in which nothing else is computed. That time is a
debt of all such answers together. While there is one, they sit out the steps of the others, whose computing pays it
off. So the others have at least half of the time. Not here: how long anything takes (`worker`), and what a grammar may
cost at all (`grammar.token_matcher`).
"""

from __future__ import annotations

from collections.abc import Hashable
from collections.abc import Set as AbstractSet
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)

#: A token that is chosen in less, in seconds of processor time, is quick: most take a fifth of it.
QUICK_S = 0.01
#: An answer of which a token takes longer than this has failed.
LONGEST_S = 1.0


class SlowAnswers(Generic[Key]):
    """Who has been slow, and what they owe."""

    def __init__(self) -> None:
        self._slow: set[Key] = set()
        self._debt_s = 0.0

    def sampled(self, key: Key, took_s: float) -> None:
        """Note how long the newest token of an answer took to choose."""
        if took_s < QUICK_S:
            self._slow.discard(key)
        else:
            self._slow.add(key)
            self._debt_s += took_s

    def computed(self, keys: AbstractSet[Key], took_s: float) -> None:
        """Note how long a step took; those of the others pay off the debt."""
        if keys - self._slow:
            self._debt_s = max(0.0, self._debt_s - took_s)

    def held(self, running: AbstractSet[Key]) -> frozenset[Key]:
        """Return which of those that run sit out the next step: none if there is nobody else to wait for."""
        if not self._debt_s or running <= self._slow:
            return frozenset()
        return frozenset(self._slow & running)

    def forget(self, key: Key) -> None:
        """Drop an answer that is over; what it owes remains."""
        self._slow.discard(key)
