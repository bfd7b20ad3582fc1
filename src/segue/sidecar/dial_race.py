"""Which connections are opened for one link, and which of them asks for the upgrade. Pure: effects out, times in.

A network that was away loses the first packet of a connection, and TCP repeats it after 1, 3 and 7 seconds (RFC 6298,
5.5): the network may be back for seconds before that is noticed. So while something waits and nothing moves, another
connection is begun about every second. The first one stays, since a path may take that long; of the others only the
newest few do.

One connection at a time asks for the upgrade: to a gateway a second one takes the place of the first. The next one that
is ready asks only if the answer to the first is late; its own set-up has just shown how long a round trip takes. Not
here: connections (`segue.sidecar.dialer`), and what is tried after this (`segue.sidecar.link_search`).
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec

#: Another connection is begun after this time in which nothing has moved.
INTERVAL_S = 1.0
#: So many connections at most are being set up at a time.
MOST_CONNECTING = 4
#: An answer to the upgrade is late after so many times what the set-up of the next connection took.
LATE_SETUPS = 2.0


class StartDial(msgspec.Struct, frozen=True):
    """Begin a connection."""

    dial: int


class AskUpgrade(msgspec.Struct, frozen=True):
    """Ask for the upgrade on this connection."""

    dial: int


class AbortDial(msgspec.Struct, frozen=True):
    """Drop a connection."""

    dial: int


RaceEffect: TypeAlias = StartDial | AskUpgrade | AbortDial


class DialRace:
    """The connections of one attempt to get a link. `interval_s`: that of this race, with its jitter."""

    def __init__(self, interval_s: float = INTERVAL_S) -> None:
        self._interval_s = interval_s
        self._started_at: dict[int, float] = {}  # those that are being set up, oldest first
        self._setup_s: dict[int, float] = {}  # those that are ready, oldest first, with the time that it took
        self._asking: int | None = None
        self._asked_at = 0.0
        self._moved_at = 0.0
        self._last = 0
        self.over = False
        """Nothing is left, and nothing more is begun."""

    def begin(self, now: float) -> list[RaceEffect]:
        """Begin the race."""
        return self._start(now)

    def next_at(self) -> float:
        """Return when to call `handle_timeout`."""
        waiting = next(iter(self._setup_s), None)
        return self._moved_at + self._interval_s if waiting is None else self._late_at(waiting)

    def handle_timeout(self, now: float, *, wanted: bool) -> list[RaceEffect]:
        """Begin another connection, or let the next one ask, if it is time. `wanted`: something waits for the link."""
        if self.over or now < self.next_at():
            return []
        waiting = next(iter(self._setup_s), None)
        if waiting is not None:
            assert self._asking is not None, "else it would not wait"
            return [AbortDial(self._asking), *self._ask(waiting, now)]
        if wanted:
            return self._start(now)
        self._moved_at = now
        return []

    def hurry(self, now: float) -> list[RaceEffect]:
        """Begin another connection at once: the network has changed, and those before may lead nowhere."""
        return [] if self.over or self._setup_s else self._start(now)

    def ready(self, dial: int, now: float) -> list[RaceEffect]:
        """Note that a connection is set up, TLS included. One that was dropped does not count."""
        if dial not in self._started_at:
            return []
        self._setup_s[dial] = now - self._started_at.pop(dial)
        self._moved_at = now
        return self._ask(dial, now) if self._asking is None else []

    def failed(self, dial: int, now: float) -> list[RaceEffect]:
        """Note that a connection has failed. One that is further goes on; those behind would fail too."""
        self._started_at.pop(dial, None)
        self._setup_s.pop(dial, None)
        if self._asking == dial:
            self._asking = None
        if self._asking is not None:
            return []
        if self._setup_s:
            return self._ask(next(iter(self._setup_s)), now)
        return self._end()

    def opened(self, dial: int) -> list[RaceEffect]:
        """Note that a connection has become a link: all others are dropped."""
        self._asking = None
        return self._end(but=dial)

    def _end(self, but: int = 0) -> list[RaceEffect]:
        self.over = True
        left = [dial for dial in (*self._started_at, *self._setup_s) if dial != but]
        self._started_at.clear()
        self._setup_s.clear()
        return [AbortDial(dial) for dial in left]

    def _start(self, now: float) -> list[RaceEffect]:
        self._last += 1
        self._moved_at = self._started_at[self._last] = now
        effects: list[RaceEffect] = []
        if len(self._started_at) > MOST_CONNECTING:
            _first, second, *_ = self._started_at
            del self._started_at[second]
            effects.append(AbortDial(second))
        return [*effects, StartDial(self._last)]

    def _ask(self, dial: int, now: float) -> list[RaceEffect]:
        del self._setup_s[dial]
        self._asking, self._asked_at, self._moved_at = dial, now, now
        return [AskUpgrade(dial)]

    def _late_at(self, waiting: int) -> float:
        """Return when the answer to the upgrade is late, so that the next connection asks."""
        return self._asked_at + max(self._interval_s, LATE_SETUPS * self._setup_s[waiting])
