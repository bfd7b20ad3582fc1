"""Which responses need how much of which sequence: pure.

A turn that ends leaves a *need*: so many tokens of its sequence are worth keeping for what goes on from its response.
Turns of one conversation work on a sequence one after the other, so its needs are beginnings of each other, and lie in
it in the order of their lengths. When a response is gone its need is, and what lies behind the longest that is left is
nobody's. So it costs the same however many turns a conversation has.

A response that nobody can name any more, or that came to nothing, leaves a *guest*: a need with an end, for a client
that sends its history again. A turn that goes on from a sequence takes the place of the guests behind which it begins:
it leaves a need of its own. So there are never more needs of a sequence than it has tokens.

Not here: sequences (`memory`), and cutting and dropping them (`worker`).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import TypeAlias

import msgspec

from segue.protocol.ids import ResponseId

#: A response: its tenant and its id.
Name: TypeAlias = tuple[str, ResponseId]


class Need(msgspec.Struct, frozen=True):
    """So many tokens of a sequence are needed, and the first `firm` of them must not be rewound by another turn.

    `may_spill`: all of these tokens are of turns that may go to the disk.
    """

    length: int
    firm: int
    may_spill: bool = False


#: What is left of a sequence that nobody needs.
NOTHING = Need(0, 0)


class Needs:
    """The needs of all sequences of one engine, by the keys of the sequences. `now` is any clock, in seconds."""

    def __init__(self) -> None:
        self._needs: dict[int, dict[Name, Need]] = {}  # of each sequence, the shortest first; none is empty
        self._at: dict[Name, int] = {}
        self._guests: dict[Name, float] = {}  # and until when, the first to leave first

    def __len__(self) -> int:
        return len(self._at)

    def of(self, key: int) -> Need:
        """Return the longest need of a sequence; all others are beginnings of it."""
        needs = self._needs.get(key)
        return NOTHING if needs is None else needs[next(reversed(needs))]

    def begin(self, key: int, length: int) -> None:
        """Note that a turn goes on from the first `length` tokens of a sequence; what stood behind them is lost."""
        needs = self._needs.get(key, {})
        while needs:
            name = next(reversed(needs))
            if length and name not in self._guests:
                break
            self._remove(name)
        for name, need in reversed(needs.items()):
            if need.length <= length:
                break
            needs[name] = msgspec.structs.replace(need, length=length, firm=min(need.firm, length))

    def add(self, key: int, name: Name, need: Need, until: float | None) -> None:
        """Note what a turn has left at its end, in a sequence that it has made longer; `until` makes it a guest."""
        self._remove(name)
        self._needs.setdefault(key, {})[name] = need
        self._at[name] = key
        if until is not None:
            self._guests[name] = until

    def release(self, name: Name, until: float) -> None:
        """Make a need a guest: nobody can name its response any more."""
        if name in self._at:
            self._guests.setdefault(name, until)

    def dismiss(self, key: int) -> bool:
        """Remove the guests behind the longest need that is none; tell whether there were both."""
        needs = self._needs.get(key, {})
        guests = list(itertools.takewhile(self._guests.__contains__, reversed(needs)))
        if not guests or len(guests) == len(needs):
            return False
        self.forget(guests)
        return True

    def forget(self, names: Iterable[Name]) -> set[int]:
        """Remove the needs of responses that are gone; return the sequences that had them."""
        keys = {self._remove(name) for name in names}
        return {key for key in keys if key is not None}

    def expire(self, now: float) -> set[int]:
        """Remove the guests whose time has come; return the sequences that had them."""
        due = []
        for name, until in self._guests.items():
            if until > now:
                break
            due.append(name)
        return self.forget(due)

    def next_end(self) -> float | None:
        """Return when the next guest is to leave."""
        return next(iter(self._guests.values()), None)

    def drop(self, key: int) -> None:
        """Note that a sequence is no more."""
        for name in self._needs.pop(key, ()):
            del self._at[name]
            self._guests.pop(name, None)

    def _remove(self, name: Name) -> int | None:
        key = self._at.pop(name, None)
        if key is None:
            return None
        self._guests.pop(name, None)
        needs = self._needs[key]
        del needs[name]
        if not needs:
            del self._needs[key]
        return key
